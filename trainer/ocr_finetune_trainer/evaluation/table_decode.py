"""From a table model's output to tokens, boxes and HTML."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ocr_finetune_trainer.data.table_labels import Vocabulary

__all__ = ["DecodedTable", "decode", "decode_target", "to_html"]


@dataclass(frozen=True, slots=True, eq=False)
class DecodedTable:
    """What a model reads.

    Attributes:
        structure: Tokens, cells merged if the vocabulary merges them.
        boxes: float32 (cells, numbers) in pixels of the picture, one for each token that begins a cell.
        score: Mean probability of the tokens; NaN for a structure without any.
    """

    structure: tuple[str, ...]
    boxes: NDArray[np.float32]
    score: float


def decode(
    probabilities: NDArray[np.float32],
    boxes: NDArray[np.float32],
    vocabulary: Vocabulary,
    *,
    frame: tuple[float, float],
) -> DecodedTable:
    """Decodes one sample.

    Args:
        probabilities: (steps, classes).
        boxes: (steps, numbers), parts of the frame.
        vocabulary: The tokens by class.
        frame: Width and height in pixels of the picture that the boxes are parts of.

    Returns:
        The tokens up to the first end; an end at the very first step is passed over, as PaddleOCR does.
    """
    classes = probabilities.argmax(axis=1)
    steps = _steps_before_end(classes, vocabulary)
    named = [step for step in steps if classes[step] not in (0, vocabulary.end)]
    cells = [step for step in named if int(classes[step]) in vocabulary.cell_classes]
    score = float(np.mean(probabilities.max(axis=1)[named])) if named else float("nan")
    return DecodedTable(
        structure=tuple(vocabulary.classes[classes[step]] for step in named),
        boxes=_in_pixels(boxes[cells], frame),
        score=score,
    )


def decode_target(
    structure: NDArray[np.int64],
    boxes: NDArray[np.float32],
    vocabulary: Vocabulary,
    *,
    frame: tuple[float, float],
) -> DecodedTable:
    """Decodes one sample's targets, to compare with.

    Args:
        structure: (L,): start, tokens, end, padding.
        boxes: (L, numbers), parts of the frame; boxes that are all 0 are no boxes.
        vocabulary: The tokens by class.
        frame: As for `decode`.
    """
    steps = _steps_before_end(structure, vocabulary)
    named = [step for step in steps if structure[step] not in (0, vocabulary.end)]
    boxed = [step for step in named if boxes[step].sum() != 0]
    return DecodedTable(
        structure=tuple(vocabulary.classes[structure[step]] for step in named),
        boxes=_in_pixels(boxes[boxed], frame),
        score=float("nan"),
    )


def _steps_before_end(classes: NDArray[np.int64], vocabulary: Vocabulary) -> range:
    ends = np.flatnonzero(classes[1:] == vocabulary.end)
    return range(int(ends[0]) + 1 if len(ends) else len(classes))


def _in_pixels(boxes: NDArray[np.float32], frame: tuple[float, float]) -> NDArray[np.float32]:
    scaled = boxes.astype(np.float32, copy=True)
    scaled[:, 0::2] *= frame[0]
    scaled[:, 1::2] *= frame[1]
    return scaled


def to_html(structure: Sequence[str], texts: Sequence[str] = ()) -> str:
    """A whole HTML table from tokens.

    Args:
        structure: Tokens, cells merged or not.
        texts: The text of each cell in reading order, already HTML; cells beyond the last are empty.

    Returns:
        `<table>…</table>`.
    """
    remaining = iter(texts)
    parts = ["<table>"]
    for token in structure:
        if token == "<td></td>":  # noqa: S105 - HTML, not a password
            parts.append(f"<td>{next(remaining, '')}</td>")
        elif token == "</td>":  # noqa: S105
            parts.append(f"{next(remaining, '')}</td>")
        else:
            parts.append(token)
    return "".join([*parts, "</table>"])
