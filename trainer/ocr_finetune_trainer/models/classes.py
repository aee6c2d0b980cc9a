"""Carries a recogniser's classes from one dictionary to another, by character and never by index.

A head has a row or column for each class. Which tensors these are, and in which order their classes stand, is known
here and nowhere else: the CTC head counts `[blank, characters…]`, NRTR `[padding, unknown, start, end, characters…,
unused]`, SAR's embedding `[characters…, unknown, start and end, padding]` and its projection the same without padding.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ocr_finetune_trainer.dictionary import Dictionary

_NOISE = 0.05  # of the spread that the carried rows have


class _Special(Enum):
    """Classes that are no characters; they are carried over like characters."""

    BLANK = "blank"
    PADDING = "padding"
    UNKNOWN = "unknown"
    START = "start"
    END = "end"
    UNUSED = "unused"


class _Order(Enum):
    """In which order a tensor's classes stand."""

    CTC = ((_Special.BLANK,), ())
    NRTR = ((_Special.PADDING, _Special.UNKNOWN, _Special.START, _Special.END), (_Special.UNUSED,))
    SAR_IN = ((), (_Special.UNKNOWN, _Special.START, _Special.PADDING))
    SAR_OUT = ((), (_Special.UNKNOWN, _Special.START))

    def classes(self, dictionary: Dictionary) -> tuple[str | _Special, ...]:
        """The classes of a dictionary in this order."""
        before, after = self.value
        return (*before, *dictionary.classes[1:], *after)


@dataclass(frozen=True)
class ClassTensor:
    """A tensor with an axis of classes.

    Attributes:
        suffix: How its name ends.
        axis: Which axis the classes are on.
        order: In which order they stand.
    """

    suffix: str
    axis: int
    order: _Order


_TENSORS = (
    ClassTensor("head.ctc_head.fc.weight", 1, _Order.CTC),
    ClassTensor("head.ctc_head.fc.bias", 0, _Order.CTC),
    ClassTensor("head.ctc_head.fc2.weight", 1, _Order.CTC),
    ClassTensor("head.ctc_head.fc2.bias", 0, _Order.CTC),
    ClassTensor("head.fc.weight", 1, _Order.CTC),
    ClassTensor("head.fc.bias", 0, _Order.CTC),
    ClassTensor("head.gtc_head.embedding.embedding.weight", 0, _Order.NRTR),
    ClassTensor("head.gtc_head.tgt_word_prj.weight", 1, _Order.NRTR),
    ClassTensor("head.sar_head.decoder.embedding.weight", 0, _Order.SAR_IN),
    ClassTensor("head.sar_head.decoder.prediction.weight", 1, _Order.SAR_OUT),
    ClassTensor("head.sar_head.decoder.prediction.bias", 0, _Order.SAR_OUT),
)


def class_tensor(name: str) -> ClassTensor | None:
    """What is known of the tensor with this name, or None if its shape does not depend on the dictionary."""
    return next((tensor for tensor in _TENSORS if name == tensor.suffix), None)


def carry_over(
    values: NDArray[Any], tensor: ClassTensor, *, old: Dictionary, new: Dictionary, seed: int = 0
) -> NDArray[np.float32]:
    """Moves a tensor from the classes of one dictionary to those of another.

    What both have keeps its numbers. A new class starts as the mean of all carried ones, with noise of a twentieth of
    their spread so that no two new classes are the same: it then reads like an average character and wins nowhere.

    Args:
        values: The tensor under the old dictionary.
        tensor: Which one it is.
        old: The dictionary it was trained with.
        new: The dictionary to come.
        seed: Of the noise.

    Returns:
        The tensor under the new dictionary.

    Raises:
        ValueError: `values` does not have as many classes as `old` says.
    """
    before, after = tensor.order.classes(old), tensor.order.classes(new)
    rows = np.moveaxis(np.asarray(values, dtype=np.float32), tensor.axis, 0)
    if rows.shape[0] != len(before):
        raise ValueError(f"{tensor.suffix}: {rows.shape[0]} classes, the dictionary says {len(before)}")
    source = _first_positions(before)
    kept = np.array([source.get(c, -1) for c in after])
    carried = rows[kept[kept >= 0]] if (kept >= 0).any() else rows
    rng = np.random.default_rng(seed)
    made = carried.mean(axis=0) + _NOISE * carried.std(axis=0) * rng.standard_normal((len(after), *rows.shape[1:]))
    made[kept >= 0] = rows[kept[kept >= 0]]
    return np.moveaxis(made, 0, tensor.axis).astype(np.float32)


def _first_positions(classes: Sequence[str | _Special]) -> dict[str | _Special, int]:
    # as in Dictionary: should an entry stand twice, the first is the trained one
    return {c: i for i, c in reversed(list(enumerate(classes)))}
