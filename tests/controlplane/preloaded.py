"""Starts a Python program in a process of its own whose modules are loaded already: tests start operators often.

The process is a fork of one that has imported what takes a second to import, and nothing else. It has its own process
id, environment, log and exit code, and can be killed like any other.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path

from kube_testing.processes import Process, die_with_parent

_PRELOADED = ["pytest", "ocr_finetune_operator.__main__"]


class PreloadedOperator(Process):
    """`python -m ocr_finetune_operator`, started in a tenth of the time."""

    def __init__(self, name: str, flags: Sequence[str], *, folder: Path, env: Mapping[str, str]) -> None:
        super().__init__(name, ["python", "-m", "ocr_finetune_operator", *flags], folder=folder, env=env)
        self._flags, self._own_env = list(flags), dict(env)
        self._context: ForkServerContext = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(_PRELOADED)
        self._fork: ForkServerProcess | None = None

    @property
    def pid(self) -> int:
        """The process id of the latest start."""
        if self._fork is None or self._fork.pid is None:
            raise RuntimeError(f"{self.name} was never started")
        return self._fork.pid

    @property
    def returncode(self) -> int | None:
        """The exit code (negative: the signal), None while it runs."""
        return None if self._fork is None else self._fork.exitcode

    @property
    def running(self) -> bool:
        """Whether it has been started and has not ended."""
        return self._fork is not None and self._fork.exitcode is None

    def start(self) -> PreloadedOperator:
        """Starts the program, which must not run, and returns this object."""
        if self.running:
            raise RuntimeError(f"{self.name} runs already")
        self._fork = self._context.Process(target=_main, args=(self._flags, self._own_env, str(self.log)), daemon=True)
        self._fork.start()
        return self

    def wait(self, *, timeout: float) -> int:
        """Waits for the end and returns the exit code."""
        if self._fork is None:
            raise RuntimeError(f"{self.name} was never started")
        self._fork.join(timeout)
        code = self._fork.exitcode
        if code is None:
            raise subprocess.TimeoutExpired([self.name], timeout)
        return code


def _main(flags: list[str], env: Mapping[str, str], log: str) -> None:
    die_with_parent()
    os.setsid()
    with Path(log).open("ab") as file:
        for number in (1, 2):
            os.dup2(file.fileno(), number)
    os.environ.update(env)
    sys.argv = ["ocr_finetune_operator", *flags]
    from ocr_finetune_operator.__main__ import main

    sys.exit(main())
