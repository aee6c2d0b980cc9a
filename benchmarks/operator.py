"""How fast the operator is, and what it costs: `python benchmarks/operator.py [--only many atRest …] [--runs N] …`.

Against the real control plane of the tests, with kwok for the nodes. Four measurements, each with an operator of its
own that has the rights of the chart:

* many:     N runs of 2 nodes × 8 GPUs are created at once, all stages succeed.
* atRest:   N finished runs, the operator starts: time until ready, memory, CPU when nothing happens.
* handOver: two replicas; the leader is killed, or told to stop: time until the other one makes a new run's first Job.
* reaction: N running runs, a pod of each fails: time until the next attempt's Job, beyond the back-off.

In the same run and on the same control plane stand beside it:

* bareJobs: N bare Indexed Jobs of 2 pods, created at once.
* trainingOperator: N PaddleJobs of 2 pods, created at once, by Kubeflow's training-operator 1.8.1. `--training-operator`
  names its program, `--training-operator-source` its source, which holds the resource's definition (a Go module:
  `go mod download -json github.com/kubeflow/training-operator@v1.8.1` says where it lies). Skipped without them.

Ratios tell more than seconds: the machine may be busy with other things.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import shutil
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import requests
import yaml

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "controlplane"))

from kube_testing.client import Kube  # noqa: E402
from kube_testing.control_plane import ControlPlane  # noqa: E402
from kube_testing.processes import free_ports, wait_for  # noqa: E402
from operator_testing import (  # noqa: E402
    OPERATOR_NAMESPACE,
    Operator,
    World,
    fails,
    install,
    make_claim,
    manifest,
    succeeds,
)

from ocr_finetune_api.plan import Stage  # noqa: E402

# What an installation has, unlike the quick settings of the tests.
PRODUCTION = {
    "status_writes_per_second": "20",
    "progress_interval": "30",
    "backoff_base": "30",
    "backoff_limit": "600",
    "recheck_interval": "60",
    "log_format": "json",
}
GANG = {"device": "gpu", "nodes": 2, "devicesPerNode": 8}


def _time(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _percentiles(values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {
        "p50": round(statistics.median(ordered), 2),
        "p99": round(ordered[min(int(len(ordered) * 0.99), len(ordered) - 1)], 2),
        "max": round(ordered[-1], 2),
    }


def _create(world: World, count: int, **spec: Any) -> dict[str, float]:
    """Creates runs at once; returns when each was created, by name."""
    with ThreadPoolExecutor(16) as pool:
        made = list(pool.map(lambda n: _created(world, manifest(world.namespace, f"run-{n}", **spec)), range(count)))
    return dict(made)


def _created(world: World, document: dict[str, Any]) -> tuple[str, float]:
    world.kube.create(document)
    return document["metadata"]["name"], time.time()


def _world(plane: ControlPlane, namespace: str) -> World:
    plane.create_namespace(namespace)
    make_claim(plane, namespace)
    return World(plane, namespace, plane.pods(namespace))


def _phases(world: World) -> Counter[str]:
    return Counter(one.get("status", {}).get("phase", "") for one in world.kube.list("OCRFineTune", world.namespace))


def bare_jobs(plane: ControlPlane, count: int) -> dict[str, Any]:
    """The yardstick: Jobs of two pods, from creation to the last pod."""
    world = _world(plane, "bare")
    world.pods.succeeds(after=2)
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "spec": {
            "completions": 2,
            "parallelism": 2,
            "completionMode": "Indexed",
            "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": "none"}]}},
        },
    }
    documents = [job | {"metadata": {"name": f"bare-{n}", "namespace": "bare"}} for n in range(count)]
    with ThreadPoolExecutor(16) as pool:
        created = dict(pool.map(lambda one: _created(world, one), documents))
    last = _last_pods(world, count, label="batch.kubernetes.io/job-name")
    plane.kube.delete("Namespace", "bare")
    return {"lastPod": _percentiles([max(last[name] - moment, 0.0) for name, moment in created.items()])}


def _last_pods(world: World, count: int, *, label: str) -> dict[str, float]:
    """When the last of its two pods was made, by the name of what it belongs to; waits until all are there."""
    made: dict[str, list[float]] = {}

    def all_there() -> bool:
        made.clear()
        for pod in world.kube.list("Pod", world.namespace):
            made.setdefault(pod["metadata"]["labels"][label], []).append(_time(pod["metadata"]["creationTimestamp"]))
        return len(made) == count and all(len(times) >= 2 for times in made.values())

    wait_for(all_there, describe="all pods", timeout=1800, interval=3)
    return {name: max(times) for name, times in made.items()}


def training_operator(plane: ControlPlane, program: Path, source: Path, count: int) -> dict[str, Any]:
    """Kubeflow's: PaddleJobs of two pods, from creation to the last pod."""
    namespace = "kubeflow"
    world = _world(plane, namespace)
    world.pods.succeeds(after=2)
    definition = yaml.safe_load((source / "manifests/base/crds/kubeflow.org_paddlejobs.yaml").read_text())
    plane.kube.create(definition)
    # It makes a certificate for its webhook and puts it into both of these; the webhook itself is not measured.
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "training-operator-webhook-cert"}}
    secret["metadata"]["namespace"] = namespace  # type: ignore[index]
    plane.kube.create(secret)
    plane.kubectl("create", "-f", "-", manifest=yaml.safe_dump(_UNUSED_WEBHOOK))
    everything = [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]
    kubeconfig = plane.service_account(name="training-operator", namespace=namespace, rules=everything)
    health, hooks = free_ports(2)
    command = [program, "--metrics-bind-address=0", f"--health-probe-bind-address=127.0.0.1:{health}",
               f"--webhook-server-port={hooks}", "--enable-scheme=paddlejob"]  # fmt: skip
    process = plane.spawn(
        "training-operator", command, env={"KUBECONFIG": str(kubeconfig), "MY_POD_NAMESPACE": namespace}
    )
    with _mounted(plane, namespace, secret["metadata"]["name"]):  # type: ignore[index]
        url = f"http://127.0.0.1:{health}/readyz"
        wait_for(lambda: _answers(url), describe=lambda: f"training-operator:\n{process.tail()}", timeout=120)
        documents = [_paddle_job(f"run-{number}", namespace) for number in range(count)]
        with ThreadPoolExecutor(16) as pool:
            created = dict(pool.map(lambda one: _created(world, one), documents))
        last = _last_pods(world, count, label="training.kubeflow.org/job-name")
    requests_ = plane.requests(f"system:serviceaccount:{namespace}:training-operator")
    own = [one for one in requests_ if one.get("objectRef", {}).get("namespace") == namespace]
    result = {
        "jobs": count,
        "lastPod": _percentiles([max(last[name] - moment, 0.0) for name, moment in created.items()]),
        "peakMemoryMB": round(process.peak_memory() / 1e6),
        "cpuSeconds": round(process.cpu_seconds(), 1),
        "requestsAJob": round(len(own) / count, 1),
    }
    plane.forget(process)
    plane.kube.delete("Namespace", namespace)
    return result


