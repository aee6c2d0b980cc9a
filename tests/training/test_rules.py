"""When training ends, what it goes on from, and what it refuses, with the reason."""

from __future__ import annotations

import shutil

import numpy as np
import psutil
import pytest
from training_rig import wait_for

from ocr_finetune_trainer.training import checkpoint


def run(zygote, job, **changes):
    started = zygote.start(job, **changes)
    codes = started.wait()
    return codes[0], started.outcome(), started


def test_it_is_evaluated_before_the_first_step_and_at_the_end(zygote, make_job):
    job = make_job(evaluate={"every": "5 steps"})
    code, outcome, started = run(zygote, job)
    assert code == 0, started.text
    assert [event["step"] for event in job.events("evaluated")] == [0, 5, 10, 12]
    assert outcome.values["metrics"]["base"]["value"] == job.events("evaluated")[0]["accuracy"]


def test_the_best_is_chosen_by_the_metric_that_the_manifest_names(zygote, make_job):
    job = make_job(evaluate={"every": "1 epoch"})
    job.evaluation = {"metric": "characterErrorRate"}
    code, outcome, started = run(zygote, job)
    assert code == 0, started.text
    rates = {event["step"]: event["characterErrorRate"] for event in job.events("evaluated")}
    best = outcome.values["metrics"]["best"]
    assert best["metric"] == "characterErrorRate"
    assert best["value"] == min(rates.values())
    assert checkpoint.load_best(job.workspace).manifest.metric == best["value"]


def test_early_stopping_target_and_budget(zygote, make_job):
    every = {"every": "1 steps"}
    cases = {
        "the metric has stopped improving": {"earlyStopping": {"patience": 2, "minDelta": 0.5}, "evaluate": every},
        "the metric has reached its target": {"targetMetric": 0.0, "evaluate": every},
        "the time budget is used up": {"timeBudget": "1s", "epochs": 500},
    }
    for reason, training in cases.items():
        job = make_job(**training)
        code, outcome, started = run(zygote, job)
        assert code == 0, started.text
        assert outcome.values["details"]["ended"] == reason
        assert outcome.values["metrics"]["steps"] < 500 * 6
        # Once more: nothing is trained, the same is said.
        again_code, again, _ = run(zygote, job)
        assert again_code == 0
        assert again.values["metrics"]["steps"] == outcome.values["metrics"]["steps"]


def test_a_metric_that_stands_still_is_noticed_once_before_patience_ends(zygote, make_job):
    job = make_job(earlyStopping={"patience": 6, "minDelta": 0.9}, evaluate={"every": "1 steps"})
    code, outcome, started = run(zygote, job)
    assert code == 0, started.text
    assert outcome.values["details"]["ended"] == "the metric has stopped improving"
    [plateau] = job.events("plateau")
    assert plateau["evaluations"] == 3
    assert "accuracy has not improved for 3 evaluations" in started.text
    assert "training ends after 3 more" in started.text


def test_the_best_survives_a_resume(zygote, make_job):
    job = make_job(epochs=6, evaluate={"every": "1 epoch"}, ema=0)
    code, outcome, started = run(zygote, job)
    assert code == 0, started.text
    best = outcome.values["metrics"]["best"]
    job.training["epochs"] = 7
    _, again, _ = run(zygote, job)
    now = again.values["metrics"]["best"]
    assert now["value"] >= best["value"]
    assert checkpoint.load_best(job.workspace).step == now["step"]


def test_training_that_diverges_goes_back_twice_and_ends_with_82(zygote, make_job):
    job = make_job(
        epochs=200, learningRate=1.0, clipNorm=0, batchNorm="frozen", schedule={"name": "constant", "warmupEpochs": 0}
    )
    code, outcome, started = run(zygote, job)
    assert code == 82, started.text
    assert "going back 2 times with a lower rate did not help" in outcome.problems[0]
    assert any("train.txt:" in problem for problem in outcome.problems[1:])
    assert "learningRate" in outcome.hint
    rollbacks = job.events("rollback")
    assert len(rollbacks) == 2
    assert all(np.isfinite(value).all() for value in job.final().values()), "no poisoned checkpoint is left"


