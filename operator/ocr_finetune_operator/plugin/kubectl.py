"""Talks to the cluster through the user's own kubectl: whatever way of logging in that has works here, too."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ocr_finetune_api import GROUP, PLURAL
from ocr_finetune_api.exit_codes import ExitCode, OCRFineTuneError

RESOURCE = f"{PLURAL}.{GROUP}"


class ClusterError(OCRFineTuneError):
    """kubectl could not do what was asked."""

    exit_code = ExitCode.INPUT_MISSING


@dataclass(frozen=True, kw_only=True)
class Kubectl:
    """kubectl with the options that say where.

    Attributes:
        options: Such as `--namespace`, `--context`, `--kubeconfig`.
    """

    options: tuple[str, ...] = ()

    def run(self, *arguments: str, text_input: str | None = None) -> str:
        """What kubectl prints.

        Raises:
            ClusterError: It failed; with what it said.
        """
        done = subprocess.run(self.command(*arguments), input=text_input, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise ClusterError(_said(done.stderr))
        return done.stdout

    def stream(self, *arguments: str) -> int:
        """Lets kubectl write to this terminal; returns its exit code."""
        return subprocess.run(self.command(*arguments), check=False).returncode

    def save(self, *arguments: str) -> bytes:
        """What kubectl prints, as bytes.

        Raises:
            ClusterError: It failed.
        """
        done = subprocess.run(self.command(*arguments), capture_output=True, check=False)
        if done.returncode != 0:
            raise ClusterError(_said(done.stderr.decode(errors="replace")))
        return done.stdout

    def command(self, *arguments: str) -> list[str]:
        """The command line."""
        program = shutil.which("kubectl")
        if program is None:
            raise ClusterError("there is no kubectl in PATH", hint="install kubectl, or add its folder to PATH")
        return [program, *self.options, *arguments]

    def get_run(self, name: str) -> dict[str, Any]:
        """A run."""
        found: dict[str, Any] = json.loads(self.run("get", RESOURCE, name, "-o", "json"))
        return found

    def list_runs(self) -> list[dict[str, Any]]:
        """All runs of the namespace."""
        found: list[dict[str, Any]] = json.loads(self.run("get", RESOURCE, "-o", "json"))["items"]
        return found

    def patch(self, name: str, patch: dict[str, Any]) -> None:
        """Changes a run."""
        self.run("patch", RESOURCE, name, "--type", "merge", "-p", json.dumps(patch))


def _said(stderr: str) -> str:
    lines: Sequence[str] = [line for line in stderr.strip().splitlines() if line.strip()]
    # What a command in a pod said comes before that it failed.
    words = [line for line in lines if not line.startswith("command terminated with exit code")]
    return (words or lines or ["kubectl failed without a word"])[-1]
