"""SLANet_small: our smallest table model, trained from scratch on a CPU in minutes.

It is SLANet with a backbone of half the width that looks at a picture of 192 pixels, and its decoder reads the map at
a sixteenth of that instead of a thirty-second, so that a cell of a small table still has a place of its own in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ocr_finetune_trainer.models.table import TableModel

if TYPE_CHECKING:
    from ocr_finetune_trainer.losses import Loss


def build(*, characters: int, guided: bool) -> TableModel:  # noqa: ARG001 - the vocabulary is fixed, no branch is guided
    """Builds the model; input (N, 3, 192, 192)."""
    return TableModel(classes=30, box_numbers=4, scale=0.5, level=2)


def build_loss(*, guided: bool) -> Loss:  # noqa: ARG001 - there is no guided branch
    """Structure and box loss."""
    from ocr_finetune_trainer.losses.table import TableLoss

    return TableLoss()
