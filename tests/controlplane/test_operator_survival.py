"""Nothing that happens to the operator or the API server loses or repeats anything."""

from __future__ import annotations

import json
import time
from pathlib import Path

from kube_testing.control_plane import ControlPlane
from kube_testing.processes import wait_for
from operator_proxy import proxied
from operator_testing import OPERATOR_NAMESPACE, PATIENCE, Operator, World, succeeds

from ocr_finetune_api.plan import STAGES, Stage
from ocr_finetune_operator import rbac


def test_a_busy_api_server_and_watches_that_break_change_nothing(
    plane: ControlPlane, installed: Path, world: World, alone: None
) -> None:
    succeeds(world.pods)
    with proxied(plane, installed, world.namespace) as (proxy, operator):
        proxy.refuse_every, proxy.cut_watches_after = 4, 0.7
        for name in ("one", "two"):
            world.create(name, distributed={"nodes": 2})
        for name in ("one", "two"):
            status = world.wait_phase("Succeeded", name)
            assert world.jobs(name=name) == [f"{name}-{stage.value}-1" for stage in STAGES]
            assert (status["restarts"], status["disruptions"]) == (0, 0)
        assert operator.process.running


def test_the_api_server_and_etcd_restart_in_the_middle(operator: Operator, world: World) -> None:
    for name in ("one", "two", "three"):
        world.create(name)
    world.running("one-prepare-1")
    world.plane.stop_api_server()
    time.sleep(1)  # requests fail in the meantime
    world.plane.start_api_server()
    succeeds(world.pods, Stage.PREPARE)
    world.running("two-train-1")
    world.plane.restart_etcd()
    succeeds(world.pods, Stage.TRAIN, Stage.EVALUATE, Stage.EXPORT)
    for name in ("one", "two", "three"):
        status = world.wait_phase("Succeeded", name)
        assert status["restarts"] == 0
        assert world.jobs(name=name) == [f"{name}-{stage.value}-1" for stage in STAGES]


def test_two_replicas_one_works_and_the_other_takes_over(
    plane: ControlPlane, installed: Path, world: World, alone: None
) -> None:
    election = {
        "leader_election": "true",
        # A leader that can't renew for two thirds of this, as this machine is busy, ends itself.
        "lease_duration": "12",
        "lease_renew": "1",
        "lease_name": world.namespace[:40],
    }
    replicas = [Operator(plane, kubeconfig=installed, name=f"replica-{n}", **election) for n in (0, 1)]
    try:
        first = wait_for(
            lambda: next((one for one in replicas if one.metric("ocrfinetune_leader ") == 1), None),
            describe="a leader",
            timeout=PATIENCE,
        )
        second = next(one for one in replicas if one is not first)
        second.wait_ready()
        world.create()
        world.running("plates-prepare-1")
        assert second.metric("ocrfinetune_leader ") == 0
        first.process.kill()
        succeeds(world.pods, Stage.PREPARE)
        world.running("plates-train-1")
        # In order: the Lease is given back, so nobody has to wait for it to run out.
        first.process.start()
        first.wait_ready()
        assert second.process.stop(timeout=PATIENCE) == 0
        wait_for(lambda: first.metric("ocrfinetune_leader ") == 1, describe="the other one to lead", timeout=PATIENCE)
        succeeds(world.pods, Stage.TRAIN, Stage.EVALUATE, Stage.EXPORT)
        status = world.wait_phase("Succeeded")
        assert world.jobs() == [f"plates-{stage.value}-1" for stage in STAGES]
        assert (status["restarts"], status["disruptions"]) == (0, 0)
    finally:
        for replica in replicas:
            plane.forget(replica.process)


def test_an_operator_of_one_namespace_needs_no_right_beyond_it(plane: ControlPlane, world: World, alone: None) -> None:
    kubeconfig = plane.service_account(
        name="own", namespace=world.namespace, rules=rbac.rules(cluster=False), only_namespace=True
    )
    succeeds(world.pods)
    operator = Operator(plane, kubeconfig=kubeconfig, name="narrow", namespaces=world.namespace, check_nodes="false")
    try:
        operator.wait_ready()
        world.create()
        world.wait_phase("Succeeded")
        user = f"system:serviceaccount:{world.namespace}:own"
        assert {one["responseStatus"]["code"] for one in plane.requests(user)} <= {200, 201, 404, 409}
    finally:
        plane.forget(operator.process)


