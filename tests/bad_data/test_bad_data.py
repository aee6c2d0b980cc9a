"""Every broken data set is told with its place and what to do, all problems in one pass, with the right exit code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cases import CASES, Case

from ocr_finetune_api.exit_codes import OCRFineTuneError
from ocr_finetune_api.plan import Stage, plan
from ocr_finetune_api.run_config import RunConfig, RunIdentity
from ocr_finetune_api.spec import OCRFineTuneSpec
from ocr_finetune_api.workspace import Workspace
from ocr_finetune_trainer.stages import prepare
from ocr_finetune_trainer.stages.context import StageContext
from ocr_finetune_trainer.telemetry.reporter import Reporter


def context_of(case: Case, folder: Path, address: Any, *, allowed: str) -> StageContext:
    def filled(values: Any) -> Any:
        text = json.dumps(values)
        return json.loads(text.replace("FOLDER", str(folder)).replace("DICTIONARY", str(folder / "dictionary.txt")))

    source = {"name": "data", "uri": str(address or folder), **filled(case.source)}
    # So little that one sample is held back, after what can't be used was sorted out.
    dataset = {"train": [source], "validation": {"fraction": 0.01}, "maxRejected": allowed, **filled(case.spec)}
    model = {"name": case.model, "pretrained": "none", **filled(case.model_spec)}
    spec = OCRFineTuneSpec.model_validate({"model": model, "dataset": dataset})
    config = RunConfig(run=RunIdentity(name="bad", uid="00000000"), spec=spec)
    return StageContext(
        config=config,
        workspace=Workspace(folder.parent / "workspace", "bad-00000000"),
        planned=plan(spec)[Stage.PREPARE],
        reporter=Reporter.for_stage(Stage.PREPARE, folder=folder.parent / "telemetry"),
    )


def outcome(context: StageContext) -> tuple[int, tuple[str, ...]]:
    """The exit code and the problems; anything but a failure that a person can act on ends the test."""
    try:
        prepare.run(context)
    except OCRFineTuneError as error:
        return int(error.exit_code), error.problems
    return 0, ()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_it_is_told(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OCRFT_PREPARE_WORKERS", "1")
    folder = tmp_path / "data"
    folder.mkdir()
    address = case.make(folder)
    context = context_of(case, folder, address, allowed="1%")

    code, problems = outcome(context)

    assert code == case.code, problems
    listed = context.workspace.rejected.read_text(encoding="utf-8").split("\n")
    rejected = [json.loads(line) for line in listed if line]
    told = [" ".join((p["place"], p["what"], p["hint"])) for p in rejected] + list(problems)
    for wanted in case.says:
        assert any(all(part in line for part in wanted) for line in told), (wanted, told)
        if problems:
            assert any(all(part in line for part in wanted) for line in problems), (wanted, problems)
    assert all(problem["place"] and problem["what"] for problem in rejected)
    if code:
        assert not list(context.workspace.data.glob("*/dataset.json")), "nothing is left that training would trust"

    code, problems = outcome(context_of(case, folder, address, allowed="100%"))
    assert code == case.tolerated, problems


def test_there_are_enough() -> None:
    assert len({case.name for case in CASES}) >= 60
