"""SLANet_small: our smallest table model, trained from scratch on a CPU in a minute or two.

It says the same as SLANet, tokens with a box for each cell, of a picture of 160 pixels, but it is built to learn from
thousands of tables instead of hundreds of thousands. Columns and rows are read from the means of the feature map over
the height and the width, in which rules and gaps stand out, by recurrent units that count. What they know goes back into
the map, where a rule that is missing at one place shows that a cell spans two. The decoder is `heads.prefix`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import paddle
from paddle import nn
from paddle.nn import functional as F

from ocr_finetune_trainer.models.common import ConvNorm
from ocr_finetune_trainer.models.heads.prefix import PrefixHead
from ocr_finetune_trainer.models.table import TableModel

if TYPE_CHECKING:
    from paddle import Tensor

    from ocr_finetune_trainer.losses import Loss

_CHANNELS = (8, 16, 32, 48)  # at 1/2, 1/4, 1/8 and 1/16 of the picture's size
_PLACE = 96


def _convolution(in_channels: int, out_channels: int, *, stride: int) -> ConvNorm:
    return ConvNorm(in_channels, out_channels, kernel=3, stride=stride, activation=nn.ReLU())


class _Profile(nn.Layer):
    """What lies along one axis: the means over the other axis, counted from both ends.

    Args:
        axis: The axis of a map (N, C, H, W) that is averaged away: 2 leaves columns, 3 leaves rows.
    """

    def __init__(self, axis: int) -> None:
        super().__init__()
        self.axis = axis
        self.pair = nn.Linear(_CHANNELS[1], _CHANNELS[2])
        self.count = nn.GRU(3 * _CHANNELS[2], _PLACE // 2, direction="bidirect")

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """Maps at 1/4 (N, C, h, w) and 1/8 (N, C', h/2, w/2) to the places of the coarse axis (N, T, place)."""
        pairs = F.relu(self.pair(fine.mean(axis=self.axis).transpose([0, 2, 1])))
        pairs = pairs.reshape([0, pairs.shape[1] // 2, 2 * _CHANNELS[2]])
        means = coarse.mean(axis=self.axis).transpose([0, 2, 1])
        places: Tensor = self.count(paddle.concat([pairs, means], axis=-1))[0]
        return places


class _Places(nn.Layer):
    """A picture as a sequence of places: its map, its columns, its rows."""

    out_channels = _PLACE

    def __init__(self) -> None:
        super().__init__()
        half, quarter, eighth, sixteenth = _CHANNELS
        self.stem = nn.Sequential(_convolution(3, half, stride=2), _convolution(half, quarter, stride=2))
        self.body = nn.Sequential(_convolution(quarter, eighth, stride=2), _convolution(eighth, eighth, stride=1))
        self.columns, self.rows = _Profile(2), _Profile(3)
        self.column_back, self.row_back = nn.Linear(_PLACE, eighth), nn.Linear(_PLACE, eighth)
        self.last = _convolution(eighth, sixteenth, stride=2)
        self.place = nn.Linear(sixteenth, _PLACE)

    def forward(self, x: Tensor) -> Tensor:
        """Pictures (N, 3, H, W) to places (N, H·W/256 + W/8 + H/8, place)."""
        fine = self.stem(x)
        coarse = self.body(fine)
        columns, rows = self.columns(fine, coarse), self.rows(fine, coarse)
        known = self.column_back(columns).transpose([0, 2, 1]).unsqueeze(2)
        known = known + self.row_back(rows).transpose([0, 2, 1]).unsqueeze(3)
        found = self.place(self.last(F.relu(coarse + known)).transpose([0, 2, 3, 1]))
        found = F.relu(found + _halved(columns).unsqueeze(1) + _halved(rows).unsqueeze(2))
        return paddle.concat([found.flatten(1, 2), columns, rows], axis=1)


def _halved(places: Tensor) -> Tensor:
    """The mean of each two of (N, T, place): (N, T/2, place)."""
    return places.reshape([0, places.shape[1] // 2, 2, _PLACE]).mean(axis=2)


class SmallTableModel(TableModel):
    """See the module; parameters `backbone.*`, `head.*`."""

    def __init__(self, *, classes: int, box_numbers: int) -> None:
        super().__init__(PrefixHead(_PLACE, classes=classes, box_numbers=box_numbers))
        self.backbone = _Places()

    def features(self, x: Tensor) -> Tensor:
        """Places (N, T, channels) of pictures (N, 3, H, W)."""
        places: Tensor = self.backbone(x)
        return places


def build(*, characters: int, guided: bool) -> TableModel:  # noqa: ARG001 - the vocabulary is fixed, no branch is guided
    """Builds the model; input (N, 3, 160, 160)."""
    return SmallTableModel(classes=30, box_numbers=4)


def build_loss(*, guided: bool) -> Loss:  # noqa: ARG001 - there is no guided branch
    """Structure and box loss."""
    from ocr_finetune_trainer.losses.table import TableLoss

    return TableLoss()
