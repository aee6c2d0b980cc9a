"""Which parameters are changed and how fast, and a state that survives other models in the process."""

from __future__ import annotations

import numpy as np
import paddle
import pytest
from paddle import nn

from ocr_finetune_trainer import models
from ocr_finetune_trainer.geometry import recognition_geometry
from ocr_finetune_trainer.models.freezing import Freezing
from ocr_finetune_trainer.training.average import Average, buffers
from ocr_finetune_trainer.training.optimizer import Optimizer, stages, trainable
from ocr_finetune_trainer.training.step import normalize, split

NAME = "MobileNetV3_small_ctc"


def build() -> nn.Layer:
    return models.build(NAME, characters=10)


def train(model: nn.Layer, optimizer: Optimizer, *, steps: int = 3, seed: int = 0) -> None:
    paddle.seed(seed)
    for _ in range(steps):
        model.train_forward(paddle.rand([2, 3, 32, 80]), {})["ctc"].square().mean().backward()
        optimizer.step(1e-3)


def test_norms_and_biases_do_not_decay():
    parameters = {parameter.name: parameter for parameter in trainable(build())}
    assert parameters["backbone.conv1.conv.weight"].decays
    assert not parameters["backbone.conv1.bn.weight"].decays
    assert not parameters["backbone.conv1.bn.bias"].decays
    assert not parameters["head.fc.bias"].decays
    assert not any(name.endswith(("._mean", "._variance")) for name in parameters)


def test_decay_shrinks_what_decays_and_nothing_else():
    model = build()
    optimizer = Optimizer(trainable(model), weight_decay=0.5)
    before = {name: value.numpy() for name, value in model.named_parameters()}
    for parameter in optimizer.parameters:
        (parameter.tensor * 0).sum().backward()
    optimizer.step(0.1)
    after = {name: value.numpy() for name, value in model.named_parameters()}
    np.testing.assert_allclose(after["head.fc.weight"], before["head.fc.weight"] * 0.95, rtol=1e-5)
    np.testing.assert_array_equal(after["head.fc.bias"], before["head.fc.bias"])
    np.testing.assert_array_equal(after["backbone.conv1.bn.weight"], before["backbone.conv1.bn.weight"])


def test_rates_fall_from_the_head_to_the_stem():
    rates = {parameter.name: parameter.rate for parameter in trainable(build(), layer_decay=0.5, head_rate=5.0)}
    assert rates["head.fc.weight"] == 5.0
    assert rates["backbone.conv2.conv.weight"] == 0.5
    assert rates["backbone.blocks.10.expand_conv.conv.weight"] == 0.25
    assert rates["backbone.conv1.conv.weight"] == pytest.approx(0.5**13)


def test_a_rate_of_a_parameter_is_obeyed():
    model = build()
    optimizer = Optimizer(trainable(model, layer_decay=1e-9), weight_decay=0.0)
    before = model.state_dict()["backbone.conv1.conv.weight"].numpy()
    train(model, optimizer)
    np.testing.assert_allclose(model.state_dict()["backbone.conv1.conv.weight"].numpy(), before, atol=1e-6)


@pytest.mark.parametrize("name", ["PP-OCRv5_mobile_rec", "DB_r50_vd", "PP-OCRv5_server_det"])
def test_stages_of_a_backbone_are_in_the_order_of_the_data(name):
    depth = stages(key for key, _ in models.build(name, characters=10).named_parameters())
    assert max(depth.values()) >= 4
    assert all(key.startswith("backbone.") for key in depth)


def test_the_state_is_named_by_the_model_and_survives_other_models():
    first = build()
    optimizer = Optimizer(trainable(first), weight_decay=0.01)
    train(first, optimizer)
    state = {name: value.numpy() for name, value in optimizer.state().items()}
    weights = {name: value.numpy() for name, value in first.state_dict().items()}
    assert "head.fc.weight/moment1_0" in state
    train(first, optimizer, seed=1)
    expected = first.state_dict()["head.fc.weight"].numpy()
    build()  # moves Paddle's counters
    second = build()
    again = Optimizer(trainable(second), weight_decay=0.01)
    again.restore(state)
    for name, value in second.state_dict().items():
        value.set_value(weights[name])
    train(second, again, seed=1)
    np.testing.assert_array_equal(second.state_dict()["head.fc.weight"].numpy(), expected)


def test_frozen_parameters_are_left_out_and_come_back():
    model = build()
    freezing = Freezing(model, "backbone")
    assert {parameter.name.split(".")[0] for parameter in trainable(model)} == {"head"}
    freezing.thaw()
    assert "backbone.conv1.conv.weight" in {parameter.name for parameter in trainable(model)}


def test_the_average_follows_slowly():
    model = build()
    average = Average(build(), of=model, decay=0.9)
    weight = model.state_dict()["head.fc.weight"]
    before = weight.numpy()
    weight.set_value(weight + 1.0)
    for step in range(1, 200):
        average.update(step)
    followed = average.model.state_dict()["head.fc.weight"].numpy()
    np.testing.assert_allclose(followed, before + 1.0, atol=1e-3)
    assert len(buffers(model)) == 2 * sum(isinstance(layer, nn.BatchNorm2D) for layer in model.sublayers())


def test_pictures_are_normalised_as_in_serving():
    geometry = recognition_geometry(NAME)
    random = np.random.default_rng(0)
    pictures = [random.integers(0, 256, (32, width, 3), dtype=np.uint8) for width in (80, 33)]
    batch = np.zeros((2, 32, 80, 3), dtype=np.uint8)
    for row, picture in zip(batch, pictures, strict=True):
        row[:, : picture.shape[1]] = picture
    ours = normalize(
        paddle.to_tensor(batch), geometry.normalization, valid_width=np.array([80, 33], dtype=np.int32)
    ).numpy()
    np.testing.assert_allclose(ours, geometry.batch(pictures, width=80), atol=1e-6)


def test_wide_batches_are_taken_in_even_parts():
    batch = {"image": np.zeros((10, 32, 320, 3), dtype=np.uint8), "length": np.arange(10)}
    parts = split(batch, rows=64, most_pixels=4 * 32 * 320)
    assert [len(part["length"]) for part in parts] == [3, 3, 4]
    assert np.concatenate([part["length"] for part in parts]).tolist() == list(range(10))
    assert split(batch, rows=64, most_pixels=10 * 32 * 320) == [batch]
    assert len(split(batch, rows=64, most_pixels=1)) == 10
