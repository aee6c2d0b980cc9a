"""SLANet for English tables: 28 structure tokens, start and end; a cell's box is left, top, right, bottom."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ocr_finetune_trainer.models.table import SLANetModel

if TYPE_CHECKING:
    from ocr_finetune_trainer.losses import Loss


def build(*, characters: int, guided: bool) -> SLANetModel:  # noqa: ARG001 - the vocabulary is fixed, no branch is guided
    """Builds the model; input (N, 3, 488, 488)."""
    return SLANetModel(classes=30, box_numbers=4)


def build_loss(*, guided: bool) -> Loss:  # noqa: ARG001 - there is no guided branch
    """Structure and box loss."""
    from ocr_finetune_trainer.losses.table import TableLoss

    return TableLoss()
