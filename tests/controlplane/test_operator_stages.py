"""A run becomes four Jobs, one after the other, and its status tells what became of it."""

from __future__ import annotations

from kube_testing.client import condition
from operator_testing import Operator, World, result, succeeds

from ocr_finetune_api.plan import STAGES, Stage


def test_a_run_goes_through_its_stages(operator: Operator, world: World) -> None:
    succeeds(world.pods, Stage.PREPARE, Stage.TRAIN, Stage.EXPORT)
    metrics = {"base": {"accuracy": 0.5}, "best": {"accuracy": 0.93}, "metric": "accuracy"}
    message = result(Stage.EVALUATE, metrics=metrics, artifacts={"report": "evaluation/report.html"})
    world.pods.succeeds(message=message, labels={"ocrfinetune.dev/stage": "evaluate"})
    uid = world.create()["metadata"]["uid"]
    status = world.wait_phase("Succeeded")
    assert world.jobs() == [f"plates-{stage.value}-1" for stage in STAGES]
    assert [(one["name"], one["state"]) for one in status["stages"]] == [(s.value, "Succeeded") for s in STAGES]
    assert status["restarts"] == 0
    assert status["metrics"]["best"] == {"accuracy": 0.93}
    assert status["artifacts"]["report"] == f"plates-{uid[:8]}/evaluation/report.html"
    for kind in ("Accepted", "DataReady", "Evaluated", "Exported", "Complete"):
        assert condition({"status": status}, kind), kind
    assert world.wait_event("Succeeded")
    columns = world.plane.kubectl("get", "ocrft", "-n", world.namespace).stdout.splitlines()
    assert columns[0].split() == ["NAME", "MODEL", "PHASE", "PROGRESS", "ETA", "METRIC", "BEST", "RESTARTS", "AGE"]
    assert columns[1].split()[:3] == ["plates", "PP-OCRv5_mobile_rec", "Succeeded"]
