"""Every recognition model against the figures measured on PaddleOCR: names, shapes, outputs, losses, gradients."""

from __future__ import annotations

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

MODELS = [
    "PP-OCRv5_mobile_rec",
    "PP-OCRv5_server_rec",
    "PP-OCRv4_mobile_rec",
    "PP-OCRv4_server_rec",
    "PP-OCRv3_mobile_rec",
    "PP-OCRv3_mobile_rec_ctc",
    "CRNN_r34_vd",
]


@pytest.mark.parametrize("name", MODELS)
def test_a_model_equals_paddleocrs(name: str) -> None:
    figures = Figures.load(name)
    model = models.build(name, characters=figures.facts["classes"] - 1)
    assert check_names(model, figures) == []
    fill(model, figures)
    assert check_eval(model, figures) == []
    if "loss_values" not in figures.facts:  # PP-OCRv3's guided branch has no training figures
        return
    without_dropout(model)
    batch = figures.batch()
    terms = losses.build(name)(models.train_forward(model, paddle.to_tensor(figures.arrays["input"]), batch), batch)
    assert check_losses(terms, figures) == []
    terms["loss"].backward()
    assert check_gradients(model, figures) == []


def _sar_batch(longest: int) -> dict[str, paddle.Tensor]:
    texts = [[1, 2, 3, 4, 5], [6, 7, 8]]
    characters = 95
    start, padding = characters + 1, characters + 2
    guided = [[start, *[c - 1 for c in text], start] for text in texts]
    return {
        "label_ctc": paddle.to_tensor([text + [0] * (longest - len(text)) for text in texts]),
        "label_gtc": paddle.to_tensor([row + [padding] * (longest + 2 - len(row)) for row in guided]),
        "length": paddle.to_tensor([len(text) for text in texts]),
        "valid_ratio": paddle.to_tensor([0.5, 1.0]),
    }


def test_sar_ignores_what_is_padding() -> None:
    # two labels padded to 5 or to 12, and a picture whose right half is padding: the same loss
    paddle.seed(1)
    model = models.build("PP-OCRv3_mobile_rec", characters=95)
    without_dropout(model)
    x = paddle.randn([2, 3, 48, 160])
    loss = losses.build("PP-OCRv3_mobile_rec")
    short, long = (loss(models.train_forward(model, x, b), b)["SARLoss"] for b in (_sar_batch(5), _sar_batch(12)))
    assert float(short) == pytest.approx(float(long), rel=1e-5)
    feature = paddle.randn([2, 512, 1, 20])
    other = feature.clone()
    other[0, :, :, 10:] = 7.0
    labels, ratio = _sar_batch(5)["label_gtc"], paddle.to_tensor([0.45, 1.0])

    def read(features: paddle.Tensor, valid_ratio: paddle.Tensor | None) -> paddle.Tensor:
        return model.head.sar_head(features, labels, valid_ratio=valid_ratio)[0]

    assert paddle.allclose(read(feature, ratio), read(other, ratio), atol=1e-5)
    assert not paddle.allclose(read(feature, None), read(other, None), atol=1e-3)


@pytest.mark.parametrize("name", ["PP-OCRv5_mobile_rec", "PP-OCRv3_mobile_rec"])
def test_without_guidance_ctc_trains_the_backbone(name: str) -> None:
    batch = _sar_batch(5)
    model = models.build(name, characters=95, guided=False)
    x = paddle.randn([2, 3, 48, 160])
    losses.build(name, guided=False)(models.train_forward(model, x, batch), batch)["loss"].backward()
    assert gradient_norms(model)["backbone.conv1." + ("conv" if "v5" in name else "_conv") + ".weight"] > 1e-3


def test_with_guidance_only_the_guided_branch_trains_the_backbone() -> None:
    # PaddleOCR's use_guide: the reason why dropping the branch must switch it off
    batch = _sar_batch(5)
    model = models.build("PP-OCRv3_mobile_rec", characters=95, guided=True)
    outputs = models.train_forward(model, paddle.randn([2, 3, 48, 160]), batch)
    losses.build("PP-OCRv3_mobile_rec")(outputs, batch)["CTCLoss"].backward()
    assert gradient_norms(model)["backbone.conv1._conv.weight"] == 0.0


def test_a_wide_picture_has_as_many_frames_in_training_as_in_use() -> None:
    # PaddleOCR squeezes any width into 40 frames in training
    model = models.build("PP-OCRv5_mobile_rec", characters=5, guided=False)
    x = paddle.zeros([1, 3, 48, 640])
    assert models.train_forward(model, x, {})["ctc"].shape == [1, 80, 6]
    model.eval()
    assert model(x).shape == [1, 80, 6]