def test_more_epochs_go_on_and_leave_the_past_as_it_was(zygote, make_job):
    job = make_job()
    assert run(zygote, job)[0] == 0
    before = job.losses()
    job.training["epochs"] = 4
    code, outcome, started = run(zygote, job)
    assert code == 0, started.text
    assert outcome.values["details"]["resumedFromStep"] == 12
    after = job.losses()
    assert {step: after[step] for step in before} == before
    assert sorted(after) == list(range(24))
    # Half of what was added at a tenth of the peak, then down to nothing.
    rates = job.curve("train/learning_rate")
    assert [rates[step] for step in range(12, 18)] == pytest.approx([0.0002] * 6)
    assert rates[17] > rates[20] > rates[23] > 0


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("learningRate", 0.001, "training.learningRate: was 0.002, is now 0.001"),
        ("batchSize", 4, "training.batchSize: was 8, is now 4"),
        ("epochs", 1, "training.epochs: was 2, is now 1; epochs can only be added"),
    ],
)
def test_what_can_t_be_gone_on_with_is_kept_aside_and_said_field_by_field(zygote, make_job, field, value, said):
    job = make_job()
    assert run(zygote, job)[0] == 0
    job.training[field] = value
    code, outcome, started = run(zygote, job)
    assert code == 0, started.text
    assert outcome.values["details"]["restarted"] == [said]
    assert outcome.values["details"]["resumedFromStep"] == 0
    aside = job.workspace.folder / "checkpoints.before-1"
    assert checkpoint.find(aside)[0][0].step == 12, "nothing is lost"


def test_what_may_change_does_not_begin_anew(zygote, make_job):
    job = make_job()
    assert run(zygote, job)[0] == 0
    job.training |= {"evaluate": {"every": "3 steps"}, "earlyStopping": {"patience": 50}, "epochs": 3, "workers": 0}
    _, outcome, _ = run(zygote, job)
    assert outcome.values["details"]["resumedFromStep"] == 12


def test_a_step_may_be_divided_into_smaller_batches(zygote, make_job):
    job = make_job()
    assert run(zygote, job)[0] == 0
    job.training |= {"batchSize": 4, "gradientAccumulation": 2, "epochs": 3}
    _, outcome, started = run(zygote, job)
    assert outcome.values["details"]["restarted"] == [], started.text
    assert outcome.values["details"]["resumedFromStep"] == 12
    assert outcome.values["details"]["globalBatch"] == 8


def test_another_run_s_checkpoint_is_gone_on_from(zygote, make_job):
    first = make_job()
    assert run(zygote, first)[0] == 0
    source = first.checkpoints()[0].path
    second = make_job(epochs=3, resumeFrom=str(source))
    code, outcome, started = run(zygote, second)
    assert code == 0, started.text
    assert outcome.values["details"]["resumedFromStep"] == 12


def test_a_checkpoint_of_another_dictionary_or_version_is_refused(zygote, make_job):
    first = make_job()
    assert run(zygote, first)[0] == 0
    source = first.checkpoints()[0].path
    second = make_job(resumeFrom=str(source))
    dictionary = second.workspace.dictionary
    dictionary.write_text(dictionary.read_text(encoding="utf-8") + "a\n", encoding="utf-8")
    code, outcome, _ = run(zygote, second)
    assert code == 78
    assert "training.resumeFrom" in outcome.problems[0]
    assert "model.dictionary" in outcome.problems[0]
    manifest = source / "manifest.json"
    manifest.write_text(manifest.read_text(encoding="utf-8").replace('"schemaVersion": 1', '"schemaVersion": 9'))
    third = make_job(resumeFrom=str(source))
    code, outcome, _ = run(zygote, third)
    assert code == 78
    assert "newer version" in outcome.problems[0]
    fourth = make_job(resumeFrom=str(source.parent / "nothing"))
    code, outcome, _ = run(zygote, fourth)
    assert code == 66


def test_checkpoints_of_a_newer_version_are_left_alone(zygote, make_job):
    job = make_job()
    assert run(zygote, job)[0] == 0
    newest = job.checkpoints()[0].path
    manifest = newest / "manifest.json"
    manifest.write_text(manifest.read_text(encoding="utf-8").replace('"schemaVersion": 1', '"schemaVersion": 9'))
    code, outcome, _ = run(zygote, job)
    assert code == 78
    assert f"{newest.name}: was written by a newer version (schemaVersion 9, known here is 1)" in outcome.problems[0]
    assert "that version of the image" in outcome.hint
    assert newest.is_dir()