def test_a_missing_right_is_named_with_what_it_is_for(plane: ControlPlane, world: World, alone: None) -> None:
    rules = [rule for rule in rbac.rules() if rule["resources"] != ["jobs"]]
    kubeconfig = plane.service_account(name="poor", namespace=world.namespace, rules=rules)
    operator = Operator(plane, kubeconfig=kubeconfig, name="poor", namespaces=world.namespace)
    try:
        wait_for(
            lambda: "runs each attempt at a stage as a Job" in operator.process.said(),
            describe="the log",
            timeout=PATIENCE,
        )
        assert operator.get("/readyz") is None
    finally:
        plane.forget(operator.process)


def test_metrics_tell_what_goes_on(operator: Operator, world: World) -> None:
    succeeds(world.pods, Stage.PREPARE)
    world.create()
    world.running("plates-train-1")
    assert operator.get("/healthz") == "ok\n"
    assert operator.metric('ocrfinetune_api_requests_total{code="201",verb="POST"') > 0
    assert operator.metric("ocrfinetune_reconcile_duration_seconds_count") > 0
    assert operator.metric('ocrfinetune_runs{phase="Training"}') >= 1
    assert operator.metric('ocrfinetune_stage_duration_seconds_count{stage="prepare"}') >= 1
    succeeded = 'ocrfinetune_attempts_total{failure_class="",outcome="Succeeded",stage="prepare"}'
    assert operator.metric(succeeded) >= 1
    said = operator.get("/metrics") or ""
    for name in ("queue_depth", "queue_age_seconds", "queue_wait_seconds_count", "reconcile_errors_total"):
        assert f"ocrfinetune_{name}" in said
    wait_for(
        lambda: operator.metric("ocrfinetune_first_pod_seconds_count") > 0,
        describe="the time to the first pod",
        timeout=PATIENCE,
    )


def test_a_stop_ends_what_was_begun_and_nothing_else(
    plane: ControlPlane, installed: Path, world: World, alone: None
) -> None:
    # Of its namespace alone: those of other tests may still be on their way out, which it would tell.
    operator = Operator(
        plane, kubeconfig=installed, name="whole", preloaded=False, log_format="json", namespaces=world.namespace
    ).wait_ready()
    try:
        names = [f"run-{number}" for number in range(20)]
        for name in names:
            world.create(name)
        world.job("run-0-prepare-1")
        assert operator.process.stop(timeout=PATIENCE) == 0
        said = [json.loads(line) for line in operator.process.log.read_text().splitlines()]
        assert not [line for line in said if line["level"] in ("error", "critical")]
        assert {line["run"] for line in said if "run" in line} <= {f"{world.namespace}/{name}" for name in names}
        assert {(line["stage"], line["attempt"]) for line in said if "stage" in line} == {("prepare", 1)}
        # What is written in a status has been done.
        for run in world.kube.list("OCRFineTune", world.namespace):
            name = run["metadata"]["name"]
            assert world.jobs(name=name) == [f"{name}-prepare-1"] * len(run.get("status", {}).get("attempts", []))
        operator.process.start()
        for name in names:
            world.job(f"{name}-prepare-1")
    finally:
        plane.forget(operator.process)


def test_no_more_requests_than_a_run_needs(plane: ControlPlane, operator: Operator, world: World) -> None:
    succeeds(world.pods, after=0.5)
    world.create(distributed={"nodes": 2})
    world.wait_phase("Succeeded")
    world.wait_event("Succeeded")
    user = f"system:serviceaccount:{OPERATOR_NAMESPACE}:operator"
    mine = [one for one in plane.requests(user) if one.get("objectRef", {}).get("namespace") == world.namespace]
    writes = [one for one in mine if one["objectRef"].get("subresource") == "status"]
    # Each stage is begun, has its Job, is admitted, and runs; once it is told that no progress comes; and the end. What
    # comes together is written together, and how much does depends on how fast things are.
    assert len(writes) <= 4 * len(STAGES) + 2
    # Where Jobs are ahead of their pods, these are asked for, once a stage.
    asked = [one for one in mine if (one["verb"], one["objectRef"]["resource"]) == ("list", "pods")]
    assert len(asked) <= len(STAGES)
    assert len(mine) - len(writes) - len(asked) <= 27
