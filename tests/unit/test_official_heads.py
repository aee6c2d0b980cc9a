"""The classes of official weights are found in every kind of head, and carried to another dictionary."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import paddle
import pytest

from ocr_finetune_api.model_table import TABLE
from ocr_finetune_api.workspace import Workspace
from ocr_finetune_trainer import models
from ocr_finetune_trainer.dictionary import Dictionary
from ocr_finetune_trainer.models.library import Library
from ocr_finetune_trainer.models.store import load_prepared, obtain
from ocr_finetune_trainer.models.weights import load_weights

OLD, NEW = Dictionary(("a", "b", "c")), Dictionary(("c", "x", "a", "b"))
# The heads that there are; larger models have the same ones.
HEADS = ("PP-OCRv4_mobile_rec", "PP-OCRv5_mobile_rec", "PP-OCRv6_tiny_rec", "PP-OCRv6_small_rec")


def _place(library: Path, name: str, model: paddle.nn.Layer) -> None:
    folder = library / name
    folder.mkdir(parents=True)
    paddle.save(model.state_dict(), str(folder / f"{name}_pretrained.pdparams"))
    (folder / "inference.yml").write_text(json.dumps({"PostProcess": {"character_dict": list(OLD.characters)}}))


@pytest.mark.parametrize("name", HEADS)
def test_classes_are_found_and_carried_over(name: str, tmp_path: Path) -> None:
    guided = TABLE[name].guided
    released = models.build(name, characters=OLD.size, guided=guided)
    _place(tmp_path / "home", name, released)
    workspace = Workspace(tmp_path / "work", "run-00000000")
    obtain(name, "official", workspace=workspace, best_of=lambda _: {}, library=Library([tmp_path / "home"], mirror=""))
    arrays, dictionary, _ = load_prepared(workspace.weights)
    assert dictionary == OLD
    model = models.build(name, characters=NEW.size, guided=guided)
    report = load_weights(model, arrays, source="official", old=dictionary, new=NEW)
    assert not report.initialised
    bias = next(key for key in report.resized if ".ctc_head." in key and key.endswith("bias"))
    before, after = released.state_dict()[bias].numpy(), model.state_dict()[bias].numpy()
    assert after.shape == (NEW.size + 1,)
    # blank, c, x, a, b, space: all but x are known
    np.testing.assert_array_equal(after[[0, 1, 3, 4, 5]], before[[0, 3, 1, 2, 4]])
