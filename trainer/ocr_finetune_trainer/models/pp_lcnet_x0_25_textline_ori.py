"""PP-LCNet_x0_25_textline_ori: says whether a text line stands on its head, at width 0.25."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ocr_finetune_trainer.models.orientation import OrientationModel

if TYPE_CHECKING:
    from ocr_finetune_trainer.losses import Loss


def build(*, characters: int, guided: bool) -> OrientationModel:  # noqa: ARG001 - a classifier has neither
    """Builds the classifier; input (N, 3, 80, 160)."""
    return OrientationModel(scale=0.25)


def build_loss(*, guided: bool) -> Loss:  # noqa: ARG001 - there is no guided branch
    """Cross entropy."""
    from ocr_finetune_trainer.losses.orientation import OrientationLoss

    return OrientationLoss()
