"""The moving average of a model's weights: what is evaluated, kept as best and exported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import paddle

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from paddle import nn

__all__ = ["Average", "HostCopy", "buffers", "floats", "load", "to_arrays"]

_STATISTICS = ("._mean", "._variance")


class Average:
    """An exponential moving average of parameters and float buffers.

    Its first steps weigh more (`(1 + t) / (10 + t)`), or it would long remember where training began.

    Attributes:
        model: The average, a model of its own.
    """

    def __init__(self, model: nn.Layer, *, of: nn.Layer, decay: float) -> None:
        """Begins as a copy.

        Args:
            model: A model of the same kind, whose values are overwritten.
            of: What is averaged.
            decay: Part of the average that each step keeps.
        """
        self.model = model
        self._decay = decay
        load(model, of.state_dict())
        theirs = of.state_dict()
        self._pairs = [(mine, theirs[name]) for name, mine in floats(model).items()]

    def update(self, step: int) -> None:
        """Takes the weights after step `step` (from 1) in."""
        decay = min(self._decay, (1 + step) / (10 + step))
        with paddle.no_grad():
            for mine, theirs in self._pairs:
                mine.lerp_(theirs.astype(mine.dtype), 1 - decay)


def floats(model: nn.Layer) -> dict[str, Any]:
    """Parameters and buffers of floating point, by structured name; one with two names, as in an LSTM, stands once."""
    found: dict[int, tuple[str, Any]] = {}
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            found.setdefault(id(value), (name, value))
    return dict(found.values())


def buffers(model: nn.Layer) -> dict[str, Any]:
    """The statistics of batch norms, by structured name; Paddle counts them among the parameters."""
    others = {name for name, _ in model.named_buffers()}
    return {name: value for name, value in floats(model).items() if name.endswith(_STATISTICS) or name in others}


def load(model: nn.Layer, values: Mapping[str, Any]) -> None:
    """Writes parameters and buffers into a model.

    Args:
        model: The model.
        values: Arrays or tensors by structured name; every name of the model must be there.

    Raises:
        KeyError: One is missing.
    """
    with paddle.no_grad():
        for name, target in model.state_dict().items():
            target.set_value(values[name])


class HostCopy:
    """Copies of tensors in memory that is used again each time: fresh memory costs more than the copy itself."""

    def __init__(self) -> None:
        self._arrays: dict[str, NDArray[Any]] = {}

    def of(self, values: Mapping[str, Any], *, prefix: str) -> dict[str, NDArray[Any]]:
        """Copies tensors; the arrays hold their values until the next call with the same prefix.

        Args:
            values: Tensors by name.
            prefix: Tells sets of tensors with the same names apart.
        """
        copies = {}
        for name, value in values.items():
            view = _view(value)
            target = self._arrays.get(f"{prefix}/{name}")
            if target is None or target.shape != view.shape or target.dtype != view.dtype:
                target = self._arrays[f"{prefix}/{name}"] = np.empty(view.shape, view.dtype)
            np.copyto(target, view)
            copies[name] = target
        return copies


def _view(value: Any) -> NDArray[Any]:
    """A tensor's values, without a copy where it lies on the host."""
    if value.place.is_cpu_place() and value.dtype in (paddle.float32, paddle.float64, paddle.int64, paddle.int32):
        return np.from_dlpack(value.detach())
    array: NDArray[Any] = value.numpy()
    return array


def to_arrays(values: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """Copies tensors to the host."""
    return {name: np.ascontiguousarray(value.numpy()) for name, value in values.items()}
