"""PP-OCRv3_mobile_rec_ctc: PP-OCRv3's recogniser without its guided branch, as PaddleOCR's guide fine-tunes it.

Every number is from `configs/rec/PP-OCRv3/PP-OCRv3_mobile_rec.yml` of PaddleOCR 3.0, laid out as the guide does it:
MobileNetV1Enhance, SequenceEncoder (svtr), CTCHead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ocr_finetune_trainer.models.backbones.mobilenetv1_enhance import MobileNetV1Enhance
from ocr_finetune_trainer.models.heads.ctc import CTCHead
from ocr_finetune_trainer.models.necks.svtr import SVTRNeck
from ocr_finetune_trainer.models.recognition import CTCModel

if TYPE_CHECKING:
    from ocr_finetune_trainer.losses import Loss


def build(*, characters: int, guided: bool) -> CTCModel:  # noqa: ARG001 - there is no guided branch
    """Builds the model for `characters` characters; input (N, 3, 48, W), W / 8 frames."""
    backbone = MobileNetV1Enhance(scale=0.5, pool_height=3)
    neck = SVTRNeck(backbone.out_channels, width=64, hidden=120, depth=2, kernel=(3, 3), detached=False)
    return CTCModel(backbone=backbone, neck=neck, head=CTCHead(neck.out_channels, characters + 1, decay=1e-5))


def build_loss(*, guided: bool) -> Loss:  # noqa: ARG001 - there is no guided branch
    """CTC loss alone."""
    from ocr_finetune_trainer.losses.ctc import CTCLoss

    return CTCLoss()
