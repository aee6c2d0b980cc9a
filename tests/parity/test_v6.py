"""PP-OCRv6 against the figures measured on PaddleOCR: names, shapes, outputs, logits, maps, losses, gradients.

Close means for these deep models: outputs within 1e-3 of the array's largest magnitude, losses within 1e-3, and
gradient norms above a thousandth of the largest within 1 % for 19 in 20 and 5 % for all (the figures' README).
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import paddle
import pytest
from figures import FOLDER, Figures, check_names, fill, gradient_norms, without_dropout

from ocr_finetune_trainer import losses, models
from ocr_finetune_trainer.models.fusing import fuse_for_inference

SIZES = ("tiny", "small", "medium")
NAMES = [f"PP-OCRv6_{size}_{kind}" for kind in ("rec", "det") for size in SIZES]


def off(ours: paddle.Tensor, expected: np.ndarray) -> float:
    """The largest difference in parts of the largest magnitude."""
    assert tuple(ours.shape) == expected.shape
    return float(np.abs(ours.numpy() - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("name", NAMES)
def test_a_model_equals_paddleocrs(name: str) -> None:
    figures = Figures.load(name, Path(os.environ.get("OCRFT_FIGURES", FOLDER)))
    characters = (figures.facts["classes"] or 1) - 1
    model = models.build(name, characters=characters)
    assert check_names(model, figures) == []
    fill(model, figures)
    x = paddle.to_tensor(figures.arrays["input"])
    expected = next(value for key, value in figures.arrays.items() if key.startswith("eval/"))
    model.eval()
    with paddle.no_grad():
        in_use = model(x)
    assert off(in_use, expected) < 1e-3

    without_dropout(model)
    batch = figures.batch()
    outputs = models.train_forward(model, x, batch)
    training = {key.removeprefix("train/"): v for key, v in figures.arrays.items() if key.startswith("train/")}
    assert outputs.keys() == training.keys()
    # The third map is a step of slope 50 of the difference of two: it strays by as much on another CPU.
    assert {key: off(outputs[key], value) for key, value in training.items() if off(outputs[key], value) > 4e-3} == {}
    values = losses.build(name)(outputs, batch)
    assert values.keys() == figures.facts["loss_values"].keys()
    for key, value in figures.facts["loss_values"].items():
        assert float(values[key]) == pytest.approx(value, rel=1e-3, abs=1e-4), key
    values["loss"].backward()
    ours, norms = gradient_norms(model), figures.facts["grad_norm"]
    least = max(norms.values()) / 1000
    relative = {key: abs(ours[key] - norm) / norm for key, norm in norms.items() if norm > least}
    assert np.quantile(list(relative.values()), 0.95) < 0.01
    assert max(relative.values()) < 0.05

    fill(model, figures)  # running statistics moved
    fuse_for_inference(model)
    with paddle.no_grad():
        assert off(model(x), expected) < 1e-3
    parts = dict(model.named_sublayers())
    assert not [part for part in parts if "dil_conv" in part or part.endswith("rep_dw.conv1")]


@pytest.mark.parametrize("size", SIZES)
def test_without_guidance_ctc_trains_the_backbone(size: str) -> None:
    name = f"PP-OCRv6_{size}_rec"
    model = models.build(name, characters=9, guided=False)
    batch = {"label_ctc": paddle.to_tensor([[1, 2, 3]]), "length": paddle.to_tensor([3])}
    outputs = models.train_forward(model, paddle.randn([1, 3, 48, 64]), batch)
    losses.build(name, guided=False)(outputs, batch)["loss"].backward()
    first = next(key for key in gradient_norms(model) if key.startswith("backbone.conv1") and key.endswith("weight"))
    assert gradient_norms(model)[first] > 1e-3
