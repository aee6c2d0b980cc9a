"""Where curves go beside Prometheus. Services are tried with their real packages where these are installed."""

from __future__ import annotations

import json
import struct
import threading

import pytest

from ocr_finetune_api.workspace import Workspace
from ocr_finetune_trainer.telemetry.services import Background
from ocr_finetune_trainer.telemetry.trackers import open_trackers

MISSING = "the package {} is not installed: pip install 'ocr-finetune[trackers]'"


class Kept:
    """Keeps what it is told, once it is let go."""

    def __init__(self, go: threading.Event, fails: bool = False):
        self.go, self.fails = go, fails
        self.told = []

    def scalars(self, values, *, step):
        self.go.wait()
        if self.fails:
            raise ConnectionError("the service is down")
        self.told.append((step, dict(values)))

    def event(self, name, fields):
        self.told.append((name, dict(fields)))

    def close(self):
        self.told.append("closed")


def tell(trackers, steps, *, offset=0.0):
    for step in steps:
        for tracker in trackers:
            tracker.scalars({"train/loss": offset + step}, step=step)


@pytest.fixture
def workspace(tmp_path):
    made = Workspace(tmp_path, "digits-1")
    made.folder.mkdir()
    return made


def test_a_slow_service_does_not_hold_training_up_and_hears_everything():
    go = threading.Event()
    kept = Kept(go)
    tracker = Background("slow", lambda: kept)
    tell([tracker], range(100))
    tracker.event("rollback", {"step": 3})
    assert kept.told == [], "all of this was said while the service had not even taken the first number"
    go.set()
    tracker.close()
    assert [step for step, _ in kept.told[:-2]] == list(range(100))
    assert kept.told[-2:] == [("rollback", {"step": 3}), "closed"]


def test_a_service_that_fails_is_given_up_and_said_once(caplog):
    go = threading.Event()
    go.set()
    tracker = Background("broken", lambda: Kept(go, fails=True))
    tell([tracker], range(100))
    tracker.close()
    assert [r.message for r in caplog.records] == [
        "broken is given up for this run: ConnectionError: the service is down"
    ]


def test_a_service_that_is_not_installed_or_unknown_is_named_and_training_goes_on(workspace, caplog, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "visualdl", None)
    trackers = open_trackers(workspace, run="digits", uid="1", attempt=1, extra=["visualdl", "comet"])
    tell(trackers, range(2))
    for tracker in trackers:
        tracker.close()
    said = " ".join(record.message for record in caplog.records)
    assert "there is no tracker 'comet'; known are visualdl, wandb, mlflow" in said
    assert "visualdl is given up for this run: ModuleNotFoundError" in said
    assert json.loads((workspace.folder / "scalars.jsonl").read_text().splitlines()[-1])["train/loss"] == 1


def two_attempts(workspace, name):
    """Steps 0 to 5, and again from step 3 with other values after a resume."""
    for attempt, steps in ((1, range(6)), (2, range(3, 8))):
        trackers = open_trackers(workspace, run="digits", uid="ab12", attempt=attempt, extra=[name])
        tell(trackers, steps, offset=100.0 * attempt)
        for tracker in trackers:
            tracker.close()


def test_visualdl_gets_the_curve(workspace):
    pytest.importorskip("visualdl", reason=MISSING.format("visualdl"))
    from visualdl import LogReader

    two_attempts(workspace, "visualdl")
    files = sorted((workspace.folder / "visualdl").iterdir())
    points = [point for file in files for point in LogReader(file_path=str(file)).get_data("scalar", "train/loss")]
    assert {(point.id, point.value) for point in points} >= {(5, 105.0), (3, 203.0), (7, 207.0)}


def test_mlflow_gets_both_attempts_as_one_run(workspace, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason=MISSING.format("mlflow"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (workspace.root / "mlruns").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    two_attempts(workspace, "mlflow")
    client = mlflow.MlflowClient()
    [run] = client.search_runs(["0"])
    assert run.info.status == "FINISHED"
    history = [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, "train/loss")]
    assert sorted(history) == sorted([(s, 100.0 + s) for s in range(6)] + [(s, 200.0 + s) for s in range(3, 8)])


def wandb_records(file):
    """The records of a file of W&B, which has the format of LevelDB's logs."""
    content = file.read_bytes()
    at, parts = 7, []
    while at + 7 <= len(content):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
        _, size, kind = struct.unpack_from("<IHB", content, at)
        parts.append(content[at + 7 : at + 7 + size])
        at += 7 + size
        if kind in {1, 4}:  # whole, or the last part
            yield b"".join(parts)
            parts = []


def test_wandb_keeps_steps_that_were_trained_again(workspace, monkeypatch):
    pytest.importorskip("wandb", reason=MISSING.format("wandb"))
    from wandb.proto import wandb_internal_pb2

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_DIR", str(workspace.root))
    two_attempts(workspace, "wandb")
    steps = []
    for file in sorted(workspace.root.glob("wandb/offline-run-*/run-ab12.wandb")):
        for data in wandb_records(file):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            steps += [
                json.loads(item.value_json) for item in record.history.item if "step" in (item.key, *item.nested_key)
            ]
    assert steps == [*range(6), *range(3, 8)]
