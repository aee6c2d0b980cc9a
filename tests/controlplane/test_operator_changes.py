"""People change their minds: suspend, resume, retry, stop, other epochs, other specs; queues take devices back."""

from __future__ import annotations

import pytest
from kube_testing.client import ApiError, condition
from kube_testing.processes import DeadlineError, wait_for
from operator_testing import LABEL_STAGE, PATIENCE, Operator, World, fails, progress_server, result, succeeds

from ocr_finetune_api.plan import Stage

TRAIN = {LABEL_STAGE: "train"}


def test_suspend_stops_with_a_checkpoint_and_resume_goes_on(operator: Operator, world: World) -> None:
    succeeds(world.pods, Stage.PREPARE)
    world.pods.ends_when_deleted(code=75, message=result(Stage.TRAIN, 75), labels=TRAIN)
    world.create(policy={"maxRestarts": 0})
    world.running("plates-train-1")
    world.patch({"policy": {"suspend": True}})
    status = world.wait_phase("Suspended")
    world.kube.wait_gone("Job", "plates-train-1", world.namespace, timeout=PATIENCE)
    assert condition({"status": status}, "Suspended")
    # While it rests, its shape may change.
    world.patch({"distributed": {"nodes": 2}})
    world.patch({"policy": {"suspend": False}})
    assert len(world.running("plates-train-2", 2)) == 2
    status = world.wait_phase("Training")
    assert (status["restarts"], status["disruptions"]) == (0, 0)
    assert [one.get("outcome") for one in status["attempts"] if one["stage"] == "train"] == ["Suspended", None]
    assert not condition({"status": status}, "SpecDrift")


def test_a_run_that_is_created_suspended_starts_nothing(operator: Operator, world: World) -> None:
    world.create(policy={"suspend": True})
    world.wait_phase("Suspended")
    assert world.jobs() == []
    world.patch({"policy": {"suspend": False}})
    world.running("plates-prepare-1")


def test_a_queue_may_stop_and_start_the_job_as_it_likes(operator: Operator, world: World) -> None:
    succeeds(world.pods, Stage.PREPARE)
    world.pods.ends_when_deleted(code=75, labels=TRAIN)
    world.create(policy={"maxRestarts": 0}, distributed={"nodes": 2})
    world.running("plates-train-1", 2)
    world.wait(lambda s: s["attempts"][-1].get("execution") == 1)
    for execution in (2, 3):
        world.kube.patch("Job", "plates-train-1", world.namespace, {"spec": {"suspend": True}})
        operator.process.kill()  # in the middle of it
        operator.process.start()
        status = world.wait_phase("Queued")
        assert condition({"status": status}, "Admitted", "False")
        # No clock runs meanwhile.
        world.change({"policy": {"startupTimeout": "1s"}})
        with pytest.raises(DeadlineError):
            world.wait(lambda s: s["phase"] != "Queued", timeout=3)
        world.change({"policy": {"startupTimeout": "10m"}})
        world.kube.patch("Job", "plates-train-1", world.namespace, {"spec": {"suspend": False}})
        world.running("plates-train-1", 2)
        status = world.wait(lambda s, n=execution: s["phase"] == "Training" and s["attempts"][-1]["execution"] == n)
    assert world.jobs(Stage.TRAIN) == ["plates-train-1"]
    assert status["restarts"] == 0
    assert status["disruptions"] == 2
    world.pods.clear()
    succeeds(world.pods)
    world.wait_phase("Succeeded")


def test_stages_go_to_their_queues(operator: Operator, world: World) -> None:
    succeeds(world.pods, Stage.PREPARE)
    world.create(queue={"name": "gpus", "stages": {"prepare": "cpus"}, "priorityClass": "high"})
    labels = {
        stage: world.job(f"plates-{stage}-1")["metadata"]["labels"].get("kueue.x-k8s.io/queue-name")
        for stage in ("prepare", "train")
    }
    assert labels == {"prepare": "cpus", "train": "gpus"}
    assert "suspend" not in world.job("plates-train-1")["spec"] or not world.job("plates-train-1")["spec"]["suspend"]


