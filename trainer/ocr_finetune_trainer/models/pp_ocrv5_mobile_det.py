"""PP-OCRv5_mobile_det: the architecture of PP-OCRv4_mobile_det, trained on more (https://arxiv.org/abs/2507.05595)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ocr_finetune_trainer.models.backbones.lcnetv3 import LCNetV3Det
from ocr_finetune_trainer.models.detection import DetectionModel
from ocr_finetune_trainer.models.heads.db import DBHead
from ocr_finetune_trainer.models.necks.fpn import RSEFPN

if TYPE_CHECKING:
    from ocr_finetune_trainer.losses import Loss


def build(*, characters: int, guided: bool) -> DetectionModel:  # noqa: ARG001 - a detector has neither
    """Builds the detector; input (N, 3, H, W) with sides that are multiples of 32."""
    backbone = LCNetV3Det(scale=0.75)
    neck = RSEFPN(backbone.out_channels, out_channels=96)
    return DetectionModel(backbone=backbone, neck=neck, head=DBHead(96))


def build_loss(*, guided: bool) -> Loss:  # noqa: ARG001 - a detector has no guided branch
    """DB's loss."""
    from ocr_finetune_trainer.losses.db import DBLoss

    return DBLoss()
