"""Parallel convolutions computed together give what they give one by one: output, gradients, running statistics."""

from __future__ import annotations

import numpy as np
import paddle
import pytest

from ocr_finetune_trainer.models.backbones import lcnetv3
from ocr_finetune_trainer.models.backbones.lcnetv3 import RepLayer
from ocr_finetune_trainer.models.backbones.parallel import measures

CASES = [
    {"in_channels": 6, "out_channels": 6, "kernel": 3, "groups": 6},
    {"in_channels": 6, "out_channels": 6, "kernel": 5, "groups": 6, "stride": (2, 1)},
    {"in_channels": 6, "out_channels": 6, "kernel": 3, "groups": 6, "stride": 2},
    {"in_channels": 6, "out_channels": 6, "kernel": 1},
    {"in_channels": 6, "out_channels": 10, "kernel": 1},
]


def _layer(case: dict[str, object]) -> RepLayer:
    paddle.seed(3)
    layer = RepLayer(**case)
    rng = np.random.default_rng(1)
    for name, tensor in layer.state_dict().items():
        noise = rng.standard_normal(tensor.shape).astype(np.float32)
        if name.endswith("._variance"):
            tensor.set_value(np.abs(noise) + 0.5)
        else:
            tensor.set_value(tensor.numpy() + 0.3 * noise)
    return layer


def _run(case: dict[str, object], few: int, monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    monkeypatch.setattr(lcnetv3, "_FEW_SAMPLES", few)
    layer = _layer(case)
    paddle.seed(7)
    x = paddle.randn([8, 6, 9, 11]) * 2 + 3  # a mean far from 0
    x.stop_gradient = False
    y = layer(x)
    (y * paddle.randn(y.shape)).sum().backward()
    found = {
        f"{name}.grad": p.grad.numpy()
        for name, p in layer.named_parameters()
        if not p.stop_gradient and p.grad is not None
    }
    return {"y": y.numpy(), "x.grad": x.grad.numpy(), **found, **{k: v.numpy() for k, v in layer.state_dict().items()}}


@pytest.mark.parametrize("case", CASES)
def test_together_they_give_the_same(case: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    one_by_one = _run(case, 99, monkeypatch)
    together = _run(case, 0, monkeypatch)
    assert one_by_one.keys() == together.keys()
    for name, expected in one_by_one.items():
        scale = max(1.0, np.abs(expected).max())
        np.testing.assert_allclose(together[name], expected, rtol=2e-3, atol=1e-4 * scale, err_msg=name)


@pytest.mark.parametrize("case", CASES)
def test_frozen_statistics_are_used_and_stay(case: dict[str, object]) -> None:
    layer = _layer(case)
    for part in layer.sublayers():
        if isinstance(part, paddle.nn.BatchNorm2D):
            part.eval()
    assert not measures(layer.conv_kxk[0].bn)
    before = {k: v.numpy() for k, v in layer.state_dict().items()}
    x = paddle.randn([8, 6, 9, 11])
    y = layer(x)
    y.sum().backward()
    branches = [b for b in (layer.identity, layer.conv_1x1, *layer.conv_kxk) if b is not None]
    expected = layer.lab(paddle.add_n([branch(x) for branch in branches]))
    np.testing.assert_allclose(y.numpy(), (expected if layer.stride == 2 else layer.act(expected)).numpy(), atol=1e-4)
    assert layer.conv_kxk[0].conv.weight.grad is not None
    assert all(np.array_equal(before[k], v.numpy()) for k, v in layer.state_dict().items())
