"""PP-OCRv5_server_det: DB with PP-HGNetV2-B4, a path-aggregating pyramid and a refined map."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ocr_finetune_trainer.models.backbones.hgnetv2 import HGNetV2Det
from ocr_finetune_trainer.models.detection import DetectionModel
from ocr_finetune_trainer.models.heads.db import PFHeadLocal
from ocr_finetune_trainer.models.necks.fpn import LKPAN, IntraCollaboration

if TYPE_CHECKING:
    from ocr_finetune_trainer.losses import Loss


def build(*, characters: int, guided: bool) -> DetectionModel:  # noqa: ARG001 - a detector has neither
    """Builds the detector; input (N, 3, H, W) with sides that are multiples of 32."""
    backbone = HGNetV2Det()
    neck = LKPAN(backbone.out_channels, out_channels=256, refine=IntraCollaboration)
    return DetectionModel(backbone=backbone, neck=neck, head=PFHeadLocal(256, inner=64))


def build_loss(*, guided: bool) -> Loss:  # noqa: ARG001 - a detector has no guided branch
    """DB's loss with the term of the refined map."""
    from ocr_finetune_trainer.losses.db import DBLoss

    return DBLoss()
