"""Folding for export changes nothing that a user could see."""

from __future__ import annotations

import numpy as np
import paddle
import pytest

from ocr_finetune_trainer import models
from ocr_finetune_trainer.models.fusing import fuse_for_inference


def _lively(model: paddle.nn.Layer) -> None:
    # statistics and scales away from their start, so that a mistake in folding shows
    rng = np.random.default_rng(5)
    for name, tensor in model.state_dict().items():
        if name.endswith("._variance"):
            tensor.set_value(rng.uniform(0.5, 1.5, tensor.shape).astype(np.float32))
        elif name.endswith(("._mean", ".bias", ".scale")):
            noise = 0.1 * rng.standard_normal(tensor.shape).astype(np.float32)
            tensor.set_value((noise + float(name.endswith(".scale"))).astype(np.float32))


@pytest.mark.parametrize(
    ("name", "shape"),
    [("PP-OCRv5_mobile_rec", [2, 3, 48, 96]), ("PP-OCRv5_mobile_det", [1, 3, 64, 96]), ("CRNN_r34_vd", [1, 3, 32, 64])],
)
def test_a_fused_model_computes_the_same(name: str, shape: list[int]) -> None:
    paddle.seed(2)
    model = models.build(name, characters=20)
    _lively(model)
    model.eval()
    x = paddle.randn(shape)
    before = model(x)
    fused = fuse_for_inference(model)
    after = fused(x)
    before, after = (next(iter(o.values())) if isinstance(o, dict) else o for o in (before, after))
    assert float((before - after).abs().max()) < 1e-4
    again = fuse_for_inference(fused)(x)
    assert paddle.equal_all(next(iter(again.values())) if isinstance(again, dict) else again, after)


def test_what_is_only_for_training_is_gone() -> None:
    mobile = fuse_for_inference(models.build("PP-OCRv5_mobile_rec", characters=20)).state_dict()
    assert not [name for name in mobile if "gtc" in name or "conv_kxk" in name or "identity" in name]
    assert "backbone.blocks2.0.dw_conv.reparam_conv.weight" in mobile
    server = fuse_for_inference(models.build("PP-OCRv5_server_rec", characters=20)).state_dict()
    assert not [name for name in server if name.startswith(("backbone.fc", "backbone.last_conv", "head.gtc"))]
    guided = fuse_for_inference(models.build("PP-OCRv3_mobile_rec", characters=20)).state_dict()
    assert not [name for name in guided if "sar_head" in name]