def test_an_impossible_batch_is_refused_with_numbers(zygote, make_job):
    code, outcome, _ = run(zygote, make_job(batchSize=100))
    assert code == 78
    assert "a step takes 100 × 1 = 100 samples, but there are only 48" in outcome.problems[0]


def test_an_impossible_batch_leaves_what_was_trained_where_it_is(zygote, make_job):
    job = make_job()
    assert run(zygote, job)[0] == 0
    job.training["batchSize"] = 100
    assert run(zygote, job)[0] == 78
    job.training |= {"batchSize": 8, "epochs": 3}
    assert run(zygote, job)[1].values["details"]["resumedFromStep"] == 12


def test_a_device_that_is_not_there_is_named(zygote, make_job):
    code, outcome, _ = run(zygote, make_job(), device="gpu")
    assert code == 81
    assert "there is no GPU here" in outcome.problems[0]


def test_a_sample_that_can_t_be_read_is_named(zygote, make_job):
    job = make_job(workers=1)
    shard = next(path for path in (job.workspace.cache / "shards").iterdir() if path.name.endswith("-train.arrow"))
    content = bytearray(shard.read_bytes())
    for at in range(len(content) - 4):
        if content[at : at + 4] == b"\x89PNG":
            content[at : at + 4] = b"XXXX"
    shard.write_bytes(content)
    code, outcome, started = run(zygote, job)
    assert code == 65, started.text
    assert "train.txt:" in outcome.problems[0]


def test_a_data_worker_that_dies_is_named_with_its_sample(zygote, make_job):
    job = make_job(epochs=5000, workers=1, evaluate={"every": "100 epochs"})
    started = zygote.start(job)
    wait_for(lambda: started.step() >= 3, what=started.text)
    [worker] = psutil.Process(started.pids[0]).children()
    worker.kill()
    assert started.wait() == [70], started.text
    problem = started.outcome().problems[0]
    assert "data worker 0 was killed by signal 9 while it was at sample" in problem
    assert "train.txt:" in problem


def test_checkpoints_are_written_by_the_clock_too(zygote, make_job):
    job = make_job(epochs=5000, checkpoint={"every": "1s", "keepLast": 9}, evaluate={"every": "5000 epochs"})
    started = zygote.start(job)
    wait_for(lambda: len([item for item in job.checkpoints() if item.step > 0]) >= 2, what=started.text)
    started.kill()
    started.wait()


def test_checkpoints_are_written_by_steps_alone(zygote, make_job):
    job = make_job(epochs=1, ema=0, checkpoint={"every": "0s", "everySteps": 4, "keepLast": 9})
    code, _, started = run(zygote, job)
    assert code == 0, started.text
    # The first and the last were measured.
    assert {item.step for item in job.checkpoints()} == {0, 4, 6}


def test_freezing_holds_and_thawing_lets_go(zygote, make_job):
    job = make_job(model={"freeze": "backbone", "freezeEpochs": 1}, checkpoint={"everySteps": 1, "keepLast": 50})
    code, _, started = run(zygote, job)
    assert code == 0, started.text
    at = {item.step: item.arrays("model") for item in job.checkpoints()}
    changed = {
        step: [
            name
            for name, value in at[step].items()
            if name.startswith("backbone.") and "._" not in name and not np.array_equal(value, at[step - 1][name])
        ]
        for step in sorted(at)
        if step - 1 in at
    }
    assert not any(changed[step] for step in range(2, 7))
    assert all(changed[step] for step in range(8, 13))


def test_a_frozen_and_thawed_run_goes_on_bit_by_bit(zygote, make_job):
    model = {"freeze": "backbone", "freezeEpochs": 1}
    calm = make_job(model=model)
    assert run(zygote, calm)[0] == 0
    for step in (4, 9):
        job = make_job(model=model, checkpoint={"everySteps": 1, "keepLast": 50})
        assert run(zygote, job)[0] == 0
        for item in job.checkpoints():
            if item.step > step:
                shutil.rmtree(item.path)
        code, outcome, started = run(zygote, job)
        assert code == 0, started.text
        assert outcome.values["details"]["resumedFromStep"] == step
        for name, value in calm.final().items():
            assert np.array_equal(job.final()[name], value), name
