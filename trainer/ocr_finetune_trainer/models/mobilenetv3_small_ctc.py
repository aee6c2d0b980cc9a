"""MobileNetV3_small_ctc: our smallest recogniser, trained from scratch on a CPU in about a minute.

The backbone is MobileNetV3-small at width 0.35 with two changes against the paper. The strides fit text lines of
height 48: the height goes 48 → 24 → 12 → 6 → 3 → 2 → 1, the width is divided by 8, as in all PP-OCR recognisers. And
there is no squeeze-and-excitation: it averages over the whole width, padding included, so the same crop would be read
differently in a narrow training batch and in a wide serving batch.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from paddle import nn

from ocr_finetune_trainer.models.backbones.mobilenetv3 import MobileNetV3Rec, Unit
from ocr_finetune_trainer.models.heads.ctc import CTCHead
from ocr_finetune_trainer.models.necks.sequence import Reshape
from ocr_finetune_trainer.models.recognition import CTCModel

if TYPE_CHECKING:
    from ocr_finetune_trainer.losses import Loss

_relu = partial(Unit, attention=False, activation=nn.ReLU)
_hardswish = partial(Unit, attention=False, activation=nn.Hardswish)

# Table 2 of https://arxiv.org/abs/1905.02244; strides are ours.
_UNITS = (
    _relu(kernel=3, expanded=16, out=16, stride=(2, 1)),
    _relu(kernel=3, expanded=72, out=24, stride=2),
    _relu(kernel=3, expanded=88, out=24, stride=1),
    _hardswish(kernel=5, expanded=96, out=40, stride=(2, 1)),
    _hardswish(kernel=5, expanded=240, out=40, stride=1),
    _hardswish(kernel=5, expanded=240, out=40, stride=1),
    _hardswish(kernel=5, expanded=120, out=48, stride=1),
    _hardswish(kernel=5, expanded=144, out=48, stride=1),
    _hardswish(kernel=5, expanded=288, out=96, stride=(2, 1)),
    _hardswish(kernel=5, expanded=576, out=96, stride=1),
    _hardswish(kernel=5, expanded=576, out=96, stride=1),
)


def build(*, characters: int, guided: bool) -> CTCModel:  # noqa: ARG001 - there is no guided branch
    """Builds the model for `characters` characters; input (N, 3, 48, W), W / 8 frames."""
    backbone = MobileNetV3Rec(_UNITS, scale=0.35, last=576)
    neck = Reshape(backbone.out_channels)
    return CTCModel(backbone=backbone, neck=neck, head=CTCHead(neck.out_channels, characters + 1, decay=1e-5))


def build_loss(*, guided: bool) -> Loss:  # noqa: ARG001 - there is no guided branch
    """CTC loss alone."""
    from ocr_finetune_trainer.losses.ctc import CTCLoss

    return CTCLoss()
