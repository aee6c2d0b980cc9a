"""SLANet_small: our smallest table model, trained from scratch on a CPU in minutes.

It is SLANet with a backbone of half the width that looks at a picture of 192 pixels, and two changes that let it learn
from thousands of tables instead of hundreds of thousands. Its decoder reads the map at a sixteenth of the picture
instead of a thirty-second, and knows of every vector where it lies; SLANet has to learn that from the zeros that pad
its convolutions. And it also reads the means of the map's columns and rows, in which a table's rules stand out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import paddle

from ocr_finetune_trainer.models.heads.sla import SLAHead
from ocr_finetune_trainer.models.table import TableModel

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from paddle import Tensor

    from ocr_finetune_trainer.losses import Loss

_FREQUENCIES = (1, 2, 4, 8)  # half periods over the picture
_NUMBERS = 1 + 2 * len(_FREQUENCIES)  # that describe a place on one axis
_KINDS = 2  # a column's mean, a row's mean; a place of the map is neither


def _axis(size: int) -> NDArray[np.float32]:
    """Places along an axis: how far, as sines and cosines too; (numbers, size)."""
    far = (np.arange(size) + 0.5) / size
    waves = [wave(np.pi * frequency * far) for frequency in _FREQUENCIES for wave in (np.sin, np.cos)]
    return np.asarray([far, *waves], dtype=np.float32)


def _places(height: int, width: int) -> NDArray[np.float32]:
    """What is added to the map, to its columns' means and to its rows' means, in this order: (numbers, places)."""
    down, across = _axis(height), _axis(width)
    everywhere = np.zeros((2 * _NUMBERS + _KINDS, height, width), dtype=np.float32)
    everywhere[:_NUMBERS] = down[:, :, None]
    everywhere[_NUMBERS : 2 * _NUMBERS] = across[:, None, :]
    columns = np.zeros((2 * _NUMBERS + _KINDS, width), dtype=np.float32)
    columns[_NUMBERS : 2 * _NUMBERS], columns[-2] = across, 1.0
    rows = np.zeros((2 * _NUMBERS + _KINDS, height), dtype=np.float32)
    rows[:_NUMBERS], rows[-1] = down, 1.0
    return np.concatenate([everywhere.reshape(len(everywhere), -1), columns, rows], axis=1)


class SmallTableModel(TableModel):
    """See the module."""

    def __init__(self) -> None:
        super().__init__(classes=30, box_numbers=4, scale=0.5, level=2)
        channels = self.neck.out_channels + 2 * _NUMBERS + _KINDS
        self.head = SLAHead(channels, classes=30, box_numbers=4)

    def features(self, x: Tensor) -> Tensor:
        """(N, channels, places, 1): the map, its columns' means, its rows' means, each with its place."""
        found = super().features(x)
        height, width = found.shape[2:]
        seen = paddle.concat([found.flatten(2), found.mean(axis=2), found.mean(axis=3)], axis=2)
        places = paddle.to_tensor(_places(height, width)).unsqueeze(0)
        return paddle.concat([seen, places + paddle.zeros_like(seen[:, :1])], axis=1).unsqueeze(-1)


def build(*, characters: int, guided: bool) -> TableModel:  # noqa: ARG001 - the vocabulary is fixed, no branch is guided
    """Builds the model; input (N, 3, 192, 192)."""
    return SmallTableModel()


def build_loss(*, guided: bool) -> Loss:  # noqa: ARG001 - there is no guided branch
    """Structure and box loss."""
    from ocr_finetune_trainer.losses.table import TableLoss

    return TableLoss()