def test_more_epochs_while_training_add_a_phase(operator: Operator, world: World) -> None:
    succeeds(world.pods, Stage.PREPARE)
    world.create(training={"epochs": 10})
    world.running("plates-train-1")
    world.patch({"training": {"epochs": 20}})
    world.wait_event("SpecChanged")
    assert world.jobs(Stage.TRAIN) == ["plates-train-1"]
    succeeds(world.pods, Stage.TRAIN)
    second = world.job("plates-train-2")
    assert "epochs: 20" in world.kube.get("ConfigMap", "plates-train-2", world.namespace)["data"]["run.yaml"]  # type: ignore[index]
    succeeds(world.pods, Stage.EVALUATE, Stage.EXPORT)
    status = world.wait_phase("Succeeded")
    assert second["metadata"]["name"] in world.jobs(Stage.TRAIN)
    assert (status["restarts"], len(world.jobs())) == (0, 5)
    assert "SpecDrift" not in {one["type"] for one in status["conditions"] if one["status"] == "True"}


def test_what_may_not_change_is_refused_and_where_that_is_got_round_ignored(operator: Operator, world: World) -> None:
    succeeds(world.pods, Stage.PREPARE)
    world.create(training={"learningRate": 0.001})
    world.running("plates-train-1")
    for spec, words in (
        ({"model": {"name": "PP-OCRv4_mobile_rec"}}, "spec.model is fixed"),
        ({"dataset": {"maxRejected": "5%"}}, "spec.dataset is fixed"),
        ({"training": {"seed": 1}}, "spec.training is fixed"),
        ({"distributed": {"nodes": 2}}, "may change only while the run is pending or suspended"),
        ({"pods": {"image": "other"}}, "may change only while the run is pending or suspended"),
        ({"workspace": {"claimName": "other"}}, "spec.workspace is fixed"),
    ):
        with pytest.raises(ApiError, match=words):
            world.patch(spec)
    # The schema can't see this one.
    world.patch({"training": {"learningRate": 0.5}})
    said = world.condition("SpecDrift")
    assert "spec.training.learningRate" in said["message"]
    operator.process.kill()
    operator.process.start()
    world.kube.delete("Pod", world.running("plates-train-1")[0]["metadata"]["name"], world.namespace)
    world.job("plates-train-2")
    configuration = world.kube.get("ConfigMap", "plates-train-2", world.namespace)
    assert configuration is not None
    assert "learningRate: 0.001" in configuration["data"]["run.yaml"]
    world.patch({"training": {"learningRate": 0.001}})
    world.condition("SpecDrift", "False")


def test_retry_goes_on_at_the_failed_stage(operator: Operator, world: World) -> None:
    succeeds(world.pods, Stage.PREPARE)
    fails(world.pods, Stage.TRAIN, 82)
    world.create()
    world.wait_phase("Failed")
    world.pods.clear()
    succeeds(world.pods)
    world.patch({"policy": {"retryNonce": 1, "suspend": True}})
    world.wait_phase("Suspended")
    world.patch({"policy": {"suspend": False}})
    status = world.wait_phase("Succeeded")
    assert world.jobs() == [
        "plates-prepare-1",
        "plates-train-1",
        "plates-train-2",
        "plates-evaluate-1",
        "plates-export-1",
    ]
    assert "failure" not in status
    assert status["observedRetryNonce"] == 1


def test_a_run_that_has_succeeded_is_not_retried(operator: Operator, world: World) -> None:
    succeeds(world.pods)
    world.create()
    before = world.wait_phase("Succeeded")
    world.patch({"policy": {"retryNonce": 3, "suspend": True}})
    status = world.wait(lambda s: s.get("observedRetryNonce") == 3)
    assert (status["phase"], status["attempts"]) == ("Succeeded", before["attempts"])
    assert len(world.jobs()) == 4


