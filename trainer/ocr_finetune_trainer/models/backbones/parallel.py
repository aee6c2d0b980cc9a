"""Sums of parallel convolutions that see the same input, computed without running each one; exact, only cheaper.

In training every branch of such a sum has its own batch normalisation, so the branches can't simply be added up: each
needs the mean and variance of its own output. Two observations save most of the work on a CPU:

- A depth-wise branch is cheap; what costs is laying out the patches of the input. One convolution with several
  outputs a channel lays them out once for all branches.
- The statistics of a 1×1 convolution `W` follow from those of its input: the mean is `W m`, the variance the diagonal
  of `W C Wᵀ`, where `m` and `C` are the input's mean and covariance over samples and places. With them the branches
  fold into one kernel before anything large is computed. That takes two products of the size of the picture instead of
  one a branch, and keeps no branch's output in memory.
"""

# Paddle has no public names for the statistics of a batch normalisation.
# ruff: noqa: SLF001

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import paddle
from paddle import nn
from paddle.autograd import PyLayer
from paddle.nn import functional

if TYPE_CHECKING:
    from collections.abc import Sequence

    from paddle import Tensor

    from ocr_finetune_trainer.models.common import ConvNorm, Stride


def measures(norm: nn.BatchNorm2D) -> bool:
    """Whether a batch normalisation takes its statistics from the batch, and not from training so far."""
    return bool(norm.training and not norm._use_global_stats)


def folded(norm: nn.BatchNorm2D) -> tuple[Tensor, Tensor]:
    """The running statistics as a factor (C,) of what comes in, and a bias (C,)."""
    factor = norm.weight / paddle.sqrt(norm._variance + norm._epsilon)
    return factor, norm.bias - norm._mean * factor


def depthwise_sum(x: Tensor, branches: Sequence[ConvNorm], *, kernel: int, stride: Stride) -> Tensor:
    """The sum of depth-wise convolutions with their batch normalisations, in training.

    Args:
        x: (N, C, H, W).
        branches: Convolutions of one kernel a channel, of side `kernel` or smaller, with the same stride.
        kernel: Side of the largest kernel.
        stride: Their stride.

    Returns:
        (N, C, H', W'). The running statistics of each branch move on.
    """
    channels, count = x.shape[1], len(branches)
    weights = [_grown(branch.conv.weight, kernel) for branch in branches]
    norms = [branch.bn for branch in branches]

    def together(name: str) -> Tensor:
        return paddle.stack([getattr(norm, name) for norm in norms], axis=1).reshape([-1])

    y = functional.conv2d(
        x,
        paddle.stack(weights, axis=1).reshape([channels * count, 1, kernel, kernel]),
        stride=stride,
        padding=kernel // 2,
        groups=channels,
    )
    mean, variance = together("_mean").detach(), together("_variance").detach()
    y = functional.batch_norm(
        y,
        mean,
        variance,
        together("weight"),
        together("bias"),
        training=True,
        momentum=norms[0]._momentum,
        epsilon=norms[0]._epsilon,
    )
    with paddle.no_grad():
        for norm, m, v in zip(
            norms, mean.reshape([channels, count]).T, variance.reshape([channels, count]).T, strict=True
        ):
            paddle.assign(m, norm._mean)
            paddle.assign(v, norm._variance)
    return y.reshape([0, channels, count, y.shape[2], y.shape[3]]).sum(axis=2)


def pointwise_sum(x: Tensor, branches: Sequence[ConvNorm], identity: nn.BatchNorm2D | None) -> Tensor:
    """The sum of 1×1 convolutions, and perhaps the input itself, with their batch normalisations, in training.

    Args:
        x: (N, C, H, W).
        branches: 1×1 convolutions to the same number of channels.
        identity: The normalisation of the input, if it is added too.

    Returns:
        (N, C', H, W). The running statistics of each branch move on.
    """
    channels = x.shape[1]
    mean, covariance = _Covariance.apply(x)
    kernels, biases = [], []
    for branch in branches:
        weight = branch.conv.weight.reshape([-1, channels])
        centre = paddle.mv(weight, mean)
        variance = (paddle.matmul(weight, covariance) * weight).sum(axis=1)
        factor = branch.bn.weight * paddle.rsqrt(variance + branch.bn._epsilon)
        kernels.append(weight * factor.unsqueeze(1))
        biases.append(branch.bn.bias - factor * centre)
        _move_on(branch.bn, centre, variance)
    if identity is not None:
        variance = paddle.diagonal(covariance)
        factor = identity.weight * paddle.rsqrt(variance + identity._epsilon)
        kernels.append(paddle.diag(factor))
        biases.append(identity.bias - factor * mean)
        _move_on(identity, mean, variance)
    kernel = paddle.add_n(kernels)
    return functional.conv2d(x, kernel.reshape([*kernel.shape, 1, 1]), paddle.add_n(biases))


class _Covariance(PyLayer):  # type: ignore[misc]
    """Mean (C,) and covariance (C, C) of the channels over samples and places.

    Its own gradient, because what autograd makes of the same formula multiplies twice and keeps a copy of the input.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(x)
        channels = x.shape[1]
        flat = x.transpose([1, 0, 2, 3]).reshape([channels, -1])
        mean = flat.mean(axis=1)
        # centred first: the difference of two large sums would lose what is small
        flat = flat - mean.unsqueeze(1)
        return mean, paddle.matmul(flat, flat, transpose_y=True) / flat.shape[1]

    @staticmethod
    def backward(ctx: Any, mean_gradient: Tensor, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensor()
        channels = x.shape[1]
        places = x.shape[0] * x.shape[2] * x.shape[3]
        symmetric = (gradient + gradient.T) / places
        offset = mean_gradient / places - paddle.mv(symmetric, x.mean(axis=[0, 2, 3]))
        return functional.conv2d(x, symmetric.reshape([channels, channels, 1, 1]), offset)


@paddle.no_grad()
def _move_on(norm: nn.BatchNorm2D, mean: Tensor, variance: Tensor) -> None:
    share = norm._momentum
    paddle.assign(share * norm._mean + (1 - share) * mean, norm._mean)
    paddle.assign(share * norm._variance + (1 - share) * variance, norm._variance)


def _grown(weight: Tensor, kernel: int) -> Tensor:
    # (C, 1, k, k) to (C, 1, kernel, kernel) with zeros around
    border = (kernel - weight.shape[2]) // 2
    return functional.pad(weight, [border] * 4) if border else weight
