"""A sheet of training samples as the model sees them, to look at before training."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from ocr_finetune_api import overrides
from ocr_finetune_api.model_table import Kind
from ocr_finetune_api.overrides import Part
from ocr_finetune_trainer.data.augment.recognition import suited
from ocr_finetune_trainer.data.order import generator
from ocr_finetune_trainer.data.pictures import encode
from ocr_finetune_trainer.data.split import TRAIN
from ocr_finetune_trainer.geometry import detection_geometry, recognition_geometry

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ocr_finetune_api.spec import OCRFineTuneSpec
    from ocr_finetune_trainer.data.preparation import Examination

__all__ = ["draw_sheet"]

_COLUMNS = 4
_GAP = 4


def draw_sheet(spec: OCRFineTuneSpec, found: Examination, *, count: int) -> bytes | None:
    """Draws augmented training samples: each row one sample, first as it is, then in three epochs.

    Args:
        spec: The run's spec.
        found: What was found out about its data.
        count: How many augmented pictures at least.

    Returns:
        A PNG; None if there is no training sample, or the model is of a kind that isn't augmented.
    """
    chosen = found.chosen(TRAIN)
    rows = -(-count // (_COLUMNS - 1))
    if not len(chosen) or spec.model.kind not in (Kind.RECOGNITION, Kind.DETECTION):
        return None
    picked = chosen[np.unique(np.linspace(0, len(chosen) - 1, rows).round().astype(np.int64))]
    draw = _lines if spec.model.kind is Kind.RECOGNITION else _pages
    grid = [draw(spec, found, int(index)) for index in picked]
    width = max(picture.shape[1] for row in grid for picture in row)
    bands = [np.concatenate([_padded(picture, width) for picture in row], axis=1) for row in grid]
    return encode(np.concatenate(bands), lossless=True)


def _padded(picture: NDArray[np.uint8], width: int) -> NDArray[np.uint8]:
    bordered = cv2.copyMakeBorder(
        picture, 0, _GAP, 0, width - picture.shape[1] + _GAP, cv2.BORDER_CONSTANT, value=(255, 255, 255)
    )
    return np.asarray(bordered, dtype=np.uint8)


def _lines(spec: OCRFineTuneSpec, found: Examination, index: int) -> list[NDArray[np.uint8]]:
    geometry = recognition_geometry(spec.model.name)
    catalogue, others = found.catalogue, found.chosen(TRAIN)

    def line(number: int) -> tuple[NDArray[np.uint8], str]:
        return geometry.resize(catalogue.picture(number)), catalogue.texts[number]

    def other(rng: np.random.Generator) -> tuple[NDArray[np.uint8], str]:
        return line(int(others[rng.integers(len(others))]))

    picture, text = line(index)
    if spec.training.augmentation == "none":
        return [picture] * _COLUMNS
    changes = overrides.settings(spec.training.config, Part.LINES, spec.model.kind)
    augment = replace(suited(spec.model.name, longest=found.max_text_length), **changes)
    width = max(picture.shape[1], geometry.min_width)
    changed = []
    for epoch in range(_COLUMNS - 1):
        rng = generator(spec.training.seed, epoch, index)
        changed.append(augment(picture, rng, text=text, width=width, other=other)[0])
    return [picture, *changed]


def _pages(spec: OCRFineTuneSpec, found: Examination, index: int) -> list[NDArray[np.uint8]]:
    from ocr_finetune_trainer.data.detection_samples import DetectionAugmentation, DetectionTransform

    changes = {part: overrides.settings(spec.training.config, part, spec.model.kind) for part in Part}
    sample = found.catalogue.sample(index)
    plain = DetectionTransform.for_model(
        spec.model.name,
        geometry=replace(detection_geometry(spec.model.name), **changes[Part.CANVAS]),
        augmentation=DetectionAugmentation.none(),
        pretrained=spec.model.pretrained != "none",
        targets=changes[Part.TARGETS],
    )
    changing = plain
    if spec.training.augmentation != "none":
        changing = replace(plain, augmentation=DetectionAugmentation(**changes[Part.PAGES]))
    transforms = [plain, *[changing] * (_COLUMNS - 1)]
    return [
        _with_map(transform(sample, generator(spec.training.seed, epoch, index)))
        for epoch, transform in enumerate(transforms)
    ]


def _with_map(item: dict[str, Any]) -> NDArray[np.uint8]:
    """A page with what is to be found in it in red, at half its size."""
    picture = np.asarray(item["image"], dtype=np.uint8).copy()
    inside = np.asarray(item["shrink_map"]).reshape(picture.shape[:2]) > 0
    picture[inside] = (0.5 * picture[inside] + np.array([0, 0, 127])).astype(np.uint8)
    half = cv2.resize(picture, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    return np.asarray(half, dtype=np.uint8)
