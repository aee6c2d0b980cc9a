"""PP-OCRv6_small_det: a detector for phones and CPUs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ocr_finetune_trainer.models.backbones.lcnetv4 import LCNetV4Det
from ocr_finetune_trainer.models.necks.rep_pyramid import RepLKFPN
from ocr_finetune_trainer.models.pp_ocrv6 import SupervisedDetector

if TYPE_CHECKING:
    from ocr_finetune_trainer.losses import Loss


def build(*, characters: int, guided: bool) -> SupervisedDetector:  # noqa: ARG001 - a detector has neither
    """Builds the detector; input (N, 3, H, W) with sides that are multiples of 32."""
    backbone = LCNetV4Det("small")
    return SupervisedDetector(backbone=backbone, neck=RepLKFPN(backbone.out_channels, out_channels=96, kernel=7))


def build_loss(*, guided: bool) -> Loss:  # noqa: ARG001 - a detector has no guided branch
    """Dice and focal loss, for the maps and for those of the levels."""
    from ocr_finetune_trainer.losses.db_focal import SupervisedDBLoss

    return SupervisedDBLoss()
