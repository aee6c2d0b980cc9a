"""The table of models says what is true."""

from __future__ import annotations

import pytest

from ocr_finetune_api.model_table import TABLE, Kind
from ocr_finetune_trainer import models
from ocr_finetune_trainer.models.fusing import fuse_for_inference


@pytest.mark.parametrize("name", list(TABLE))
def test_the_number_of_parameters_is_that_of_the_exported_model(name: str) -> None:
    info = TABLE[name]
    # without an official dictionary: the printable ASCII characters
    characters = (info.dictionary_size or 94) + 1 if info.kind is Kind.RECOGNITION else 0
    model = fuse_for_inference(models.build(name, characters=characters, guided=False))
    assert sum(p.size for p in model.parameters() if not p.stop_gradient) == info.parameters


def test_only_rows_of_one_architecture_share_a_module() -> None:
    own = [info.module for info in TABLE.values() if not info.architecture]
    assert len(set(own)) == len(own)
    assert {TABLE[info.architecture].module for info in TABLE.values() if info.architecture} <= set(own)


def test_only_recognisers_have_guides() -> None:
    for info in TABLE.values():
        assert info.kind is Kind.RECOGNITION or not info.can_guide
        assert info.can_guide or not info.guided
