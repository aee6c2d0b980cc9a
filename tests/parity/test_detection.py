"""Detection models equal PaddleOCR's: names, shapes, output, every loss value, every gradient norm."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import paddle
import pytest
from figures import (
    Figures,
    check_eval,
    check_gradients,
    check_losses,
    check_names,
    fill,
    gradient_norms,
    without_dropout,
)

from ocr_finetune_trainer import losses, models

if TYPE_CHECKING:
    from paddle import nn

NAMES = [
    "DB_mv3",
    "DB_r50_vd",
    "PP-OCRv2_mobile_det",
    "PP-OCRv3_mobile_det",
    "PP-OCRv4_mobile_det",
    "PP-OCRv4_server_det",
    "PP-OCRv5_mobile_det",
    "PP-OCRv5_server_det",
]


@pytest.fixture(scope="module", params=NAMES)
def case(request: pytest.FixtureRequest) -> tuple[nn.Layer, Figures]:
    figures = Figures.load(request.param)
    return models.build(request.param), figures


def test_names_and_shapes(case: tuple[nn.Layer, Figures]) -> None:
    assert check_names(*case) == []


def test_output_in_use(case: tuple[nn.Layer, Figures]) -> None:
    fill(*case)
    assert check_eval(*case) == []


def test_training(case: tuple[nn.Layer, Figures]) -> None:
    model, figures = case
    fill(model, figures)
    without_dropout(model)
    model.clear_gradients()
    batch = figures.batch()
    outputs = models.train_forward(model, paddle.to_tensor(figures.arrays["input"]), batch)
    # The reference itself strays by 0.004 in its third map, a step of slope 50, on another CPU.
    expected = {key.removeprefix("train/"): value for key, value in figures.arrays.items() if key.startswith("train/")}
    assert outputs.keys() == expected.keys()
    off = {key: float(np.abs(outputs[key].numpy() - value).max()) for key, value in expected.items()}
    assert max(off.values()) < 4e-3, off
    values = losses.build(figures.name)(outputs, batch)
    values["loss"].backward()
    assert check_losses(values, figures) == []
    assert check_gradients(model, figures) == []
    assert len([norm for norm in gradient_norms(model).values() if norm > 0]) >= len(
        [norm for norm in figures.facts["grad_norm"].values() if norm > 1e-3]
    )


def test_a_batch_without_text_teaches_only_the_background() -> None:
    """PaddleOCR's balance leaves loss 0 for the shrink map of an empty batch; nothing becomes NaN."""
    model = models.build("DB_mv3")
    zeros, ones = paddle.zeros([1, 64, 64]), paddle.ones([1, 64, 64])
    batch = {"shrink_map": zeros, "shrink_mask": ones, "threshold_map": zeros + 0.3, "threshold_mask": zeros}
    values = losses.build("DB_mv3")(models.train_forward(model, paddle.rand([1, 3, 64, 64]), batch), batch)
    values["loss"].backward()
    assert float(values["loss_shrink_maps"]) == 0.0
    assert float(values["loss_threshold_maps"]) == 0.0
    assert float(values["loss_binary_maps"]) == pytest.approx(1.0)
    assert all(np.isfinite(norm) for norm in gradient_norms(model).values())


def test_a_page_of_another_size_keeps_its_size() -> None:
    model = models.build("DB_mv3")
    model.eval()
    with paddle.no_grad():
        assert model(paddle.rand([1, 3, 32, 160])).shape == [1, 1, 32, 160]
