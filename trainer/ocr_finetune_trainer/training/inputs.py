"""What a training reads before it begins: the prepared data, the characters, the geometry of its pictures."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ocr_finetune_api import overrides, results
from ocr_finetune_api.exit_codes import InputMissingError
from ocr_finetune_api.model_table import Kind, lookup
from ocr_finetune_api.overrides import Part
from ocr_finetune_api.plan import Stage
from ocr_finetune_trainer.data.store import DataSet
from ocr_finetune_trainer.dictionary import Dictionary
from ocr_finetune_trainer.geometry import DetectionGeometry, geometry_for

if TYPE_CHECKING:
    from ocr_finetune_api.model_table import ModelInfo
    from ocr_finetune_api.spec import OCRFineTuneSpec
    from ocr_finetune_api.workspace import Workspace
    from ocr_finetune_trainer.geometry import Geometry

__all__ = ["Inputs", "read"]

# A batch twice as wide as the narrowest still goes through at once; wider ones are taken in parts.
_WIDER = 2


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What prepare has left for training.

    Attributes:
        info: The model's row of the table.
        geometry: How pictures become its input.
        dictionary: Its characters, for a recognition model.
        train: What is trained on.
        validation: What chooses the best checkpoint.
        prepared: What prepare found out, as its result has it.
    """

    info: ModelInfo
    geometry: Geometry
    dictionary: Dictionary | None
    train: DataSet
    validation: DataSet
    prepared: dict[str, Any]

    @property
    def new_characters(self) -> float:
        """Part of the dictionary that the pretrained head does not know."""
        dictionary = self.prepared.get("dictionary", {})
        return int(dictionary.get("new", 0)) / max(int(dictionary.get("size", 0)), 1)

    @property
    def longest(self) -> int:
        """Characters of the longest label."""
        return int(self.prepared.get("maxTextLength") or 25)

    def most_pixels(self, batch_size: int) -> int:
        """Pixels of one forward pass of so many samples; wider batches are taken in parts."""
        geometry: Any = self.geometry
        if self.info.kind is Kind.TABLE:
            return int(batch_size * geometry.side**2)
        if self.info.kind is Kind.ORIENTATION:
            return int(batch_size * geometry.height * geometry.width)
        if self.info.kind is Kind.RECOGNITION:
            return int(batch_size * geometry.height * geometry.min_width * _WIDER)
        return int(batch_size * geometry.train_height * geometry.train_width)


def read(spec: OCRFineTuneSpec, workspace: Workspace) -> Inputs:
    """Opens what prepare has left.

    Raises:
        InputMissingError: There is nothing to validate with.
        OCRFineTuneError: A file is missing or broken.
    """
    info = lookup(spec.model.name)
    train, validation = (DataSet.open(workspace.data / name) for name in ("train", "validation"))
    if not len(validation):
        raise InputMissingError(f"{workspace.data / 'validation'}: is empty, so no checkpoint can be chosen")
    geometry = geometry_for(spec.model.name)
    if isinstance(geometry, DetectionGeometry):
        canvas = overrides.settings(spec.training.config, Part.CANVAS, info.kind)
        geometry = replace(geometry.for_pages(train.sizes), **canvas)
    result = results.read(workspace.result(Stage.PREPARE))
    return Inputs(
        info=info,
        geometry=geometry,
        dictionary=Dictionary.load(workspace.dictionary) if info.kind is Kind.RECOGNITION else None,
        train=train,
        validation=validation,
        prepared=result.details if result is not None else {},
    )
