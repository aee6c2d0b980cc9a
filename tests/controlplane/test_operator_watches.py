"""What the watches show may be old, late, doubled or gone: decisions are made from what is true."""

from __future__ import annotations

from pathlib import Path

import requests
from kube_testing.client import condition
from kube_testing.control_plane import ControlPlane
from kube_testing.processes import wait_for
from operator_proxy import proxied
from operator_testing import OPERATOR_NAMESPACE, PATIENCE, Operator, World, fails, result, succeeds

from ocr_finetune_api.plan import STAGES, Stage

NAMES = ("one", "two", "three")


def test_watches_that_are_too_old_begin_anew(plane: ControlPlane, installed: Path, world: World, alone: None) -> None:
    with proxied(plane, installed, world.namespace) as (proxy, operator):
        operator.wait_ready()
        proxy.cut_watches_after = 0.5
        for name in NAMES:
            world.create(name)
        for name in NAMES:
            world.running(f"{name}-prepare-1")
        # While nobody watches, everything moves on, and what was is forgotten: by etcd, and by the API server.
        proxy.held = ("watch=",)
        succeeds(world.pods, Stage.PREPARE)
        for name in NAMES:
            world.kube.wait(
                "Job", f"{name}-prepare-1", world.namespace, lambda job: job["status"].get("succeeded") == 1
            )
        plane.compact_etcd()
        plane.restart_api_server()
        proxy.held, proxy.cut_watches_after = (), 3600.0
        succeeds(world.pods, *STAGES[1:])
        for name in NAMES:
            status = world.wait_phase("Succeeded", name)
            assert world.jobs(name=name) == [f"{name}-{stage.value}-1" for stage in STAGES]
            assert (status["restarts"], status["disruptions"]) == (0, 0)
        assert proxy.expired > 0


def test_late_and_doubled_events_change_nothing(
    plane: ControlPlane, installed: Path, world: World, alone: None
) -> None:
    succeeds(world.pods, Stage.PREPARE, Stage.EVALUATE, Stage.EXPORT)
    fails(world.pods, Stage.TRAIN, 70, attempt=1)
    labels = {"ocrfinetune.dev/stage": "train", "ocrfinetune.dev/attempt": "2"}
    world.pods.succeeds(message=result(Stage.TRAIN), labels=labels)
    with proxied(plane, installed, world.namespace) as (proxy, _):
        proxy.late, proxy.twice = 0.2, True
        for name in NAMES:
            world.create(name, distributed={"nodes": 2})
        expected = ["prepare-1", "train-1", "train-2", "evaluate-1", "export-1"]
        for name in NAMES:
            status = world.wait_phase("Succeeded", name)
            assert world.jobs(name=name) == [f"{name}-{stage}" for stage in expected]
            assert (status["restarts"], status["disruptions"]) == (1, 0)
        jobs = [call for call in proxy.done if call.startswith("POST") and call.endswith("/jobs")]
        assert len(jobs) == len(NAMES) * len(expected)


def test_a_list_that_is_late_takes_nothing_back(
    plane: ControlPlane, installed: Path, world: World, alone: None
) -> None:
    """It tells what was when it was asked for; a watch has told more since, and no event comes after that."""
    with proxied(plane, installed, world.namespace) as (proxy, operator):
        world.create()
        world.running("plates-prepare-1")
        operator.process.kill()
        proxy.kept_back = ("/jobs?limit=",)
        operator.process.start()
        wait_for(lambda: proxy.keeps, describe="the list of Jobs", timeout=PATIENCE)
        succeeds(world.pods, Stage.PREPARE)
        world.running("plates-train-1")
        proxy.kept_back = ()
        operator.wait_ready()
        # A Job that seems to run on would be deleted before the next stage begins.
        succeeds(world.pods, *STAGES[1:])
        status = world.wait_phase("Succeeded")
        assert world.jobs() == [f"plates-{stage.value}-1" for stage in STAGES]
        assert (status["restarts"], status["disruptions"]) == (0, 0)


def test_a_job_that_was_made_may_start_before_the_operator_hears_that_it_is_made(
    plane: ControlPlane, installed: Path, world: World, alone: None
) -> None:
    with proxied(plane, installed, world.namespace) as (proxy, _):
        proxy.kept_back = ("/jobs plates-prepare-1",)
        world.create(pods={"nodeSelector": {"own": "nowhere"}})
        world.kube.wait("Job", "plates-prepare-1", world.namespace, lambda job: job["status"].get("startTime"))
        wait_for(
            lambda: [pod for pod in world.kube.list("Pod", world.namespace) if condition(pod, "PodScheduled", "False")],
            describe="a pod without a node",
            timeout=PATIENCE,
        )
        proxy.kept_back = ()
        # Nothing happens any more that a watch could tell.
        world.wait(lambda s: any(c["reason"] == "Unschedulable" for c in s["conditions"]))


def test_a_run_that_was_made_again_is_not_taken_for_the_one_that_is_gone(
    plane: ControlPlane, installed: Path, world: World, alone: None
) -> None:
    """The answer that there is no such run comes after the watch has told that there is one again."""
    with proxied(plane, installed, world.namespace) as (proxy, operator):
        world.create()
        world.running("plates-prepare-1")
        look = f"GET /apis/ocrfinetune.dev/v1alpha1/namespaces/{world.namespace}/ocrfinetunes/plates"

        def disappears(call: str, done: bool) -> None:
            if call == look and not done:
                world.kube.delete("OCRFineTune", "plates", world.namespace)

        proxy.on_call, proxy.kept_back = disappears, (look,)
        world.patch({"policy": {"suspend": True}})
        wait_for(lambda: look in proxy.keeps, describe="a look at the run", timeout=PATIENCE)
        proxy.on_call = lambda _call, _done: None
        again = world.create()
        operator.wait_metric('ocrfinetune_runs{phase="Pending"}', 1)
        proxy.kept_back = ()
        made = world.kube.wait(
            "Job",
            "plates-prepare-1",
            world.namespace,
            lambda job: job["metadata"]["ownerReferences"][0]["uid"] == again["metadata"]["uid"],
        )
        assert made["metadata"]["ownerReferences"][0]["kind"] == "OCRFineTune"


def test_an_api_server_that_has_no_time_for_the_operator(plane: ControlPlane, operator: Operator, world: World) -> None:
    """Priority and fairness of the real API server turns every request of the operator away (429) for a while."""
    world.create()
    world.running("plates-prepare-1")
    user = f"system:serviceaccount:{OPERATOR_NAMESPACE}:operator"
    before = len(_turned_away(plane, user))
    plane.starve(user)
    try:
        succeeds(world.pods)
        wait_for(lambda: len(_turned_away(plane, user)) > before, describe="a 429", timeout=PATIENCE)
    finally:
        plane.starve("")
    status = world.wait_phase("Succeeded")
    assert world.jobs() == [f"plates-{stage.value}-1" for stage in STAGES]
    assert (status["restarts"], status["disruptions"]) == (0, 0)
    assert operator.metric('ocrfinetune_api_requests_total{code="429"') > 0


def _turned_away(plane: ControlPlane, user: str) -> list[object]:
    found = plane.requests(user)
    return [one for one in found if one["responseStatus"]["code"] == requests.codes.too_many_requests]
