"""DB_r50_vd: DB with ResNet-50-D, PaddleOCR's `det_r50_vd_db`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ocr_finetune_trainer.models.backbones.resnet_vd_det import ResNetVdDet
from ocr_finetune_trainer.models.detection import DetectionModel
from ocr_finetune_trainer.models.heads.db import DBHead
from ocr_finetune_trainer.models.necks.fpn import DBFPN

if TYPE_CHECKING:
    from ocr_finetune_trainer.losses import Loss


def build(*, characters: int, guided: bool) -> DetectionModel:  # noqa: ARG001 - a detector has neither
    """Builds the detector; input (N, 3, H, W) with sides that are multiples of 32."""
    backbone = ResNetVdDet((3, 4, 6, 3))
    neck = DBFPN(backbone.out_channels, out_channels=256)
    return DetectionModel(backbone=backbone, neck=neck, head=DBHead(256))


def build_loss(*, guided: bool) -> Loss:  # noqa: ARG001 - a detector has no guided branch
    """DB's loss."""
    from ocr_finetune_trainer.losses.db import DBLoss

    return DBLoss()
