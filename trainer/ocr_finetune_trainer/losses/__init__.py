"""The training loss of every model, by the model's name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ocr_finetune_api.exit_codes import ConfigurationError
from ocr_finetune_api.model_table import lookup

if TYPE_CHECKING:
    import paddle

    Loss = Callable[[Mapping[str, Any], Mapping[str, paddle.Tensor]], dict[str, paddle.Tensor]]

__all__ = ["build"]


def build(name: str, *, guided: bool | None = None, settings: Mapping[str, Any] | None = None) -> Loss:
    """Builds the loss of a model.

    Args:
        name: A name of the model table.
        guided: As for `ocr_finetune_trainer.models.build`.
        settings: Values that take the place of PaddleOCR's, by the names of the loss's attributes.

    Returns:
        A function of (outputs of `models.train_forward`, batch) that returns scalars by name; the one named `loss` is
        what training minimises, the others are its terms.

    Raises:
        KeyError: The model table has no such name.
        ConfigurationError: The loss of this model has no such setting.
    """
    info = lookup(name)
    module = import_module(f"ocr_finetune_trainer.models.{info.module}")
    loss: Any = module.build_loss(guided=info.can_guide if guided is None else guided)
    unknown = sorted(set(settings or {}) - {field.name for field in fields(loss)})
    if unknown:
        raise ConfigurationError(f"training.config: the loss of {name} has no {', '.join(unknown)}")
    made: Loss = replace(loss, **(settings or {}))
    return made
