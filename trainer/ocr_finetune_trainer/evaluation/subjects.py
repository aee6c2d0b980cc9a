"""The models that a run compares: the trained one, and the one it started from with its own dictionary."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ocr_finetune_api import overrides
from ocr_finetune_api.exit_codes import DataError
from ocr_finetune_api.model_table import Kind
from ocr_finetune_api.overrides import Part
from ocr_finetune_trainer.dictionary import Dictionary
from ocr_finetune_trainer.evaluation.db_postprocess import DBPostProcess
from ocr_finetune_trainer.geometry import geometry_for

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from ocr_finetune_api.spec import OCRFineTuneSpec
    from ocr_finetune_api.workspace import Workspace
    from ocr_finetune_trainer.geometry import Geometry
    from ocr_finetune_trainer.training.checkpoint import Checkpoint

__all__ = ["Subject", "base_of", "build_subject", "postprocess_of", "trained_of"]

logger = logging.getLogger(__name__)

OFFICIAL_DICTIONARY = "dictionary.txt"


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A model that can be measured.

    Attributes:
        model_name: Its name in the model table.
        kind: What it does.
        layer: The layer, in eval mode, folded as it is served.
        geometry: How pictures become its input.
        dictionary: Its characters; None for models that do not read.
        note: What it is, for people.
        checkpoint: Where it comes from, for a trained one.
        postprocess: From its maps to outlines, for a detection model.
    """

    model_name: str
    kind: Kind
    layer: Any
    geometry: Geometry
    dictionary: Dictionary | None
    note: str
    checkpoint: Checkpoint | None = None
    postprocess: DBPostProcess = field(default_factory=DBPostProcess)


def postprocess_of(spec: OCRFineTuneSpec) -> DBPostProcess:
    """How a run makes outlines of maps: as `paddleocr`'s pipeline, but for what `training.config` says."""
    return DBPostProcess.from_settings(overrides.settings(spec.training.config, Part.POSTPROCESS, spec.model.kind))


def build_subject(
    model_name: str,
    weights: Mapping[str, NDArray[Any]] | None,
    *,
    kind: Kind,
    dictionary: Dictionary | None,
    note: str,
    source: str = "",
    complete: bool = True,
    seed: int = 0,
    checkpoint: Checkpoint | None = None,
    postprocess: DBPostProcess | None = None,
) -> Subject:
    """Builds a model as it is served.

    Args:
        model_name: A name of the model table.
        weights: Parameters and buffers by structured name; those of a guided branch are not needed. None leaves the
            model untrained.
        kind: What it does.
        dictionary: Its characters, for a recognition model.
        note: What it is, for people.
        source: Where the weights come from, for messages.
        complete: Whether weights that lack a part of the model are refused; else that part starts at random.
        seed: Start of an untrained model.
        checkpoint: Where a trained one comes from.
        postprocess: From its maps to outlines, for a detection model; None for that of `paddleocr`'s pipeline.

    Raises:
        DataError: The weights are not those of this model.
    """
    import paddle

    from ocr_finetune_trainer import models
    from ocr_finetune_trainer.models.fusing import fuse_for_inference
    from ocr_finetune_trainer.models.weights import load_weights

    paddle.seed(seed)
    characters = dictionary.size if dictionary is not None else 0
    layer = models.build(model_name, characters=characters, guided=False)
    if weights is not None:
        report = load_weights(layer, weights, source=source, old=dictionary, new=dictionary)
        if report.initialised and complete:
            raise DataError(
                f"{source}: lacks {len(report.initialised)} tensors of {model_name}, "
                f"such as {next(iter(report.initialised))}",
                hint="these weights belong to another model or are incomplete",
            )
    return Subject(
        model_name=model_name,
        kind=kind,
        layer=fuse_for_inference(layer),
        geometry=geometry_for(model_name),
        dictionary=dictionary,
        note=note,
        checkpoint=checkpoint,
        postprocess=postprocess or DBPostProcess(),
    )


def trained_of(workspace: Workspace, spec: OCRFineTuneSpec) -> Subject:
    """The best checkpoint of a run.

    Raises:
        InputMissingError: There is no usable checkpoint, or no dictionary.
        DataError: The checkpoint is of another model.
    """
    from ocr_finetune_trainer.training.checkpoint import load_best

    checkpoint = load_best(workspace, report=lambda damage: logger.warning("skipped %s", damage))
    return build_subject(
        spec.model.name,
        checkpoint.weights(),
        kind=spec.model.kind,
        dictionary=_dictionary(workspace.dictionary, spec),
        note=f"best checkpoint, step {checkpoint.step}",
        source=str(checkpoint.path),
        checkpoint=checkpoint,
        postprocess=postprocess_of(spec),
    )


def base_of(workspace: Workspace, spec: OCRFineTuneSpec) -> Subject:
    """The model that training started from, with the dictionary that it was made with.

    Without pretrained weights that is the untrained model: it reads nothing, which is the honest figure before.

    Raises:
        InputMissingError: Its files are gone.
        DataError: They are damaged.
    """
    if spec.model.pretrained == "none":
        return build_subject(
            spec.model.name,
            None,
            kind=spec.model.kind,
            dictionary=_dictionary(workspace.dictionary, spec),
            note="untrained",
            seed=spec.training.seed,
            postprocess=postprocess_of(spec),
        )
    from ocr_finetune_trainer.models.store import load_prepared

    weights, dictionary, source = load_prepared(workspace.weights)
    if dictionary is None:
        # A backbone alone comes without characters; its untrained head reads nothing, whatever they are.
        dictionary = _dictionary(workspace.dictionary, spec)
    return build_subject(
        spec.model.name,
        weights,
        kind=spec.model.kind,
        dictionary=dictionary if spec.model.kind is Kind.RECOGNITION else None,
        note=f"pretrained: {spec.model.pretrained}",
        source=source,
        complete=False,
        seed=spec.training.seed,
        postprocess=postprocess_of(spec),
    )


def _dictionary(path: Path, spec: OCRFineTuneSpec) -> Dictionary | None:
    return Dictionary.load(path) if spec.model.kind is Kind.RECOGNITION else None
