"""Reads one picture with a model that works alone: a table, or a line that may stand on its head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ocr_finetune_trainer.evaluation.orientation import OrientationClassifier
from ocr_finetune_trainer.evaluation.table_decode import to_html
from ocr_finetune_trainer.evaluation.tables import TableReader
from ocr_finetune_trainer.metrics.table import box_polygon
from ocr_finetune_trainer.orientation_geometry import OrientationGeometry
from ocr_finetune_trainer.table_geometry import TableGeometry

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ocr_finetune_trainer.evaluation.opening import OpenModel

__all__ = ["Alone", "read_alone"]


@dataclass(frozen=True, kw_only=True)
class Alone:
    """What a model says of one picture.

    Attributes:
        text: HTML of a table; `0_degree` or `180_degree` of a line.
        score: How sure it is.
        outlines: A table's cells, float32 (4, 2) each.
        document: The same as JSON values.
    """

    text: str
    score: float
    outlines: tuple[NDArray[np.float32], ...]
    document: dict[str, Any]


def read_alone(model: OpenModel, picture: NDArray[np.uint8]) -> Alone:
    """Reads one picture, uint8 (h, w, 3) BGR.

    Raises:
        ValueError: The model is of another kind.
    """
    if isinstance(model.geometry, TableGeometry):
        return _table(model, model.geometry, picture)
    if isinstance(model.geometry, OrientationGeometry):
        probability = float(OrientationClassifier(model.network, geometry=model.geometry).turned([picture])[0])
        label, score = ("180_degree", probability) if probability >= 0.5 else ("0_degree", 1.0 - probability)
        return Alone(text=label, score=score, outlines=(), document={"label": label, "score": round(score, 4)})
    raise ValueError(f"{model.name} is a {model.kind.value} model")


def _table(model: OpenModel, geometry: TableGeometry, picture: NDArray[np.uint8]) -> Alone:
    read = TableReader(model.network, geometry=geometry, batch_size=1).read([picture])[0]
    html = to_html(read.structure)
    score = 0.0 if np.isnan(read.score) else read.score
    outlines = tuple(box_polygon(box).astype(np.float32) for box in read.boxes.tolist())
    cells = [[round(float(value), 1) for value in outline.ravel()] for outline in outlines]
    return Alone(
        text=html, score=score, outlines=outlines, document={"html": html, "score": round(score, 4), "cells": cells}
    )
