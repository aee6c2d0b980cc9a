"""The CRD says what the models say, in the words that Kubernetes understands."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel, Field, ValidationError

from ocr_finetune_api import crd
from ocr_finetune_api.model_table import TABLE
from ocr_finetune_api.spec import OCRFineTuneSpec
from ocr_finetune_api.status import MAX_STATUS_BYTES, Attempt, Condition, OCRFineTuneStatus, Stage

ROOT = Path(__file__).parents[2]
MINIMAL = {
    "model": {"name": "PP-OCRv5_mobile_rec"},
    "dataset": {"train": [{"uri": "pvc://plates/train"}]},
    "workspace": {"claimName": "work"},
}


def _schema() -> dict[str, Any]:
    schema: dict[str, Any] = crd.crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema


def _walk(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, field in schema.get("properties", {}).items():
        yield from _walk(field, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from _walk(schema[key], f"{path}.{key}")


def _copies() -> list[Path]:
    folders = (ROOT / "crds", ROOT / "charts")
    return [path for folder in folders if folder.exists() for path in folder.rglob(crd.FILE_NAME)]


def test_every_committed_copy_is_current() -> None:
    assert ROOT / "crds" / crd.FILE_NAME in _copies()
    for path in _copies():
        assert path.read_text(encoding="utf-8") == crd.to_yaml(), f"{path}: run `make generate`"


def test_every_field_has_a_type_and_a_description() -> None:
    for path, field in _walk(_schema()["properties"]["spec"]):
        typed = "type" in field or field.get("x-kubernetes-int-or-string")
        assert typed or field.get("x-kubernetes-preserve-unknown-fields"), path
        assert "$ref" not in field, path
        assert "title" not in field, path
        if not path.endswith((".items", ".additionalProperties")):
            assert field.get("description"), path


def test_defaults_are_those_of_the_models() -> None:
    filled = _fill(_schema()["properties"]["spec"], MINIMAL)
    assert OCRFineTuneSpec.model_validate(filled) == OCRFineTuneSpec.model_validate(MINIMAL)
    assert filled["training"]["earlyStopping"]["patience"] == 10
    assert filled["dataset"]["validation"]["fraction"] == 0.1


def _fill(schema: dict[str, Any], value: Any) -> Any:
    """What the API server does with defaults."""
    if isinstance(value, dict) and "properties" in schema:
        value = {**{k: f["default"] for k, f in schema["properties"].items() if "default" in f}, **value}
        return {k: _fill(schema["properties"].get(k, {}), v) for k, v in value.items()}
    if isinstance(value, list):
        return [_fill(schema.get("items", {}), item) for item in value]
    return value


@pytest.mark.parametrize(
    ("field", "refused", "taken"),
    [
        ("epochs", 0, 1),
        ("batchSize", 0, 1),
        ("workers", -1, 0),
        ("learningRate", 0, 1),
        ("learningRate", 1.5, 0.5),
        ("weightDecay", -0.1, 0),
        ("clipNorm", -1, 0),
        ("ema", 1, 0),
        ("layerDecay", 0, 1),
        ("layerDecay", 2, 0.8),
    ],
)
def test_bounds_beside_auto_are_those_of_the_models(field: str, refused: float, taken: float) -> None:
    schema = _schema()["properties"]["spec"]["properties"]["training"]["properties"][field]
    OCRFineTuneSpec.model_validate(MINIMAL | {"training": {field: taken}})
    with pytest.raises(ValidationError):
        OCRFineTuneSpec.model_validate(MINIMAL | {"training": {field: refused}})
    assert _within(schema, taken)
    assert not _within(schema, refused)


def _within(schema: dict[str, Any], value: float) -> bool:
    low, high = schema.get("minimum", float("-inf")), schema.get("maximum", float("inf"))
    return (value > low if schema.get("exclusiveMinimum") else value >= low) and (
        value < high if schema.get("exclusiveMaximum") else value <= high
    )


def test_model_names_are_those_of_the_table() -> None:
    assert _schema()["properties"]["spec"]["properties"]["model"]["properties"]["name"]["enum"] == list(TABLE)


def test_it_fits_into_the_annotation_of_client_side_apply() -> None:
    assert len(crd.to_yaml().encode()) < 256 * 1024 * 0.8


def test_a_field_that_kubernetes_cannot_describe_is_an_error_with_its_path() -> None:
    class Odd(BaseModel):
        """Odd."""

        choice: list[int] | str = Field("", description="Odd.")

    with pytest.raises(ValueError, match="choice: Kubernetes has no schema"):
        crd.schema_of(Odd)


def test_the_status_leaves_out_what_is_empty_and_comes_back_the_same() -> None:
    status = OCRFineTuneStatus(
        restarts=0,
        conditions=[Condition(type="Accepted", status="True")],
        attempts=[Attempt(stage=Stage.TRAIN, number=1)],
    )
    written = status.to_dict()
    assert written["restarts"] == 0
    assert "artifacts" not in written
    assert OCRFineTuneStatus.model_validate(written) == status
    assert len(yaml.safe_dump(written)) < MAX_STATUS_BYTES


def test_a_status_of_a_newer_operator_can_be_read() -> None:
    status = OCRFineTuneStatus.model_validate({"phase": "Training", "somethingNew": {"a": 1}})
    assert status.phase == "Training"
