"""Drives the operator as users and clusters do: as a process of its own with its own rights, against a real API server."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import requests
import yaml
from kube_testing.client import Manifest, condition
from kube_testing.processes import DEADLINE, free_ports, wait_for
from preloaded import PreloadedOperator

from ocr_finetune_api.crd import FILE_NAME
from ocr_finetune_api.exit_codes import ExitCode, class_of
from ocr_finetune_api.plan import STAGES, Stage
from ocr_finetune_api.results import StageResult
from ocr_finetune_operator import rbac

if TYPE_CHECKING:
    from kube_testing.control_plane import ControlPlane
    from kube_testing.fake_nodes import PodScript
    from kube_testing.processes import Process

ROOT = Path(__file__).parents[2]
OPERATOR_NAMESPACE = "ocrft-system"
PATIENCE = DEADLINE
# Not the trainer's own: a trainer of another test may listen on that one, at all addresses of this machine.
PROGRESS_PORT = 9465
# Everything that takes minutes in a cluster takes fractions of a second here.
QUICK = {
    "backoff-base": "0.2",
    "backoff-limit": "1",
    "progress-interval": "0.5",
    "recheck-interval": "1",
    "status-writes-per-second": "200",
    "log-format": "text",
    "metrics-port": str(PROGRESS_PORT),
}
LABEL_STAGE = "ocrfinetune.dev/stage"
LABEL_RUN = "ocrfinetune.dev/run"
LABEL_ATTEMPT = "ocrfinetune.dev/attempt"


class Operator:
    """An operator process.

    Attributes:
        process: The process; kill and start it at will. Without `preloaded` it is started as an image would start it.
        port: Port of its health and metrics.
    """

    def __init__(
        self, plane: ControlPlane, *, kubeconfig: Path, name: str = "operator", preloaded: bool = True, **settings: str
    ) -> None:
        (self.port,) = free_ports(1)
        self.plane = plane
        flags = QUICK | {"port": str(self.port)} | {key.replace("_", "-"): value for key, value in settings.items()}
        arguments = [f"--{key}={value}" for key, value in flags.items()]
        env = {"KUBECONFIG": str(kubeconfig), "PYTHONWARNINGS": "ignore", "POD_NAMESPACE": OPERATOR_NAMESPACE}
        self.process: Process
        if preloaded:
            folder = plane.folder / "logs"
            self.process = plane.adopt(PreloadedOperator(plane.free_name(name), arguments, folder=folder, env=env))
        else:
            self.process = plane.spawn(name, [sys.executable, "-m", "ocr_finetune_operator", *arguments], env=env)

    def wait_ready(self) -> Operator:
        """Waits until it has seen all runs."""
        wait_for(
            lambda: self.get("/readyz") is not None,
            timeout=PATIENCE,
            describe=lambda: f"the operator to be ready; its log:\n{self.process.tail()}",
        )
        return self

    def get(self, path: str) -> str | None:
        """An answer of its HTTP server; None if there is none, or no good one."""
        if not self.process.running:
            raise AssertionError(f"the operator ended with {self.process.returncode}:\n{self.process.tail()}")
        try:
            answer = requests.get(f"http://127.0.0.1:{self.port}{path}", timeout=PATIENCE)
        except requests.RequestException:
            return None
        return answer.text if answer.ok else None

    def metric(self, name: str) -> float:
        """The sum of the samples whose line begins with `name`, once it serves metrics."""
        text = wait_for(lambda: self.get("/metrics"), describe="the metrics", timeout=PATIENCE)
        return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name))

    def wait_metric(self, name: str, value: float) -> None:
        """Waits until a metric has a value: what follows from a status is counted after it is written."""
        wait_for(
            lambda: self.metric(name) == value,
            describe=lambda: f"{name} to be {value:g}; it is {self.metric(name):g}",
            timeout=PATIENCE,
        )


def install(plane: ControlPlane) -> Path:
    """Installs what the chart installs: the CRD, the namespace, and the account with its rights."""
    plane.kube.create(yaml.safe_load((ROOT / "crds" / FILE_NAME).read_text()))
    plane.kube.wait(
        "CustomResourceDefinition",
        "ocrfinetunes.ocrfinetune.dev",
        None,
        lambda crd: crd.get("status", {}).get("conditions") and condition(crd, "Established"),
    )
    plane.create_namespace(OPERATOR_NAMESPACE)
    wait_for(lambda: _served(plane), describe="the resource to be served, and explained")
    # A test of the chart holds its ClusterRole against this list.
    return plane.service_account(name="operator", namespace=OPERATOR_NAMESPACE, rules=rbac.rules())


def _served(plane: ControlPlane) -> bool:
    try:
        plane.kube.list("OCRFineTune", "default")
    except RuntimeError:
        return False
    # What kubectl asks for is published a moment later.
    return plane.kubectl("explain", "ocrft.spec.policy", check=False).returncode == 0


def manifest(namespace: str, name: str = "plates", **spec: Any) -> Manifest:
    """An OCRFineTune on the CPU with fast clocks; keywords replace parts of the spec."""
    base: dict[str, Any] = {
        "model": {"name": "PP-OCRv5_mobile_rec"},
        "dataset": {"train": [{"uri": "pvc://work/plates"}]},
        "distributed": {"device": "cpu", "nodes": 1},
        "workspace": {"claimName": "work"},
        "policy": {"gracePeriod": "5s"},
    }
    for key, value in spec.items():
        merges = isinstance(value, dict) and isinstance(base.get(key), dict) and key in ("policy", "distributed")
        base[key] = base[key] | value if merges else value
    return {
        "apiVersion": "ocrfinetune.dev/v1alpha1",
        "kind": "OCRFineTune",
        "metadata": {"name": name, "namespace": namespace},
        "spec": base,
    }


def make_claim(plane: ControlPlane, namespace: str, name: str = "work", *, mode: str = "ReadWriteMany") -> None:
    """A bound claim. It is bound by hand: the controller takes up to 15 seconds for it."""
    volume, bound = f"{namespace}-{name}", {"pv.kubernetes.io/bind-completed": "yes"}
    size = {"storage": "1Gi"}
    common = {"accessModes": [mode], "storageClassName": ""}
    claim = plane.kube.create(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": name, "namespace": namespace, "annotations": bound},
            "spec": {**common, "resources": {"requests": size}, "volumeName": volume},
        }
    )
    reference = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": namespace, "name": name}
    plane.kube.create(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": volume},
            "spec": {
                **common,
                "capacity": size,
                "hostPath": {"path": "/none"},
                "claimRef": reference | {"uid": claim["metadata"]["uid"]},
            },
        }
    )
    plane.kube.patch("PersistentVolume", volume, None, {"status": {"phase": "Bound"}}, subresource="status")
    status = {"phase": "Bound", "accessModes": [mode], "capacity": size}
    plane.kube.patch("PersistentVolumeClaim", name, namespace, {"status": status}, subresource="status")


def result(stage: Stage, code: int = 0, **fields: Any) -> str:
    """The termination message of a stage."""
    failure = {"exit_code": code, "failure_class": class_of(code)} if code else {}
    return StageResult(stage=stage, input_hash="h", **(failure | fields)).short_form()


def succeeds(pods: PodScript, *stages: Stage, after: float = 0.0, **fields: Any) -> None:
    """Lets the pods of stages (of all of them without arguments) end well with a result."""
    for stage in stages or STAGES:
        pods.succeeds(after=after, message=result(stage, **fields), labels={LABEL_STAGE: stage.value})


def fails(
    pods: PodScript, stage: Stage, code: int, *, attempt: int | None = None, index: int | None = None, **fields: Any
) -> None:
    """Lets the pods of a stage end with an exit code, and with the trainer's word about it if it has one."""
    told = code in ExitCode.__members__.values()
    labels = {LABEL_STAGE: stage.value} | ({"ocrfinetune.dev/attempt": str(attempt)} if attempt else {})
    message = result(stage, code, **({"message": "what happened", "hint": "what to do"} | fields)) if told else ""
    pods.exits(code=code, message=message, index=index, labels=labels)


