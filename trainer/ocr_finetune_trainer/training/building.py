"""Makes the model that is trained: built for the run's characters, with the weights that prepare laid down in it, in the
mode that training wants.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import paddle
from paddle import nn

from ocr_finetune_api import overrides
from ocr_finetune_api.exit_codes import ConfigurationError
from ocr_finetune_api.model_table import lookup
from ocr_finetune_api.overrides import Part
from ocr_finetune_trainer import models
from ocr_finetune_trainer.models.store import load_prepared
from ocr_finetune_trainer.models.weights import LoadReport, load_weights

if TYPE_CHECKING:
    from pathlib import Path

    from ocr_finetune_api.spec import ModelSpec, OCRFineTuneSpec
    from ocr_finetune_trainer.dictionary import Dictionary
    from ocr_finetune_trainer.models.freezing import Freezing

__all__ = ["guided_branch", "load_pretrained", "new_model", "set_modes"]

logger = logging.getLogger(__name__)


def guided_branch(model: ModelSpec) -> bool:
    """Whether a guided branch is trained.

    Raises:
        ConfigurationError: One is asked for, and the model has none.
    """
    if model.guided and not lookup(model.name).can_guide:
        raise ConfigurationError(
            f"model.guidance: {model.name} has no guided branch to keep", hint="write guidance: auto or drop"
        )
    return model.guided


def new_model(spec: OCRFineTuneSpec, dictionary: Dictionary | None) -> nn.Layer:
    """Builds a run's model with random weights.

    Args:
        spec: The run's spec.
        dictionary: Its characters, for a recognition model.
    """
    name = spec.model.name
    with paddle.utils.unique_name.guard():
        model = models.build(
            name, characters=dictionary.size if dictionary is not None else 0, guided=guided_branch(spec.model)
        )
    for attribute, value in overrides.settings(spec.training.config, Part.HEAD, spec.model.kind).items():
        setattr(model.head, attribute, value)
    return model


def load_pretrained(model: nn.Layer, folder: Path, dictionary: Dictionary | None, *, tell: bool) -> LoadReport:
    """Puts the weights that prepare laid down into a model.

    Args:
        model: Gets the values in place.
        folder: `Workspace.weights`.
        dictionary: The model's characters, for a recognition model.
        tell: Whether what became of them is logged.

    Returns:
        What became of every tensor.

    Raises:
        OCRFineTuneError: As `load_prepared` and `load_weights` do.
    """
    arrays, old, source = load_prepared(folder)
    report = load_weights(model, arrays, source=source, old=old, new=dictionary)
    for line in report.lines() if tell else ():
        logger.info("%s", line)
    return report


def set_modes(model: nn.Layer, *, frozen_norms: bool, freezing: Freezing) -> None:
    """Puts a model into training mode, but for what stands still."""
    model.train()
    freezing.hold()
    if frozen_norms:
        for layer in model.sublayers():
            if isinstance(layer, nn.BatchNorm1D | nn.BatchNorm2D | nn.BatchNorm3D | nn.SyncBatchNorm | nn.BatchNorm):
                layer.eval()
