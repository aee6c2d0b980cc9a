import json

import pytest

from ocr_finetune_api import results, run_config
from ocr_finetune_api.exit_codes import ConfigurationError, ExitCode, FailureClass, class_of
from ocr_finetune_api.plan import Stage
from ocr_finetune_api.results import SHORT_FORM_BYTES, StageResult
from ocr_finetune_api.run_config import RunConfig, RunIdentity
from ocr_finetune_api.spec import OCRFineTuneSpec
from ocr_finetune_api.values import fraction, interval, seconds


def test_a_result_is_read_as_it_was_written(tmp_path):
    result = StageResult(stage=Stage.TRAIN, input_hash="abc", metrics={"best": {"accuracy": 0.9}}, warnings=["字"])
    results.write(result, tmp_path / "results" / "train.json")
    assert results.read(tmp_path / "results" / "train.json") == result
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["train.json"]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"stage": "train"}', '{"stage": "dance", "inputHash": "a"}'])
def test_a_broken_result_is_none(tmp_path, content):
    (tmp_path / "train.json").write_text(content)
    assert results.read(tmp_path / "train.json") is None


@pytest.mark.parametrize("size", [0, 10, 1000, 100_000])
def test_the_short_form_fits_and_says_that_it_is_short(size):
    result = StageResult(
        stage=Stage.PREPARE,
        input_hash="abc",
        exit_code=65,
        failure_class=FailureClass.DATA,
        message="字" * size,
        problems=["p" * 50] * size,
        details={"all": ["d"] * size},
    )
    text = result.short_form()
    assert len(text.encode()) <= SHORT_FORM_BYTES
    assert json.loads(text).get("shortened", False) == (size >= 1000)
    parsed = results.parse(text)
    assert parsed is not None
    assert (parsed.exit_code, parsed.failure_class) == (65, FailureClass.DATA)


def test_every_exit_code_but_success_has_a_class():
    classes = {code: class_of(code) for code in ExitCode if code is not ExitCode.OK}
    assert classes[ExitCode.GATE_NOT_MET] is FailureClass.GATE
    assert [code for code, name in classes.items() if name is FailureClass.INTERNAL] == [ExitCode.INTERNAL]
    assert class_of(137) is FailureClass.INTERNAL


def test_a_run_configuration_is_read_as_it_was_written(tmp_path):
    spec = OCRFineTuneSpec.model_validate(
        {
            "model": {"name": "PP-OCRv5_mobile_rec"},
            "dataset": {"train": [{"uri": "数据 1", "pathPrefix": {"from": "/a", "to": "b"}}]},
            "evaluation": {"endToEnd": {"with": {"run": "det"}, "dataset": {"uri": "pages"}}},
        }
    )
    config = RunConfig(run=RunIdentity(name="plates", uid="0123456789"), spec=spec, attempt=3)
    (tmp_path / "run.yaml").write_text(config.to_yaml(), encoding="utf-8")
    assert run_config.read(tmp_path / "run.yaml") == config


@pytest.mark.parametrize("text", ["schemaVersion: 9\n", "[]", "a: [", "schemaVersion: 1\n"])
def test_a_run_configuration_of_another_version_is_refused(tmp_path, text):
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(ConfigurationError, match=r"run\.yaml"):
        run_config.read(tmp_path / "run.yaml")


def test_small_values():
    assert [seconds(text) for text in ("90s", "10m", "1h30m", "2d", "")] == [90, 600, 5400, 172800, 0]
    assert fraction("2.5%") == 0.025
    assert (interval("1 epoch"), interval("500 steps")) == ((1, "epoch"), (500, "step"))
    with pytest.raises(ValueError, match="not a duration"):
        seconds("10 minutes")
