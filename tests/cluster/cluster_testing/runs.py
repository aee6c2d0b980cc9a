"""A run on the cluster: applied, followed and asked, with the waiting that takes."""

from __future__ import annotations

import copy
import json
from datetime import datetime
from typing import TYPE_CHECKING, Any

import yaml
from kube_testing.binaries import ROOT
from kube_testing.processes import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kube_testing.client import Manifest

    from .cluster import Cluster

EXAMPLE = ROOT / "examples" / "digits" / "kubernetes.yaml"
_FINAL = {"Succeeded", "Failed"}


class Run:
    """One OCRFineTune and what belongs to it.

    Args:
        cluster: Where it runs.
        namespace: Its namespace.
        work: The folder behind its workspace claim.
        changes: Merged over the example's spec.
        name: Its name.
    """

    def __init__(
        self, cluster: Cluster, namespace: str, work: Path, changes: Manifest | None = None, *, name: str = "digits"
    ) -> None:
        self._kube = cluster.kube
        self.namespace = namespace
        self.name = name
        self.work = work
        self.manifest = yaml.safe_load(EXAMPLE.read_text())
        self.manifest["metadata"] |= {"namespace": namespace, "name": name}
        self.manifest["spec"] = merged(self.manifest["spec"], changes or {})

    def apply(self) -> Run:
        """Creates the run."""
        self._kube.create(self.manifest)
        return self

    def get(self) -> Manifest:
        """Returns the run as it stands."""
        found = self._kube.get("OCRFineTune", self.name, self.namespace)
        assert found is not None
        return found

    def patch(self, spec: Manifest) -> None:
        """Changes the run's spec."""
        self._kube.patch("OCRFineTune", self.name, self.namespace, {"spec": spec})

    def status(self) -> Manifest:
        """Returns the run's status."""
        status: Manifest = self.get().get("status", {})
        return status

    def wait(self, holds: Callable[[Manifest], object], *, describe: str, timeout: float = 600.0) -> Manifest:
        """Waits until ``holds`` says yes to the status; a run that ends before is an error at once."""

        def look() -> Manifest | None:
            status = self.status()
            if holds(status):
                return status
            if status.get("phase") in _FINAL:
                raise AssertionError(f"{describe}: the run ended first:\n{_shown(status)}")
            return None

        return wait_for(
            look, timeout=timeout, interval=0.2, describe=lambda: f"{describe}; the status:\n{_shown(self.status())}"
        )

    def wait_phase(self, phase: str, *, timeout: float = 900.0) -> Manifest:
        """Waits for a phase."""
        return self.wait(lambda status: status.get("phase") == phase, describe=f"phase {phase}", timeout=timeout)

    def wait_checkpoint(self, *, beyond: int = 0, timeout: float = 600.0) -> int:
        """Waits until a checkpoint of a step greater than ``beyond`` is complete, and returns the step."""

        def newest() -> int:
            return max(self.checkpoints(), default=0)

        wait_for(
            lambda: newest() > beyond,
            timeout=timeout,
            interval=0.1,
            describe=lambda: f"a checkpoint beyond step {beyond}; the status:\n{_shown(self.status())}",
        )
        return newest()

    def folder(self) -> Path:
        """Returns the run's folder in the workspace."""
        return self.work / f"{self.name}-{self.get()['metadata']['uid'][:8]}"

    def checkpoints(self) -> list[int]:
        """Returns the steps of the complete checkpoints."""
        manifests = self.folder().glob("checkpoints/[0-9]*/manifest.json")  # a name with a dot is being written
        return sorted(int(path.parent.name.split(".")[0]) for path in manifests)

    def pods(self, stage: str = "train", *, phase: str = "Running") -> list[Manifest]:
        """Returns the pods of a stage in a phase, by rank."""
        labels = f"ocrfinetune.dev/run={self.name},ocrfinetune.dev/stage={stage}"
        found = [
            pod for pod in self._kube.list("Pod", self.namespace, labels=labels) if pod["status"]["phase"] == phase
        ]
        return sorted(found, key=lambda pod: int(pod["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"]))

    def wait_pods_gone(self, stage: str = "train", *, timeout: float = 120.0) -> None:
        """Waits until no pod of a stage runs any more: a suspended one saves a checkpoint before it ends."""
        wait_for(lambda: not self.pods(stage), describe=f"the pods of {stage} to end", timeout=timeout)

    def jobs(self) -> list[str]:
        """Returns the names of the run's Jobs."""
        found = self._kube.list("Job", self.namespace, labels=f"ocrfinetune.dev/run={self.name}")
        return sorted(job["metadata"]["name"] for job in found)

    def result(self, stage: str) -> Manifest:
        """Returns the trainer's own result of a stage."""
        found: Manifest = json.loads((self.folder() / "results" / f"{stage}.json").read_text())
        return found

    def events(self, name: str) -> list[Manifest]:
        """Returns what the trainer noted of one kind, in order."""
        lines = [json.loads(line) for line in (self.folder() / "events.jsonl").read_text().splitlines()]
        return [line for line in lines if line["event"] == name]

    def attempts(self, stage: str = "train") -> list[Manifest]:
        """Returns the recorded attempts at a stage."""
        return [one for one in self.status().get("attempts", []) if one["stage"] == stage]


def seconds(moment: str) -> float:
    """Returns a time of a status or a result as seconds since 1970."""
    return datetime.fromisoformat(moment).timestamp()


def merged(base: Manifest, changes: Manifest) -> Manifest:
    """Returns a copy of ``base`` with ``changes`` laid over it, mappings into mappings."""
    result: dict[str, Any] = copy.deepcopy(base)
    for key, value in changes.items():
        below = result.get(key)
        result[key] = merged(below, value) if isinstance(value, dict) and isinstance(below, dict) else value
    return result


def _shown(status: Manifest) -> str:
    return json.dumps(status, indent=1)[:6000]
