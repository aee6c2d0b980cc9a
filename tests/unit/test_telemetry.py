import json
import urllib.error
import urllib.request

import pytest
from prometheus_client import Counter, Gauge
from prometheus_client.parser import text_string_to_metric_families

from ocr_finetune_api.plan import Stage
from ocr_finetune_api.progress import Activity, Progress
from ocr_finetune_trainer.telemetry.reporter import Reporter
from ocr_finetune_trainer.telemetry.server import TelemetryServer


@pytest.fixture
def served(tmp_path):
    with TelemetryServer(folder=tmp_path, port=0, host="127.0.0.1") as server:

        def get(path: str) -> str:
            with urllib.request.urlopen(f"http://127.0.0.1:{server.port}{path}", timeout=5) as reply:
                return reply.read().decode()

        yield tmp_path, get


def test_the_metrics_of_all_ranks_are_one_exposition(served):
    folder, get = served
    for rank in range(2):
        reporter = Reporter.for_stage(Stage.TRAIN, folder=folder, rank=rank)
        Gauge("ocrft_loss", "Loss", ["rank"], registry=reporter.registry).labels(str(rank)).set(rank + 0.5)
        Counter("ocrft_steps", "Steps", ["rank"], registry=reporter.registry).labels(str(rank)).inc(3)
        reporter.write()
    text = get("/metrics")
    assert text.count("# TYPE ocrft_loss gauge") == 1
    values = {
        (sample.name, sample.labels["rank"]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if not sample.name.endswith("_created")
    }
    assert values == {
        ("ocrft_loss", "0"): 0.5,
        ("ocrft_loss", "1"): 1.5,
        ("ocrft_steps_total", "0"): 3,
        ("ocrft_steps_total", "1"): 3,
    }


def test_progress_is_what_rank_0_last_said(served):
    folder, get = served
    with pytest.raises(urllib.error.HTTPError, match="503"):
        get("/progress")
    with Reporter.for_stage(Stage.TRAIN, folder=folder, attempt=4) as reporter:
        reporter.update(step=7, steps=10, percent=70.0)
        reporter.activity(Activity.EVALUATING, "validation set")
    progress = Progress.model_validate(json.loads(get("/progress")))
    assert (progress.attempt, progress.step, progress.percent) == (4, 7, 70.0)
    assert (progress.activity, progress.message) == (Activity.EVALUATING, "validation set")
    Reporter.for_stage(Stage.TRAIN, folder=folder, rank=1).write()
    assert json.loads(get("/progress"))["step"] == 7


def test_a_person_finds_the_button(served):
    _, get = served
    page = get("/")
    assert '<form method="post" action="/profile"><button>' in page
    assert 'href="/progress"' in page


def test_other_paths_are_not_found_and_health_is(served):
    _, get = served
    assert get("/healthz") == "ok\n"
    with pytest.raises(urllib.error.HTTPError, match="404"):
        get("/etc/passwd")


def test_a_reporter_survives_the_loss_of_its_folder(tmp_path):
    folder = tmp_path / "gone"
    reporter = Reporter.for_stage(Stage.TRAIN, folder=folder)
    reporter.write()
    assert not folder.exists()
