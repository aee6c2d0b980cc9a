"""From a feature map of height 1 to a sequence, and encoders that let its frames see each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paddle import nn

if TYPE_CHECKING:
    from paddle import Tensor


def to_sequence(x: Tensor) -> Tensor:
    """Turns a feature map (N, C, 1, W) into a sequence (N, W, C)."""
    return x.squeeze(2).transpose([0, 2, 1])


class Reshape(nn.Layer):
    """The neck that only reshapes; the frames see no more than the backbone shows them.

    Args:
        in_channels: Channels of the feature map.
    """

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.out_channels = in_channels

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, 1, W) to (N, W, C)."""
        return to_sequence(x)


class _BidirectionalLSTM(nn.Layer):
    def __init__(self, in_channels: int, hidden: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(in_channels, hidden, num_layers=2, direction="bidirectional")

    def forward(self, x: Tensor) -> Tensor:
        return self.lstm(x)[0]


class LSTMNeck(nn.Layer):
    """Two bidirectional LSTM layers, as in CRNN (https://arxiv.org/abs/1507.05717); parameters `encoder.lstm.*`.

    Args:
        in_channels: Channels of the feature map.
        hidden: Units of each direction.
    """

    def __init__(self, in_channels: int, *, hidden: int) -> None:
        super().__init__()
        self.encoder = _BidirectionalLSTM(in_channels, hidden)
        self.out_channels = 2 * hidden

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, 1, W) to (N, W, 2 * hidden)."""
        return self.encoder(to_sequence(x))
