"""What can be seen of a training while it runs."""

from __future__ import annotations

import json
import signal
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from training_rig import TRAIN, digits, wait_for, write_set

from ocr_finetune_trainer.telemetry.server import TelemetryServer


def metrics_of(started, rank=0):
    text = (started.folder / f"rank-{rank}.train.prom").read_text(encoding="utf-8")
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_metrics_progress_events_and_curves(zygote, make_job):
    job = make_job(epochs=4, evaluate={"every": "1 epoch"})
    started = zygote.start(job)
    assert started.wait() == [0], started.text
    progress = started.state().progress
    assert progress["step"] == progress["steps"] == 24
    assert progress["percent"] == 100
    assert progress["metric_name"] == "accuracy"
    assert progress["samples_per_second"] > 0
    assert 0 <= progress["data_wait"] < 1
    assert {event["event"] for event in job.events()} >= {"evaluated"}
    curve = (job.workspace.folder / "scalars.jsonl").read_text(encoding="utf-8").splitlines()
    assert "train/gradient_norm" in json.loads(curve[-2])
    compute = job.curve("seconds/compute")
    assert sorted(compute) == list(range(24)), "the time of each part stands at its own step"
    assert all(seconds > 0 for seconds in compute.values())
    assert list(job.workspace.tensorboard.glob("events.out.tfevents.*"))


def test_prometheus_sees_each_part_of_a_step(zygote, make_job):
    job = make_job(epochs=5000, evaluate={"every": "5 epochs"})
    started = zygote.start(job)
    rank = ("rank", "0")
    values = wait_for(
        lambda: (started.folder / "rank-0.train.prom").exists() and started.step() > 12 and metrics_of(started)
    )
    values = wait_for(lambda: (found := metrics_of(started)).get(("ocrft_train_step", rank), 0) > 12 and found)
    started.kill(number=signal.SIGTERM)
    started.wait()
    for part in ("data", "compute", "agree"):
        assert values[("ocrft_train_part_seconds_count", ("part", part), rank)] >= 10
    assert values[("ocrft_train_loss", rank, ("term", "loss"))] > 0
    assert values[("ocrft_train_gradient_norm", rank)] > 0
    assert values[("ocrft_train_memory_bytes", ("kind", "host"), rank)] > 1e8
    assert values[("ocrft_train_samples_total", rank)] >= 8 * 12


def test_the_loss_of_each_source_is_seen(zygote, make_job):
    job = make_job()
    write_set(job.workspace, "train", digits(TRAIN), sources=("plates", "signs"))
    started = zygote.start(job)
    assert started.wait() == [0], started.text
    values = metrics_of(started)
    for source in ("plates", "signs"):
        assert values[("ocrft_train_source_loss", ("rank", "0"), ("source", source))] > 0


def test_how_far_each_rank_is_behind_the_fastest_is_seen(zygote, make_job):
    job = make_job(batchSize=4, distributed={"devicesPerNode": 2})
    started = zygote.start(job, world=2)
    assert started.wait() == [0, 0], started.text
    behind = [metrics_of(started, rank)[("ocrft_train_rank_skew_seconds", ("rank", str(rank)))] for rank in (0, 1)]
    assert min(behind) == 0.0, "the fastest is behind nobody"
    assert max(behind) > 0.0


def press_the_button(started):
    with TelemetryServer(folder=started.folder, port=0, host="127.0.0.1") as server:
        request = urllib.request.Request(f"http://127.0.0.1:{server.port}/profile", method="POST")
        with urllib.request.urlopen(request, timeout=10) as reply:
            assert reply.status == 202


@pytest.mark.parametrize("ask", [lambda started: started.kill(number=signal.SIGUSR1), press_the_button])
def test_a_profile_is_written_when_asked_for(zygote, make_job, ask):
    job = make_job(epochs=5000, evaluate={"every": "50 epochs"})
    started = zygote.start(job)
    wait_for(lambda: started.step() > 3)
    ask(started)
    events = wait_for(lambda: job.events("profile"))
    started.kill(number=signal.SIGTERM)
    assert started.wait() == [75], started.text
    trace = json.loads(next((job.workspace.folder / "profile").iterdir()).read_text(encoding="utf-8"))
    assert any("conv" in str(event.get("name", "")) for event in trace["traceEvents"])
    assert events[0]["path"].endswith(".rank-0.json")
    assert not Path("profiler_log").exists(), "Paddle wrote into the current folder, too"


def test_a_stall_of_the_disk_of_events_does_not_end_training(zygote, make_job):
    job = make_job()
    job.workspace.events.mkdir(parents=True)  # nothing can be appended to a folder
    started = zygote.start(job)
    assert started.wait() == [0], started.text
    assert "events are not recorded" in started.text