def test_a_stop_while_it_waits_for_the_next_attempt(operator: Operator, world: World) -> None:
    fails(world.pods, Stage.PREPARE, 70)
    world.create(policy={"maxRestarts": 1000})
    world.wait(lambda s: s.get("restarts", 0) >= 2)
    world.kube.patch(
        "OCRFineTune", "plates", world.namespace, {"metadata": {"annotations": {"ocrfinetune.dev/stop": "true"}}}
    )
    status = world.wait_phase("Failed")
    assert condition({"status": status}, "Failed")["reason"] == "Stopped"  # type: ignore[index]
    # Suspending while it waits for its back-off, and going on, is no different from suspending a Job.
    world.create("other", policy={"maxRestarts": 1000})
    world.wait(lambda s: s.get("restarts", 0) >= 1, "other")
    world.patch({"policy": {"suspend": True}}, "other")
    world.wait_phase("Suspended", "other")
    world.pods.clear()
    succeeds(world.pods)
    world.patch({"policy": {"suspend": False}}, "other")
    world.wait_phase("Succeeded", "other")


def test_a_gate_that_is_not_met_fails_the_run_and_says_by_how_much(operator: Operator, world: World) -> None:
    succeeds(world.pods, Stage.PREPARE, Stage.TRAIN)
    fails(world.pods, Stage.EVALUATE, 80, message="accuracy 0.71 is below 0.9")
    world.create(evaluation={"gate": {"min": 0.9}})
    status = world.wait_phase("Failed")
    assert condition({"status": status}, "Evaluated", "False") is not None
    assert status["failure"]["message"] == "accuracy 0.71 is below 0.9"


def test_a_stop_ends_the_run_and_keeps_its_checkpoint(operator: Operator, world: World) -> None:
    succeeds(world.pods, Stage.PREPARE)
    world.create()
    world.running("plates-train-1")
    annotations = {"metadata": {"annotations": {"ocrfinetune.dev/stop": "true"}}}
    world.kube.patch("OCRFineTune", "plates", world.namespace, annotations)
    status = world.wait_phase("Failed")
    assert condition({"status": status}, "Failed")["reason"] == "Stopped"  # type: ignore[index]
    world.kube.wait_gone("Job", "plates-train-1", world.namespace, timeout=PATIENCE)


def test_progress_is_pulled_shown_and_never_trusted(operator: Operator, world: World) -> None:
    succeeds(world.pods, Stage.PREPARE)
    world.create()
    (pod,) = world.running("plates-train-1")
    document = {
        "stage": "train", "attempt": 1, "activity": "training", "epoch": 3, "epochs": 50, "step": 120, "steps": 2000,
        "percent": 6.04, "etaSeconds": 3725, "loss": 0.51234567, "samplesPerSecond": 812.33,
        "metricName": "accuracy", "metric": 0.8, "bestMetric": 0.91234567, "updatedAt": 1790000000,
    }  # fmt: skip
    answers: list[object] = [document]
    with progress_server(pod["status"]["podIP"], lambda: answers[0]) as seen:
        status = world.wait(lambda s: s.get("progress", {}).get("step") == 120)
        progress = status["progress"]
        assert (progress["percent"], progress["eta"]) == (6.0, "1h02m")
        assert (progress["loss"], progress["bestMetric"]) == (0.5123, 0.9123)
        row = world.plane.kubectl("get", "ocrft", "-n", world.namespace).stdout.splitlines()[1].split()
        assert row[:8] == ["plates", "PP-OCRv5_mobile_rec", "Training", "6", "1h02m", "accuracy", "0.9123", "0"]
        operator.wait_metric(f'ocrfinetune_run_progress_ratio{{namespace="{world.namespace}"', 0.06)
        assert not any("authorization" in headers.lower() for headers in seen)
        for nonsense in (b"{" * 40000, b'{"stage": "train", "step": "many"}'):
            answers[0] = nonsense
            said = world.condition("ProgressAvailable", "False")
            assert said["message"]
            answers[0] = document
            world.condition("ProgressAvailable")
    world.condition("ProgressAvailable", "False")
    assert world.wait(lambda s: s["phase"] == "Training")["progress"]["step"] == 120


