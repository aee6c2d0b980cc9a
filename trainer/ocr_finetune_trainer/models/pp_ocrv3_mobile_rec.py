"""PP-OCRv3_mobile_rec: MobileNetV1Enhance, SVTR encoder and CTC, guided by SAR.

Every number is from `configs/rec/PP-OCRv3/PP-OCRv3_mobile_rec.yml` of PaddleOCR 3.0. Without its guided branch it keeps
its parameter names and reads exactly as the official weights do; `PP-OCRv3_mobile_rec_ctc` is the layout of PaddleOCR's
fine-tuning guide, which differs in both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ocr_finetune_trainer.models.backbones.mobilenetv1_enhance import MobileNetV1Enhance
from ocr_finetune_trainer.models.heads.ctc import CTCHead
from ocr_finetune_trainer.models.heads.guided import SARGuidedHead
from ocr_finetune_trainer.models.heads.sar import SARHead
from ocr_finetune_trainer.models.necks.svtr import SVTRNeck
from ocr_finetune_trainer.models.recognition import GuidedModel

if TYPE_CHECKING:
    from ocr_finetune_trainer.losses import Loss


def build(*, characters: int, guided: bool) -> GuidedModel:
    """Builds the model for `characters` characters; input (N, 3, 48, W), W / 8 frames."""
    backbone = MobileNetV1Enhance(scale=0.5, pool_height=2)
    encoder = SVTRNeck(backbone.out_channels, width=64, hidden=120, depth=2, kernel=(3, 3), detached=guided)
    head = SARGuidedHead(
        ctc_encoder=encoder,
        ctc_head=CTCHead(encoder.out_channels, characters + 1, decay=1e-5),
        sar_head=SARHead(backbone.out_channels, characters=characters, width=512) if guided else None,
    )
    return GuidedModel(backbone=backbone, head=head)


def build_loss(*, guided: bool) -> Loss:
    """CTC, and with guidance SAR's cross-entropy, added up."""
    from ocr_finetune_trainer.losses.guided import ctc_and_sar

    return ctc_and_sar(guided=guided)
