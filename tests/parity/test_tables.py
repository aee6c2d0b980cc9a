"""SLANet and SLANet_plus equal PaddleOCR's: names, shapes, both ways of decoding, losses, gradients.

Close means for tables: outputs within 1e-3 of the array's largest magnitude, losses within 1e-3, gradient norms above a
thousandth of the largest within 1 % for 19 in 20 and 5 % for all (the figures' README).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import paddle
import pytest
from figures import FOLDER, Figures, check_losses, check_names, fill, gradient_norms, without_dropout

from ocr_finetune_trainer import losses, models

if TYPE_CHECKING:
    from collections.abc import Mapping

    from paddle import nn


@pytest.fixture(scope="module", params=["SLANet", "SLANet_plus"])
def case(request: pytest.FixtureRequest) -> tuple[nn.Layer, Figures]:
    figures = Figures.load(request.param, Path(os.environ.get("OCRFT_FIGURES", FOLDER)))
    model = models.build(request.param)
    model.head.max_text_length = figures.facts["architecture"]["Head"]["max_text_length"]
    fill(model, figures)
    return model, figures


def off(outputs: Mapping[str, paddle.Tensor], expected: Mapping[str, np.ndarray]) -> dict[str, float]:
    """The largest difference of each output, in parts of its largest magnitude."""
    assert outputs.keys() == expected.keys()
    for key, value in expected.items():
        assert tuple(outputs[key].shape) == value.shape, key
    return {key: float(np.abs(outputs[key].numpy() - v).max() / np.abs(v).max()) for key, v in expected.items()}


def prefixed(figures: Figures, prefix: str) -> dict[str, np.ndarray]:
    return {k.removeprefix(prefix): v for k, v in figures.arrays.items() if k.startswith(prefix)}


def test_names_and_shapes(case: tuple[nn.Layer, Figures]) -> None:
    assert check_names(*case) == []


def test_decoding_up_to_the_limit(case: tuple[nn.Layer, Figures]) -> None:
    model, figures = case
    model.eval()
    with paddle.no_grad():
        outputs = model(paddle.to_tensor(figures.arrays["input"]))
    assert max(off(outputs, prefixed(figures, "eval/")).values()) < 1e-3


def test_decoding_stops_when_all_have_ended(case: tuple[nn.Layer, Figures]) -> None:
    model, figures = case
    first, second = figures.facts["eval_stop"]["swapped_outputs"]
    generator = model.head.structure_generator[1]
    order = np.arange(generator.bias.shape[0])
    order[[first, second]] = order[[second, first]]
    for parameter in (generator.weight, generator.bias):
        parameter.set_value(parameter.numpy()[..., order])
    model.eval()
    with paddle.no_grad():
        outputs = model(paddle.to_tensor(figures.arrays["input"]))
    fill(model, figures)
    expected = prefixed(figures, "eval_stop/")
    assert max(off(outputs, expected).values()) < 1e-3
    ends = (expected["structure_probs"].argmax(axis=2) == figures.facts["classes"] - 1).argmax(axis=1)
    assert ends.tolist() == figures.facts["eval_stop"]["first_end"]


def test_training(case: tuple[nn.Layer, Figures]) -> None:
    model, figures = case
    fill(model, figures)
    without_dropout(model)
    model.clear_gradients()
    batch = figures.batch()
    outputs = models.train_forward(model, paddle.to_tensor(figures.arrays["input"]), batch)
    assert max(off(outputs, prefixed(figures, "train/")).values()) < 1e-3
    values = losses.build(figures.name)(outputs, batch)
    values["loss"].backward()
    assert check_losses(values, figures) == []
    expected, ours = figures.facts["grad_norm"], gradient_norms(model)
    assert expected.keys() == {key for key, value in model.named_parameters() if not value.stop_gradient}
    least = max(expected.values()) / 1000
    relative = [abs(ours[k] - v) / v for k, v in expected.items() if v > least]
    assert np.quantile(relative, 0.95) < 0.01
    assert max(relative) < 0.05
    fill(model, figures)  # running statistics moved


def test_the_exported_loop_decodes_the_same(case: tuple[nn.Layer, Figures], tmp_path: Path) -> None:
    """In a graph the decoder is a loop of the graph with buffers; it must stop and cut where the other does."""
    model, figures = case
    model.eval()
    picture = paddle.static.InputSpec([-1, *figures.arrays["input"].shape[1:]], "float32", name="x")
    static = paddle.jit.to_static(model, input_spec=[picture], full_graph=True)
    try:
        with pytest.warns(UserWarning, match="Found 'dict' in given outputs"):
            paddle.jit.save(static, str(tmp_path / "inference"))
    finally:
        paddle.disable_static()
        model.forward = type(model).forward.__get__(model)
    loaded = paddle.jit.load(str(tmp_path / "inference"))
    loaded.eval()
    boxes, structure = loaded(paddle.to_tensor(figures.arrays["input"]))
    expected = prefixed(figures, "eval/")
    assert max(off({"loc_preds": boxes, "structure_probs": structure}, expected).values()) < 1e-3