def test_what_is_left_is_removed_in_time_but_never_the_run(operator: Operator, world: World) -> None:
    succeeds(world.pods)
    world.create(policy={"ttlAfterFinished": "2s"})
    world.wait_phase("Succeeded")
    status = world.wait(lambda s: s.get("cleanedUp"))
    assert status["phase"] == "Succeeded"
    wait_for(lambda: not world.jobs() and not world.kube.list("Pod", world.namespace), describe="no Jobs and pods")
    kinds = {kind: [one["metadata"]["name"] for one in world.kube.list(kind, world.namespace)]
             for kind in ("ConfigMap", "Service", "NetworkPolicy", "PersistentVolumeClaim")}  # fmt: skip
    assert kinds == {
        "ConfigMap": ["kube-root-ca.crt"], "Service": [], "NetworkPolicy": [], "PersistentVolumeClaim": ["work"],
    }  # fmt: skip
    # A finished run is final, also when its Jobs are gone.
    operator.process.kill()
    operator.process.start()
    operator.wait_ready()
    assert world.wait_phase("Succeeded")["attempts"] == status["attempts"]
    assert world.jobs() == []


def test_a_made_claim_is_kept_unless_told_otherwise(operator: Operator, world: World) -> None:
    for name, policy in (("kept", "Retain"), ("gone", "Delete")):
        world.create(name, workspace={"size": "1Gi", "reclaimPolicy": policy})
        world.job(f"{name}-prepare-1")
        world.kube.delete("OCRFineTune", name, world.namespace)
    world.kube.wait_gone("Job", "gone-prepare-1", world.namespace, timeout=PATIENCE)

    def claims() -> bool:
        found = world.kube.list("PersistentVolumeClaim", world.namespace)
        return {one["metadata"]["name"] for one in found if "deletionTimestamp" not in one["metadata"]} == {
            "work",
            "kept-workspace",
        }

    wait_for(claims, describe="the claims that stay")
    # A new run of the same name takes the claim up again.
    world.create("kept", workspace={"size": "1Gi"})
    world.job("kept-prepare-1")


def test_delete_and_create_again_under_the_same_name(operator: Operator, world: World) -> None:
    first = world.create()
    world.running("plates-prepare-1")
    job = world.job("plates-prepare-1")
    finalizer = {"metadata": {"finalizers": ["test.ocrfinetune.dev/hold"]}}
    world.kube.patch("Job", "plates-prepare-1", world.namespace, finalizer)
    world.kube.delete("OCRFineTune", "plates", world.namespace)
    world.kube.wait_gone("OCRFineTune", "plates", world.namespace, timeout=PATIENCE)
    second = world.create()
    said = world.wait(lambda s: any(c["reason"] == "NameConflict" for c in s.get("conditions", [])))
    assert said["phase"] == "Preparing"
    assert world.job("plates-prepare-1")["metadata"]["uid"] == job["metadata"]["uid"]
    world.kube.patch("Job", "plates-prepare-1", world.namespace, {"metadata": {"finalizers": None}})
    made = world.kube.wait(
        "Job", "plates-prepare-1", world.namespace, lambda j: j["metadata"]["uid"] != job["metadata"]["uid"]
    )
    assert made["metadata"]["ownerReferences"][0]["uid"] == second["metadata"]["uid"] != first["metadata"]["uid"]


def test_two_runs_share_a_workspace(operator: Operator, world: World) -> None:
    succeeds(world.pods)
    for name in ("one", "two"):
        world.create(name)
    folders = {world.wait_phase("Succeeded", name)["folder"] for name in ("one", "two")}
    assert len(folders) == 2
