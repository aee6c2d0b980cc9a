"""From a stored table to what a table model is trained on.

A table is stored as a page: its text is the structure as HTML, its polygons are its cells in reading order, and a cell
whose place is unknown has no points.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import cv2
import numpy as np

from ocr_finetune_trainer.data.pictures import decode
from ocr_finetune_trainer.data.table_labels import (
    Cell,
    TableLabel,
    Vocabulary,
    as_corners,
    encode,
    merge_cells,
    split_structure,
    split_text,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ocr_finetune_trainer.data.store import DataSet, Sample
    from ocr_finetune_trainer.table_geometry import TableGeometry

__all__ = ["MAX_TOKENS", "StoredTable", "TableAugmentation", "TableTransform", "label_of", "untrainable"]

MAX_TOKENS = 500  # max_text_length of SLANet: the decoder stops after that many steps


class StoredTable(Protocol):
    """What a sample must have; `data.store.Sample` has it.

    Attributes:
        text: The structure as HTML.
        polygons: The cells' outlines, float32 (K, 2) each, K = 0 where unknown.
        texts: What the cells say.
        ignored: For each cell, whether its place is unknown or can't be used.
        origin: Where it comes from, for messages.
    """

    @property
    def text(self) -> str: ...  # noqa: D102
    @property
    def polygons(self) -> Sequence[NDArray[np.float32]] | None: ...  # noqa: D102
    @property
    def texts(self) -> Sequence[str]: ...  # noqa: D102
    @property
    def ignored(self) -> Sequence[bool]: ...  # noqa: D102
    @property
    def origin(self) -> str: ...  # noqa: D102


def label_of(sample: StoredTable) -> TableLabel:
    """The label of a stored table.

    Raises:
        ValueError: The sample is no table.
    """
    if sample.polygons is None:
        raise ValueError(f"{sample.origin}: is a line of text, not a table")
    cells = tuple(
        Cell(split_text(text), None if ignored else tuple(float(v) for v in outline.ravel()))
        for outline, text, ignored in zip(sample.polygons, sample.texts, sample.ignored, strict=True)
    )
    return TableLabel(split_structure(sample.text), cells)


def untrainable(structure: str, vocabulary: Vocabulary, *, most: int = MAX_TOKENS) -> tuple[str, str] | None:
    """Why a model can't learn a structure, as kind and clause; None if it can.

    Args:
        structure: HTML without the cells' text.
        vocabulary: What the model knows.
        most: Most tokens, as the model counts them.
    """
    tokens = merge_cells(split_structure(structure))
    unknown = list(dict.fromkeys(token for token in tokens if token not in vocabulary.numbers))
    if unknown:
        shown = ", ".join(token.strip() for token in unknown[:4])
        return "unknown-structure-token", f"the structure uses {shown}, which the model's structure dictionary lacks"
    if len(tokens) > most:
        return "long-structure", f"the structure has {len(tokens)} tokens, over the model's {most}"
    return None


@dataclass(frozen=True, kw_only=True)
class TableAugmentation:
    """How much pictures of tables are changed; the geometry stays, for lines must stay straight.

    Attributes:
        brightness: Largest change of the mean, in grey levels.
        contrast: Largest change of the contrast, in parts.
        blur: Probability of a slight blur.
        noise: Largest standard deviation of the noise, in grey levels.
    """

    brightness: float = 25.0
    contrast: float = 0.25
    blur: float = 0.2
    noise: float = 6.0

    def __call__(self, picture: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
        """A changed picture of the same size, uint8 (H, W, 3)."""
        if rng.random() < self.blur:
            picture = np.asarray(cv2.GaussianBlur(picture, (3, 3), 0), dtype=np.uint8)
        values = picture.astype(np.float32)
        factor = 1.0 + rng.uniform(-self.contrast, self.contrast)
        values = (values - 128.0) * factor + 128.0 + rng.uniform(-self.brightness, self.brightness)
        deviation = rng.uniform(0.0, self.noise)
        if deviation > 0.5:
            values += rng.normal(0.0, deviation, size=(*picture.shape[:2], 1)).astype(np.float32)
        return values.clip(0, 255).astype(np.uint8)


class TableTransform:
    """Makes the batches of a table model. Safe to send to other processes.

    Args:
        geometry: How a picture becomes an input, and which tokens the model knows.
        augment: Changes pictures at random; None leaves them as they are.
    """

    def __init__(self, geometry: TableGeometry, augment: TableAugmentation | None = None) -> None:
        self.geometry = geometry
        self.vocabulary = geometry.vocabulary
        self.augment = augment

    def __call__(self, sample: Sample, rng: np.random.Generator, *, tokens: int = MAX_TOKENS) -> dict[str, Any]:
        """One sample.

        Args:
            sample: A stored table.
            rng: Random numbers of this sample in this epoch.
            tokens: Tokens to make room for.

        Returns:
            `image` uint8 (side, side, 3) with `valid_height` and `valid_width`; `structure` int64 (tokens + 2,),
            `bboxes` float32 (tokens + 2, numbers), `bbox_masks` float32 (tokens + 2, 1), `length`.

        Raises:
            ValueError: It is no table, or the model can't learn its structure.
            PictureError: Its picture can't be decoded.
        """
        label = label_of(sample)
        numbers = self.geometry.box_numbers
        cells = tuple(
            Cell(cell.tokens, None if cell.box is None else as_corners(cell.box, numbers=numbers))
            for cell in label.cells
        )
        encoded = encode(
            TableLabel(label.structure, cells), self.vocabulary, max_text_length=tokens, box_numbers=numbers
        )
        if encoded is None or encoded.unknown:
            wrong = untrainable(sample.text, self.vocabulary, most=tokens)
            raise ValueError(f"{sample.origin}: {wrong[1] if wrong else 'has no structure'}")
        picture = decode(sample.image)
        height, width = picture.shape[:2]
        resized = self.geometry.resize(picture)
        if self.augment is not None:
            resized = self.augment(resized, rng)
        side = self.geometry.side
        image = np.zeros((side, side, 3), dtype=np.uint8)
        image[: resized.shape[0], : resized.shape[1]] = resized
        boxes = self.geometry.encode_boxes(encoded.boxes, height=height, width=width)
        return {
            "image": image,
            "valid_height": resized.shape[0],
            "valid_width": resized.shape[1],
            "structure": encoded.structure,
            # The model's boxes end in a sigmoid: what lies outside the picture can't be said.
            "bboxes": boxes.clip(0.0, 1.0) * encoded.box_masks,
            "bbox_masks": encoded.box_masks,
            "length": encoded.length,
        }

    def tokens(self, dataset: DataSet, everyone: Sequence[int] | NDArray[np.int64]) -> int:
        """Tokens of the longest structure of these samples."""
        return max((len(merge_cells(split_structure(dataset.texts[int(i)]))) for i in everyone), default=1)

    def batch(
        self, samples: Iterator[tuple[Sample, np.random.Generator]], *, dataset: DataSet, everyone: NDArray[np.int64]
    ) -> dict[str, NDArray[Any]]:
        """The batch of one rank.

        Args:
            samples: Its samples with their random numbers.
            dataset: Where they come from.
            everyone: Numbers of the samples of all ranks: they decide how many steps are decoded.

        Returns:
            The arrays of a sample, stacked; `steps` int64 (N,), the same for all: steps to decode. Padding of images is
            0 and has to be set to 0 again after normalisation, from `valid_height` and `valid_width` on.
        """
        tokens = self.tokens(dataset, everyone)
        items = [self(sample, rng, tokens=tokens) for sample, rng in samples]
        side, numbers = self.geometry.side, self.geometry.box_numbers

        def stacked(name: str, shape: tuple[int, ...], dtype: type) -> NDArray[Any]:
            return np.asarray([item[name] for item in items], dtype=dtype).reshape(len(items), *shape)

        return {
            "image": stacked("image", (side, side, 3), np.uint8),
            "valid_height": stacked("valid_height", (), np.int32),
            "valid_width": stacked("valid_width", (), np.int32),
            "structure": stacked("structure", (tokens + 2,), np.int64),
            "bboxes": stacked("bboxes", (tokens + 2, numbers), np.float32),
            "bbox_masks": stacked("bbox_masks", (tokens + 2, 1), np.float32),
            "length": stacked("length", (), np.int64),
            "steps": np.full(len(items), tokens + 1, dtype=np.int64),
        }
