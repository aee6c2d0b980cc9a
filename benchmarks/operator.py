"""How fast the operator is, and what it costs: `python benchmarks/operator.py [--runs N] [--finished N] [--failures N]`.

Against the real control plane of the tests, with kwok for the nodes. Three measurements, each with an operator of its
own that has the rights of the chart:

* many:     N runs of 2 nodes × 8 GPUs are created at once, all stages succeed.
* at rest:  N finished runs, the operator starts: time until ready, memory, CPU when nothing happens.
* reaction: N running runs, a pod of each fails: time until the next attempt's Job, beyond the back-off.

In the same run and on the same control plane, N bare Indexed Jobs of 2 pods are created at once, as a yardstick. Ratios
tell more than seconds: the machine may be busy with other things.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "controlplane"))

from kube_testing.control_plane import ControlPlane  # noqa: E402
from kube_testing.processes import wait_for  # noqa: E402
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
PRODUCTION = {"status_writes_per_second": "20", "progress_interval": "30", "backoff_base": "0"}
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
    last: dict[str, float] = {}

    def all_there() -> bool:
        last.clear()
        for pod in world.kube.list("Pod", "bare"):
            name = pod["metadata"]["labels"]["batch.kubernetes.io/job-name"]
            last[name] = max(last.get(name, 0.0), _time(pod["metadata"]["creationTimestamp"]))
        return len(last) == count

    wait_for(all_there, describe="all pods", timeout=900, interval=1)
    plane.kube.delete("Namespace", "bare")
    return _percentiles([max(last[name] - moment, 0.0) for name, moment in created.items()])


def many(plane: ControlPlane, kubeconfig: Path, count: int) -> dict[str, Any]:
    """Runs that are created at once."""
    world = _world(plane, "many")
    succeeds(world.pods, after=2)
    before = len(plane.requests(f"system:serviceaccount:{OPERATOR_NAMESPACE}:operator"))
    operator = Operator(plane, kubeconfig=kubeconfig, name="many", namespaces="many", **PRODUCTION).wait_ready()
    started = time.time()
    created = _create(world, count, distributed=GANG, policy={"ttlAfterFinished": "168h"})
    accepted = time.time() - started
    peak = 0
    deadline = time.time() + 3600
    while _phases(world)["Succeeded"] < count and time.time() < deadline:
        peak = max(peak, operator.process.peak_memory())
        time.sleep(2)
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
    operator = Operator(plane, kubeconfig=kubeconfig, name="rest", namespaces="rest", **PRODUCTION)
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
    """From the end of a failed pod to the Job of the next attempt, without a back-off."""
    world = _world(plane, "react")
    succeeds(world.pods, Stage.PREPARE)
    operator = Operator(plane, kubeconfig=kubeconfig, name="react", namespaces="react", **PRODUCTION).wait_ready()
    _create(world, count, policy={"maxRestarts": 1, "gracePeriod": "1s"})
    wait_for(lambda: _phases(world)["Training"] == count, describe="all to train", timeout=600, interval=1)
    wait_for(
        lambda: len(
            [p for p in world.kube.list("Pod", "react", labels="ocrfinetune.dev/stage=train")
             if p["status"].get("phase") == "Running"]
        ) == count,
        describe="their pods to run", timeout=600, interval=1,
    )  # fmt: skip
    fails(world.pods, Stage.TRAIN, 70, attempt=1)
    wait_for(
        lambda: len(world.kube.list("Job", "react", labels="ocrfinetune.dev/attempt=2")) == count,
        describe="the next attempts", timeout=600, interval=1,
    )  # fmt: skip
    waits, own = [], []
    failed = {}
    for pod in world.kube.list("Pod", "react", labels="ocrfinetune.dev/stage=train,ocrfinetune.dev/attempt=1"):
        ended = pod["status"]["containerStatuses"][0]["state"]["terminated"]["finishedAt"]
        failed[pod["metadata"]["labels"]["ocrfinetune.dev/run"]] = _time(ended)
    first = {one["metadata"]["labels"]["ocrfinetune.dev/run"]: one
             for one in world.kube.list("Job", "react", labels="ocrfinetune.dev/stage=train,ocrfinetune.dev/attempt=1")}  # fmt: skip
    for job in world.kube.list("Job", "react", labels="ocrfinetune.dev/attempt=2"):
        run = job["metadata"]["labels"]["ocrfinetune.dev/run"]
        made = _time(job["metadata"]["creationTimestamp"])
        waits.append(max(made - failed[run], 0.0))
        conditions = {one["type"]: one for one in first[run]["status"]["conditions"]}
        own.append(max(made - _time(conditions["Failed"]["lastTransitionTime"]), 0.0))
    plane.forget(operator.process)
    return {
        "running": count,
        "podFailedToNextJob": _percentiles(waits),
        "jobFailedToNextJob": _percentiles(own),
        "note": "Kubernetes' times are in whole seconds; the first figure includes the Job controller's own delay",
    }


def main() -> int:
    """Runs the measurements and prints them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--finished", type=int, default=10000)
    parser.add_argument("--failures", type=int, default=100)
    parser.add_argument("--idle", type=float, default=60.0)
    options = parser.parse_args()
    # On a busy machine nodes that only exist as data may look dead for a while: that is not what is measured.
    plane = ControlPlane(Path(tempfile.mkdtemp(prefix="bench-")), unreachable_seconds=3600)
    results: dict[str, Any] = {"loadAverage": os.getloadavg(), "cores": os.cpu_count()}
    try:
        plane.start()
        for number in range(10):
            plane.nodes.add(f"node-{number}", gpus=4096, cpu="4096", memory="64Ti")
        kubeconfig = install(plane)
        for name, run in (
            ("bareJobs", lambda: bare_jobs(plane, options.runs)),
            ("many", lambda: many(plane, kubeconfig, options.runs)),
            ("reaction", lambda: reaction(plane, kubeconfig, options.failures)),
            ("atRest", lambda: at_rest(plane, kubeconfig, options.finished, idle=options.idle)),
        ):
            results[name] = run()
            print(json.dumps({name: results[name]}), flush=True)
    finally:
        plane.stop()
    print(json.dumps(results, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