_UNUSED_WEBHOOK = {
    "apiVersion": "admissionregistration.k8s.io/v1",
    "kind": "ValidatingWebhookConfiguration",
    "metadata": {"name": "validator.training-operator.kubeflow.org"},
    "webhooks": [
        {
            "name": "unused.training-operator.kubeflow.org",
            "admissionReviewVersions": ["v1"],
            "sideEffects": "None",
            "clientConfig": {"service": {"name": "none", "namespace": "kubeflow"}},
            "rules": [{"apiGroups": ["none.invalid"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["x"]}],
        }
    ],
}  # fmt: skip


def _paddle_job(name: str, namespace: str) -> dict[str, Any]:
    container = {"name": "paddle", "image": "none", "resources": {"limits": {"nvidia.com/gpu": "8"}}}
    worker = {"replicas": 2, "restartPolicy": "Never", "template": {"spec": {"containers": [container]}}}
    return {
        "apiVersion": "kubeflow.org/v1",
        "kind": "PaddleJob",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"paddleReplicaSpecs": {"Worker": worker}},
    }


@contextmanager
def _mounted(plane: ControlPlane, namespace: str, secret: str) -> Iterator[None]:
    """Puts a Secret where its pod would have it mounted."""
    found = wait_for(
        lambda: (plane.kube.get("Secret", secret, namespace) or {}).get("data"), describe="a certificate", timeout=60
    )
    folder = Path("/tmp/k8s-webhook-server/serving-certs")
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in found.items():
        (folder / name).write_bytes(base64.b64decode(data))
    try:
        yield
    finally:
        shutil.rmtree(folder.parent)


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).ok
    except requests.RequestException:
        return False


