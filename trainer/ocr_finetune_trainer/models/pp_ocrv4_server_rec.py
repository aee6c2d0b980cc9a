"""PP-OCRv4_server_rec: PP-HGNet-small, SVTR encoder and CTC, guided by NRTR.

Every number is from `configs/rec/PP-OCRv4/PP-OCRv4_server_rec.yml` of PaddleOCR 3.0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ocr_finetune_trainer.models.backbones.hgnet import HGNetRec
from ocr_finetune_trainer.models.heads.ppocr import nrtr_guided_head
from ocr_finetune_trainer.models.recognition import GuidedModel

if TYPE_CHECKING:
    from ocr_finetune_trainer.losses import Loss


def build(*, characters: int, guided: bool) -> GuidedModel:
    """Builds the model for `characters` characters; input (N, 3, 48, W), W / 8 frames."""
    backbone = HGNetRec()
    return GuidedModel(
        backbone=backbone,
        head=nrtr_guided_head(backbone.out_channels, characters=characters, guided=guided),
    )


def build_loss(*, guided: bool) -> Loss:
    """CTC, and with guidance NRTR's smoothed cross-entropy, added up."""
    from ocr_finetune_trainer.losses.guided import ctc_and_nrtr

    return ctc_and_nrtr(guided=guided)
