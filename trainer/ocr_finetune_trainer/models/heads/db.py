"""The heads of DB detectors (https://arxiv.org/abs/1911.08947): a quarter-size map to probability maps of full size."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import paddle
from paddle import nn

from ocr_finetune_trainer.models.common import ConvNorm, relu
from ocr_finetune_trainer.models.necks.fpn import upsample

if TYPE_CHECKING:
    from paddle import Tensor

# The slope of the differentiable step, k in equation 2 of the paper and in PaddleOCR.
STEP_SLOPE = 50.0


def _upconv(in_channels: int, out_channels: int) -> nn.Conv2DTranspose:
    spread = 1.0 / math.sqrt(in_channels)
    return nn.Conv2DTranspose(
        in_channels,
        out_channels,
        kernel_size=2,
        stride=2,
        weight_attr=paddle.ParamAttr(initializer=nn.initializer.KaimingUniform()),
        bias_attr=paddle.ParamAttr(initializer=nn.initializer.Uniform(-spread, spread)),
    )


def _norm(channels: int) -> nn.BatchNorm2D:
    return nn.BatchNorm2D(channels, bias_attr=paddle.ParamAttr(initializer=nn.initializer.Constant(1e-4)))


class MapBranch(nn.Layer):
    """One map of the page's size from a map of a quarter of it; parameters `conv1` to `conv3`, `conv_bn1`, `conv_bn2`.

    Args:
        in_channels: Channels of the input; a multiple of 4.
    """

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        inner = in_channels // 4
        self.conv1 = nn.Conv2D(in_channels, inner, 3, padding=1, bias_attr=False)
        self.conv_bn1 = _norm(inner)
        self.conv2 = _upconv(inner, inner)
        self.conv_bn2 = _norm(inner)
        self.conv3 = _upconv(inner, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Makes the map and what it was made from.

        Args:
            x: (N, in_channels, H, W).

        Returns:
            The map (N, 1, 4H, 4W), float32 in [0, 1], and the features (N, in_channels / 4, 2H, 2W) it was made from.
        """
        x = relu(self.conv_bn1(self.conv1(x)))
        features = relu(self.conv_bn2(self.conv2(x)))
        # Under mixed precision the map itself stays in float32: a step of slope 50 has no room in 16 bits.
        return nn.functional.sigmoid(self.conv3(features).astype("float32")), features


def soft_step(shrink: Tensor, threshold: Tensor, *, slope: float = STEP_SLOPE) -> Tensor:
    """The approximate binary map: near 1 where `shrink` is over `threshold`. All (N, 1, H, W)."""
    return nn.functional.sigmoid(slope * (shrink - threshold))


class DBHead(nn.Layer):
    """Shrink, threshold and binary map; parameters `binarize.*`, `thresh.*`.

    Args:
        in_channels: Channels of the pyramid's output.

    Attributes:
        step_slope: Slope of the step that makes the binary map, in training only.
    """

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.step_slope = STEP_SLOPE
        self.binarize = MapBranch(in_channels)
        self.thresh = MapBranch(in_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the shrink map (N, 1, 4H, 4W)."""
        return self.binarize(x)[0]

    def train_forward(self, x: Tensor) -> dict[str, Tensor]:
        """(N, C, H, W) to `maps` (N, 3, 4H, 4W): shrink, threshold and binary map."""
        shrink, threshold = self.binarize(x)[0], self.thresh(x)[0]
        binary = soft_step(shrink, threshold, slope=self.step_slope)
        return {"maps": paddle.concat([shrink, threshold, binary], axis=1)}


class LocalRefinement(nn.Layer):
    """Corrects a map by features of its own size; parameters `last_3.*`, `last_1.*`.

    Args:
        channels: Channels of the features.
        inner: Channels of the hidden layer.
    """

    def __init__(self, channels: int, *, inner: int) -> None:
        super().__init__()
        self.last_3 = ConvNorm(channels + 1, inner, kernel=3, activation=nn.ReLU())
        self.last_1 = nn.Conv2D(inner, 1, 1)

    def forward(self, features: Tensor, first_map: Tensor) -> Tensor:
        """(N, channels, H, W) and (N, 1, H, W) to (N, 1, H, W), float32 in [0, 1]."""
        joined = paddle.concat([first_map.astype(features.dtype), features], axis=1)
        return nn.functional.sigmoid(self.last_1(self.last_3(joined)).astype("float32"))


class PFHeadLocal(DBHead):
    """DB's head with a refined shrink map, of the server models; parameters as `DBHead` and `cbn_layer.*`.

    Args:
        in_channels: Channels of the pyramid's output.
        inner: Channels inside the refinement; a quarter of `in_channels` in the "large" mode of the server models.
    """

    def __init__(self, in_channels: int, *, inner: int) -> None:
        super().__init__(in_channels)
        self.cbn_layer = LocalRefinement(in_channels // 4, inner=inner)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the mean of the shrink map and its refinement (N, 1, 4H, 4W)."""
        shrink, refined = self._refine(x)
        return 0.5 * (shrink + refined)

    def train_forward(self, x: Tensor) -> dict[str, Tensor]:
        """(N, C, H, W) to three entries.

        `maps` (N, 3, 4H, 4W) are the refined shrink map, the threshold map and the binary map made from the shrink map
        before refinement; `distance_maps` is the refined map and `cbn_maps` the binary map, each (N, 1, 4H, 4W), under
        the names that PaddleOCR's loss knows.
        """
        shrink, refined = self._refine(x)
        threshold = self.thresh(x)[0]
        binary = soft_step(shrink, threshold, slope=self.step_slope)
        return {
            "maps": paddle.concat([refined, threshold, binary], axis=1),
            "distance_maps": refined,
            "cbn_maps": binary,
        }

    def _refine(self, x: Tensor) -> tuple[Tensor, Tensor]:
        shrink, features = self.binarize(x)
        enlarged = upsample(features, 2)
        return shrink, self.cbn_layer(enlarged, shrink)