def many(plane: ControlPlane, kubeconfig: Path, count: int) -> dict[str, Any]:
    """Runs that are created at once."""
    world = _world(plane, "many")
    succeeds(world.pods, after=2)
    before = len(plane.requests(f"system:serviceaccount:{OPERATOR_NAMESPACE}:operator"))
    operator = Operator(
        plane, kubeconfig=kubeconfig, name="many", preloaded=False, namespaces="many", **PRODUCTION
    ).wait_ready()
    started = time.time()
    created = _create(world, count, distributed=GANG, policy={"ttlAfterFinished": "168h"})
    accepted = time.time() - started
    deadline = time.time() + 3600
    while operator.metric('ocrfinetune_runs{phase="Succeeded"}') < count and time.time() < deadline:
        time.sleep(2)
    peak = operator.process.peak_memory()
    took = time.time() - started
    jobs = {
        one["metadata"]["name"]: _time(one["metadata"]["creationTimestamp"]) for one in world.kube.list("Job", "many")
    }
    pods: dict[str, float] = {}
    for pod in world.kube.list("Pod", "many"):
        name = pod["metadata"]["labels"]["ocrfinetune.dev/run"]
        if pod["metadata"]["labels"]["ocrfinetune.dev/stage"] == "prepare":
            pods[name] = _time(pod["metadata"]["creationTimestamp"])
    requests = plane.requests(f"system:serviceaccount:{OPERATOR_NAMESPACE}:operator")[before:]
    own = [one for one in requests if one.get("objectRef", {}).get("namespace") == "many"]
    cpu = operator.process.cpu_seconds()
    plane.forget(operator.process)
    return {
        "runs": count,
        "phases": dict(_phases(world)),
        "secondsToCreateThem": round(accepted, 1),
        "secondsToTheLastOne": round(took, 1),
        "firstStagesPod": _percentiles([max(pods[name] - moment, 0) for name, moment in created.items()]),
        "trainingJob": _percentiles([max(jobs[f"{name}-train-1"] - moment, 0) for name, moment in created.items()]),
        "peakMemoryMB": round(peak / 1e6),
        "cpuSeconds": round(cpu, 1),
        "requestsARun": round(len(own) / count, 1),
        "requestsByVerb": dict(Counter(one["verb"] for one in own)),
    }


def at_rest(plane: ControlPlane, kubeconfig: Path, count: int, *, idle: float) -> dict[str, Any]:
    """Finished runs, and an operator that starts and then has nothing to do."""
    world = _world(plane, "rest")
    _create(world, count, policy={"ttlAfterFinished": "168h"})
    done = _finished_status()

    def finish(number: int) -> None:
        plane.kube.patch("OCRFineTune", f"run-{number}", "rest", {"status": done}, subresource="status")

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(finish, range(count)))
    started = time.monotonic()
    operator = Operator(plane, kubeconfig=kubeconfig, name="rest", preloaded=False, namespaces="rest", **PRODUCTION)
    wait_for(lambda: operator.get("/readyz") is not None, describe="ready", timeout=120, interval=0.1)
    ready = time.monotonic() - started
    # Until the watch has brought all of them once more.
    time.sleep(20)
    cpu = operator.process.cpu_seconds()
    time.sleep(idle)
    used = operator.process.cpu_seconds() - cpu
    result = {
        "finishedRuns": count,
        "secondsToReady": round(ready, 1),
        "peakMemoryMB": round(operator.process.peak_memory() / 1e6),
        "idleCpuPercent": round(100 * used / idle, 2),
        "runsInMetrics": operator.metric('ocrfinetune_runs{phase="Succeeded"}'),
    }
    plane.forget(operator.process)
    return result


