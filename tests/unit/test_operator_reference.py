"""The generated pages are current, and complete."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from ocr_finetune_api.conditions import Phase
from ocr_finetune_api.exit_codes import FailureClass
from ocr_finetune_operator import reference
from ocr_finetune_operator.reconcile.states import TRANSITIONS, allowed

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("name", list(reference.PAGES))
def test_every_page_is_current(name: str) -> None:
    assert (DOCS / name).read_text(encoding="utf-8") == reference.PAGES[name](), "run `make generate`"


def test_the_picture_shows_every_phase() -> None:
    texts = {element.text for element in ET.fromstring(reference.states_picture()).iter() if element.text}
    assert {phase.value for phase in Phase} <= texts


def test_every_class_and_field_has_a_row() -> None:
    page = reference.failure_classes()
    assert all(f"| {failure_class.value} |" in page for failure_class in FailureClass)
    assert "| `spec.policy.stallTimeout` | text | `30m` |" in reference.api_reference()


def test_what_ended_well_stays_so() -> None:
    assert not [after for (before, after) in TRANSITIONS if before is Phase.SUCCEEDED]
    assert allowed("", Phase.TRAINING)
    assert not allowed("Succeeded", Phase.TRAINING)