class World:
    """One namespace as a user sees it.

    Attributes:
        kube: With an administrator's rights.
        pods: What becomes of the pods.
    """

    def __init__(self, plane: ControlPlane, namespace: str, pods: PodScript) -> None:
        self.plane = plane
        self.kube = plane.kube
        self.namespace = namespace
        self.pods = pods

    def create(self, name: str = "plates", **spec: Any) -> Manifest:
        """Creates a run."""
        return self.kube.create(manifest(self.namespace, name, **spec))

    def wait(self, holds: Callable[[Manifest], object], name: str = "plates", *, timeout: float = PATIENCE) -> Manifest:
        """Waits until a run's status is as told, and returns the status."""
        found = self.kube.wait(
            "OCRFineTune", name, self.namespace, lambda run: holds(run.get("status") or {}), timeout=timeout
        )
        status: Manifest = found["status"]
        return status

    def wait_phase(self, phase: str, name: str = "plates", *, timeout: float = PATIENCE) -> Manifest:
        """Waits for a phase, and returns the status."""
        return self.wait(lambda status: status.get("phase") == phase, name, timeout=timeout)

    def patch(self, spec: Manifest, name: str = "plates") -> Manifest:
        """Changes a run's spec."""
        return self.kube.patch("OCRFineTune", name, self.namespace, {"spec": spec})

    def change(self, spec: Manifest, name: str = "plates") -> None:
        """Changes a run's spec, and returns when the operator has seen that."""
        generation = self.patch(spec, name)["metadata"]["generation"]
        self.wait(lambda status: status.get("observedGeneration") == generation, name)

    def jobs(self, stage: Stage | None = None, name: str = "plates") -> list[str]:
        """The names of a run's Jobs, oldest first."""
        labels = f"{LABEL_RUN}={name}" + (f",{LABEL_STAGE}={stage.value}" if stage else "")
        found = self.kube.list("Job", self.namespace, labels=labels)
        return [one["metadata"]["name"] for one in sorted(found, key=_age)]

    def job(self, name: str, *, timeout: float = PATIENCE) -> Manifest:
        """Waits for a Job."""
        return self.kube.wait("Job", name, self.namespace, lambda _: True, timeout=timeout)

    def running(self, job: str, count: int = 1) -> list[Manifest]:
        """Waits for the running pods of a Job."""

        def look() -> list[Manifest] | None:
            found = self.kube.list("Pod", self.namespace, labels=f"batch.kubernetes.io/job-name={job}")
            ready = [pod for pod in found if pod["status"].get("phase") == "Running"]
            return ready if len(ready) == count else None

        return wait_for(look, describe=f"{count} running pods of {job}", timeout=PATIENCE)

    def events(self, reason: str) -> list[str]:
        """The messages of the events with a reason."""
        return [one["message"] for one in self.kube.list("Event", self.namespace) if one["reason"] == reason]

    def wait_event(self, reason: str) -> str:
        """Waits for an event."""
        return wait_for(lambda: self.events(reason), describe=f"an event {reason}", timeout=PATIENCE)[0]

    def condition(
        self, kind: str, status: str = "True", name: str = "plates", *, timeout: float = PATIENCE
    ) -> Manifest:
        """Waits for a condition."""
        found = self.wait(lambda s: condition({"status": s}, kind, status), name, timeout=timeout)
        said = condition({"status": found}, kind, status)
        assert said is not None
        return said


def _age(one: Manifest) -> tuple[str, int, int]:
    """When it was made; of Jobs that were made in the same second, the one comes first whose turn was first."""
    labels = one["metadata"]["labels"]
    return one["metadata"]["creationTimestamp"], STAGES.index(Stage(labels[LABEL_STAGE])), int(labels[LABEL_ATTEMPT])


@contextmanager
def progress_server(ip: str, document: Callable[[], Any]) -> Iterator[list[str]]:
    """Serves `/progress` at a pod's address; yields the headers of each request."""
    seen: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(str(self.headers))
            body = document()
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer((ip, PROGRESS_PORT), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield seen
        finally:
            server.shutdown()
            thread.join()