def _finished_status() -> dict[str, Any]:
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    stages = [
        {"name": stage.value, "state": "Succeeded", "attempt": 1, "startedAt": moment, "finishedAt": moment,
         "job": f"run-{stage.value}-1", "inputHash": "0" * 16}
        for stage in Stage
    ]  # fmt: skip
    attempts = [
        {"stage": stage.value, "number": 1, "nodes": 1, "startedAt": moment, "endedAt": moment,
         "outcome": "Succeeded", "reason": "Succeeded", "jobUid": "0" * 36}
        for stage in Stage
    ]  # fmt: skip
    return {
        "phase": "Succeeded", "specHash": "0" * 16, "observedGeneration": 1, "observedRetryNonce": 0, "restarts": 0,
        "finishedAt": moment, "stages": stages, "attempts": attempts,
        "conditions": [{"type": "Complete", "status": "True", "reason": "Succeeded", "lastTransitionTime": moment}],
    }  # fmt: skip


def reaction(plane: ControlPlane, kubeconfig: Path, count: int) -> dict[str, Any]:
    """From the end of a failed pod to the Job of the next attempt; the back-off counts from that end."""
    world = _world(plane, "react")
    succeeds(world.pods, Stage.PREPARE)
    operator = Operator(
        plane, kubeconfig=kubeconfig, name="react", preloaded=False, namespaces="react", **PRODUCTION
    ).wait_ready()
    _create(world, count, policy={"maxRestarts": 1, "gracePeriod": "1s"})
    training = "ocrfinetune.dev/stage=train"
    wait_for(
        lambda: sum(p["status"].get("phase") == "Running" for p in world.kube.list("Pod", "react", labels=training))
        == count,
        describe="all to train", timeout=600, interval=1,
    )  # fmt: skip
    seen = _Moments(world)
    with seen.watching():
        fails(world.pods, Stage.TRAIN, 70, attempt=1)
        wait_for(lambda: len(seen.made) >= count, describe="the next attempts", timeout=600, interval=0.5)
    plane.forget(operator.process)
    due = {name: _time(moment) for name, moment in seen.due.items()}
    return {
        "running": count,
        "beyondTheBackOff": _percentiles([max(moment - due[name], 0.0) for name, moment in seen.made.items()]),
        "podFailedToDecided": _percentiles([seen.decided[name] - seen.failed[name] for name in seen.made]),
        "podFailedToNextJob": _percentiles([moment - seen.failed[name] for name, moment in seen.made.items()]),
    }


def hand_over(plane: ControlPlane, kubeconfig: Path) -> dict[str, Any]:
    """Two replicas: from the end of the leader to the first Job of a run that was created in that moment."""
    world = _world(plane, "lead")
    election = {"leader_election": "true", "namespaces": "lead", "preloaded": False, **PRODUCTION}
    replicas = [Operator(plane, kubeconfig=kubeconfig, name=f"replica-{n}", **election) for n in range(3)]
    result: dict[str, Any] = {}
    for way in ("killed", "stopped"):
        leader = wait_for(
            lambda: next((one for one in replicas if one.metric("ocrfinetune_leader ") == 1), None),
            describe="a leader",
            timeout=120,
        )
        replicas.remove(leader)
        for one in replicas:
            one.wait_ready()
        # It has led for a while: others have seen it renew.
        time.sleep(5)
        started = time.monotonic()
        leader.process.kill() if way == "killed" else leader.process.signal(signal.SIGTERM)
        world.create(way)
        world.job(f"{way}-prepare-1")
        result[f"secondsWhen{way.capitalize()}"] = round(time.monotonic() - started, 1)
        plane.forget(leader.process)
    for one in replicas:
        plane.forget(one.process)
    return result


