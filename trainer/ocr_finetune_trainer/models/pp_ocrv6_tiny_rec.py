"""PP-OCRv6_tiny_rec: the smallest recogniser of PP-OCRv6, without attention."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ocr_finetune_trainer.models.pp_ocrv6 import local_recogniser

if TYPE_CHECKING:
    from ocr_finetune_trainer.losses import Loss
    from ocr_finetune_trainer.models.recognition import GuidedModel


def build(*, characters: int, guided: bool) -> GuidedModel:
    """Builds the model for `characters` characters; input (N, 3, 48, W), W / 8 frames."""
    return local_recogniser("tiny", characters=characters, guided=guided, hidden=80, guided_width=384)


def build_loss(*, guided: bool) -> Loss:
    """CTC, and with guidance NRTR's smoothed cross-entropy, added up."""
    from ocr_finetune_trainer.losses.guided import ctc_and_nrtr

    return ctc_and_nrtr(guided=guided)
