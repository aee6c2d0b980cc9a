"""The languages of PP-OCRv5: rows of the table that share one network, and what is refused with its reason."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from ocr_finetune_api.model_table import TABLE, Kind, lookup
from ocr_finetune_api.spec import ModelSpec
from ocr_finetune_trainer import models
from ocr_finetune_trainer.geometry import geometry_for
from ocr_finetune_trainer.models.fusing import fuse_for_inference

LANGUAGES = ("en", "latin", "korean", "eslav", "th", "el", "cyrillic", "devanagari", "ta", "te")


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_language_shares_the_mobile_network(language: str) -> None:
    info = lookup(f"{language}_PP-OCRv5_mobile_rec")
    assert info.module == "pp_ocrv5_mobile_rec"
    assert info.kind is Kind.RECOGNITION
    assert info.serving_name == info.name
    assert info.weights_url.endswith(f"{language}_PP-OCRv5_mobile_rec_pretrained.pdparams")
    assert geometry_for(info.name) == geometry_for("PP-OCRv5_mobile_rec")
    assert 300 < info.dictionary_size < 12000


def test_its_head_has_the_size_of_its_dictionary() -> None:
    info = lookup("el_PP-OCRv5_mobile_rec")
    model = models.build(info.name, characters=info.dictionary_size + 1, guided=False)
    assert model.head.ctc_head.fc.weight.shape[1] == info.dictionary_size + 2
    trained = sum(p.size for p in fuse_for_inference(model).parameters() if not p.stop_gradient)
    assert trained == info.parameters


@pytest.mark.parametrize("name", ["arabic_PP-OCRv5_mobile_rec", "fa_PP-OCRv3_mobile_rec"])
def test_right_to_left_scripts_are_refused_with_the_reason(name: str) -> None:
    assert name not in TABLE
    with pytest.raises(KeyError, match="right-to-left"):
        lookup(name)
    with pytest.raises(ValidationError, match="right-to-left script, which is not supported"):
        ModelSpec(name=name)


def test_other_unknown_names_get_the_nearest() -> None:
    with pytest.raises(KeyError, match="did you mean 'korean_PP-OCRv5_mobile_rec'"):
        lookup("korea_PP-OCRv5_mobile_rec")