class _Moments:
    """When what was seen through watches, by run.

    Attributes:
        failed: A pod of its training had failed.
        decided: The operator had written down that it tries again.
        due: When it wants to.
        made: The Job of the next attempt was there.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._stop = threading.Event()
        self.failed: dict[str, float] = {}
        self.decided: dict[str, float] = {}
        self.due: dict[str, str] = {}
        self.made: dict[str, float] = {}

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Takes times as long as the block lasts."""
        looks: tuple[tuple[str, Callable[[dict[str, Any]], None]], ...] = (
            ("Pod", self._pod), ("OCRFineTune", self._run), ("Job", self._job)
        )  # fmt: skip
        threads = [threading.Thread(target=self._watch, args=look, daemon=True) for look in looks]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()

    def _watch(self, kind: str, look: Callable[[dict[str, Any]], None]) -> None:
        client = Kube(url=self._world.plane.url, ca_file=self._world.plane.ca_file, token=self._world.kube.token)
        with suppress(requests.RequestException):  # it ends with the API server
            for _, found in client.watch(kind, self._world.namespace):
                if self._stop.is_set():
                    return
                look(found)

    def _pod(self, pod: dict[str, Any]) -> None:
        if pod["status"].get("phase") == "Failed":
            self.failed.setdefault(pod["metadata"]["labels"]["ocrfinetune.dev/run"], time.time())

    def _run(self, run: dict[str, Any]) -> None:
        name, status = run["metadata"]["name"], run.get("status", {})
        if status.get("restarts") == 1:
            self.decided.setdefault(name, time.time())
        if status.get("nextAttemptAt"):
            self.due[name] = status["nextAttemptAt"]

    def _job(self, job: dict[str, Any]) -> None:
        labels = job["metadata"]["labels"]
        if labels["ocrfinetune.dev/attempt"] == "2":
            self.made.setdefault(labels["ocrfinetune.dev/run"], time.time())


def main() -> int:
    """Runs the measurements and prints them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--finished", type=int, default=10000)
    parser.add_argument("--failures", type=int, default=100)
    parser.add_argument("--idle", type=float, default=60.0)
    parser.add_argument(
        "--only", nargs="+", choices=("bareJobs", "trainingOperator", "many", "reaction", "handOver", "atRest")
    )
    parser.add_argument("--training-operator", type=Path, help="program of Kubeflow's training-operator 1.8.1")
    parser.add_argument("--training-operator-source", type=Path, help="its source")
    options = parser.parse_args()
    # On a busy machine nodes that only exist as data may look dead for a while: that is not what is measured.
    plane = ControlPlane(Path(tempfile.mkdtemp(prefix="bench-")), unreachable_seconds=3600)
    results: dict[str, Any] = {"loadAverage": os.getloadavg(), "cores": os.cpu_count()}
    peer = options.training_operator, options.training_operator_source
    measurements: dict[str, Callable[[], dict[str, Any]]] = {
        "bareJobs": lambda: bare_jobs(plane, options.runs),
        "trainingOperator": lambda: (
            training_operator(plane, *peer, options.runs) if all(peer) else {"skipped": "no --training-operator"}
        ),
        "many": lambda: many(plane, kubeconfig, options.runs),
        "reaction": lambda: reaction(plane, kubeconfig, options.failures),
        "handOver": lambda: hand_over(plane, kubeconfig),
        "atRest": lambda: at_rest(plane, kubeconfig, options.finished, idle=options.idle),
    }
    try:
        plane.start()
        for number in range(10):
            plane.nodes.add(f"node-{number}", gpus=4096, cpu="4096", memory="64Ti")
        kubeconfig = install(plane)
        for name in options.only or measurements:
            results[name] = measurements[name]()
            print(json.dumps({name: results[name]}), flush=True)
        print(json.dumps({"ratios": _ratios(results)}), flush=True)
    finally:
        plane.stop()
    return 0


def _ratios(results: dict[str, Any]) -> dict[str, float]:
    """Our first stage's pod against the last pod of others, p99 of the same run."""
    if "many" not in results:
        return {}
    ours = results["many"]["firstStagesPod"]["p99"]
    others = {name: results.get(name, {}).get("lastPod") for name in ("bareJobs", "trainingOperator")}
    return {f"firstStagesPodTo{name[0].upper()}{name[1:]}": round(ours / lasts["p99"], 2)
            for name, lasts in others.items() if lasts}  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
