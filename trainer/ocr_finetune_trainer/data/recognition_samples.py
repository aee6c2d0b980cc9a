"""From a stored line to what a recognition model is trained on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol

import cv2
import numpy as np

from ocr_finetune_trainer.data.labels import Limits
from ocr_finetune_trainer.data.pictures import decode
from ocr_finetune_trainer.dictionary import targets
from ocr_finetune_trainer.geometry import recognition_geometry

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ocr_finetune_trainer.data.store import DataSet, Sample
    from ocr_finetune_trainer.dictionary import Dictionary
    from ocr_finetune_trainer.geometry import RecognitionGeometry

Other = Callable[[np.random.Generator], "tuple[NDArray[np.uint8], str]"]

__all__ = ["Augmentation", "RecognitionTransform", "frame_stride", "limits_of", "width_buckets"]

# Columns of the input for one frame of the output; CRNN keeps more of them than the others.
_STRIDES = {"CRNN_r34_vd": 4}
_STRIDE = 8


def frame_stride(model_name: str) -> int:
    """Columns of a recognition model's input that one frame of its output stands for."""
    return _STRIDES.get(model_name, _STRIDE)


def limits_of(model_name: str) -> Limits:
    """What a recognition model can be trained on."""
    return Limits(columns=recognition_geometry(model_name).max_width, stride=frame_stride(model_name))


def width_buckets(dataset: DataSet, *, geometry: RecognitionGeometry, stride: int = _STRIDE) -> NDArray[np.int32]:
    """The padded width each sample is trained at: what its picture and its label need.

    CTC can't align a label that is longer than the output: the loss is 0 and nothing is learnt, in silence. So a long
    label on a narrow picture gets a wider bucket.

    Args:
        dataset: N samples.
        geometry: The model's geometry.
        stride: Columns a frame.

    Returns:
        int32 (N,), each one of `geometry.buckets`.
    """
    sizes = dataset.sizes.astype(np.float64)
    content = np.ceil(geometry.height * sizes[:, 0] / np.maximum(sizes[:, 1], 1)).clip(1, geometry.max_width)
    content = np.maximum(content, dataset.frames.astype(np.int64) * stride)
    steps = np.asarray(geometry.buckets, dtype=np.int64)
    places = np.minimum(np.searchsorted(steps, content), len(steps) - 1)
    return np.asarray(steps[places], dtype=np.int32)


class Augmentation(Protocol):
    """Changes a line at random."""

    def __call__(
        self, picture: NDArray[np.uint8], rng: np.random.Generator, *, text: str, width: int, other: Other | None
    ) -> tuple[NDArray[np.uint8], str]:
        """A changed line of the same height and at most `width` columns, and what it says now."""


class RecognitionTransform:
    """Makes the batches of a recognition model; decodes, augments, resizes, encodes. Safe to send to other
    processes.
    """

    def __init__(
        self,
        geometry: RecognitionGeometry,
        dictionary: Dictionary,
        augment: Augmentation | None = None,
        *,
        guide: Literal["", "nrtr", "sar"] = "",
        stride: int = _STRIDE,
    ) -> None:
        """Prepares the transform.

        Args:
            geometry: How a crop becomes an input.
            dictionary: The characters of the model.
            augment: Changes lines at random (`data.augment.recognition`); None leaves them as they are.
            guide: Decoder of the guided branch; empty without one.
            stride: Columns a frame of the output, to know how wide a label has to be.
        """
        self.geometry = geometry
        self.dictionary = dictionary
        self.augment = augment
        self.guide = guide
        self.stride = stride

    def __call__(
        self, sample: Sample, rng: np.random.Generator, *, width: int | None = None, dataset: DataSet | None = None
    ) -> dict[str, Any]:
        """One sample, before padding.

        Args:
            sample: The stored line.
            rng: Random numbers of this sample in this epoch.
            width: Columns it may have at most; by default those of the widest bucket.
            dataset: Where a line to append may be taken from.

        Returns:
            `image` uint8 (H, W, 3) BGR with W at most `width`, and `classes`, the CTC classes of its label.
        """
        width = width or self.geometry.max_width
        picture, text = self._line(sample), sample.text
        if self.augment is not None:
            picture, text = self.augment(picture, rng, text=text, width=width, other=self._other(dataset))
        if picture.shape[1] > width:
            picture = _squeeze(picture, width)
        return {"image": picture, "classes": self.dictionary.encode(text)}

    def _line(self, sample: Sample) -> NDArray[np.uint8]:
        return self.geometry.resize(decode(sample.image))

    def _other(self, dataset: DataSet | None) -> Other | None:
        if dataset is None:
            return None

        def other(rng: np.random.Generator) -> tuple[NDArray[np.uint8], str]:
            sample = dataset[int(rng.integers(len(dataset)))]
            return self._line(sample), sample.text

        return other

    def width(self, dataset: DataSet, everyone: Sequence[int] | NDArray[np.int64]) -> int:
        """Columns of the batch of these samples, over all ranks."""
        widest = self.geometry.buckets[0]
        for index in everyone:
            columns, rows = (int(value) for value in dataset.sizes[index])
            content = self.geometry.content_width(height=rows, width=columns)
            needed = int(dataset.frames[index]) * self.stride
            widest = max(widest, self.geometry.bucket(min(max(content, needed), self.geometry.max_width)))
        return widest

    def batch(
        self, samples: Iterator[tuple[Sample, np.random.Generator]], *, dataset: DataSet, everyone: NDArray[np.int64]
    ) -> dict[str, NDArray[Any]]:
        """The batch of one rank.

        Args:
            samples: Its samples with their random numbers.
            dataset: Where they come from.
            everyone: Numbers of the samples of all ranks: they decide the width.

        Returns:
            `image` uint8 (N, H, W, 3), `valid_width` int32 (N,), `label_ctc` int64 (N, L), `length` int64 (N,), and
            `label_gtc` int64 (N, L + 2) for a guided model. Padding of images is 0 and has to be set to 0 again after
            normalisation, from `valid_width` on.
        """
        width = self.width(dataset, everyone)
        items = [self(sample, rng, width=width, dataset=dataset) for sample, rng in samples]
        image = np.zeros((len(items), self.geometry.height, width, 3), dtype=np.uint8)
        valid = np.zeros(len(items), dtype=np.int32)
        for row, item in enumerate(items):
            picture = item["image"]
            image[row, :, : picture.shape[1]] = picture
            valid[row] = picture.shape[1]
        labels = targets([item["classes"] for item in items], guide=self.guide, size=self.dictionary.size)
        return {"image": image, "valid_width": valid, **labels}


def _squeeze(picture: NDArray[np.uint8], width: int) -> NDArray[np.uint8]:
    return np.asarray(cv2.resize(picture, (width, picture.shape[0])), dtype=np.uint8)
