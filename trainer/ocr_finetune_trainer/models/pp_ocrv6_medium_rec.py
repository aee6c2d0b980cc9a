"""PP-OCRv6_medium_rec: as PP-OCRv6_small_rec, twice as wide."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ocr_finetune_trainer.models.pp_ocrv6 import attending_recogniser

if TYPE_CHECKING:
    from ocr_finetune_trainer.losses import Loss
    from ocr_finetune_trainer.models.recognition import GuidedModel


def build(*, characters: int, guided: bool) -> GuidedModel:
    """Builds the model for `characters` characters; input (N, 3, 48, W), W / 8 frames."""
    return attending_recogniser(
        "medium", characters=characters, guided=guided, width=192, mlp_ratio=4.0, guided_width=512
    )


def build_loss(*, guided: bool) -> Loss:
    """CTC, and with guidance NRTR's smoothed cross-entropy, added up."""
    from ocr_finetune_trainer.losses.guided import ctc_and_nrtr

    return ctc_and_nrtr(guided=guided)
