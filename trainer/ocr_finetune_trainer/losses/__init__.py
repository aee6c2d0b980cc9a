"""The training loss of every model, by the model's name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ocr_finetune_api.model_table import lookup

if TYPE_CHECKING:
    import paddle

    Loss = Callable[[Mapping[str, Any], Mapping[str, paddle.Tensor]], dict[str, paddle.Tensor]]

__all__ = ["build"]


def build(name: str, *, guided: bool | None = None) -> Loss:
    """Builds the loss of a model.

    Args:
        name: A name of the model table.
        guided: As for `ocr_finetune_trainer.models.build`.

    Returns:
        A function of (outputs of `models.train_forward`, batch) that returns scalars by name; the one named `loss` is
        what training minimises, the others are its terms.

    Raises:
        KeyError: The model table has no such name.
    """
    info = lookup(name)
    module = import_module(f"ocr_finetune_trainer.models.{info.module}")
    loss: Loss = module.build_loss(guided=info.can_guide if guided is None else guided)
    return loss
