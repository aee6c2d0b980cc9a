"""The optimizer: which parameters it changes, how fast each, and its state under names that mean something.

Paddle keys the state of its optimizers by names from a global counter (`linear_0.w_0_moment1_0`). As soon as a second
model exists in the process (a base model, an average) the numbers differ, and loading such a state gives no warning.
So the state goes in and out under the structured names of the parameters here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import paddle
from paddle import nn

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Optimizer", "Parameter", "stages", "trainable"]

_NORMS = (
    nn.BatchNorm1D,
    nn.BatchNorm2D,
    nn.BatchNorm3D,
    nn.SyncBatchNorm,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.InstanceNorm2D,
)
# `blocks.3`, `blocks3`, `stage2`, `stages.1`, `bb_0_2`: what the backbones call their stages; anything else, such as a
# stem or a last convolution, is one by its own name.
_STAGE = re.compile(r"^backbone\.((?:bb_\d+)|(?:[a-z_]+\.?\d+)|(?:[^.]+))")


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """A parameter as the optimizer sees it.

    Attributes:
        name: Its structured name in the model.
        tensor: The parameter.
        decays: Whether weight decay applies: not to norms, biases and other vectors.
        rate: Its factor of the learning rate.
    """

    name: str
    tensor: Any
    decays: bool
    rate: float


def trainable(model: nn.Layer, *, layer_decay: float = 1.0, head_rate: float = 1.0) -> list[Parameter]:
    """The parameters of a model that are trained, in the model's order.

    Args:
        model: The model; parameters with `stop_gradient` are frozen and left out.
        layer_decay: Factor of the rate from one stage of the backbone to the one below it.
        head_rate: Factor of the rate of the head, for one that was made new.
    """
    norms = {
        id(parameter)
        for layer in model.sublayers(include_self=True)
        if isinstance(layer, _NORMS)
        for parameter in layer.parameters(include_sublayers=False)
    }
    depth = stages(name for name, _ in model.named_parameters())
    deepest = max(depth.values(), default=0)
    found = []
    for name, tensor in model.named_parameters():
        if tensor.stop_gradient:
            continue
        rate = float(tensor.optimize_attr.get("learning_rate", 1.0))
        if name in depth:
            rate *= layer_decay ** (deepest - depth[name] + 1)
        if name.startswith("head."):
            rate *= head_rate
        found.append(Parameter(name=name, tensor=tensor, decays=tensor.ndim > 1 and id(tensor) not in norms, rate=rate))
    return found


def stages(names: Iterable[str]) -> dict[str, int]:
    """Which stage of the backbone each of its parameters belongs to: 0 for the stem, rising to its end.

    Args:
        names: Structured names of all parameters in the model's order, which is the order in which data passes.
    """
    order: dict[str, int] = {}
    depth = {}
    for name in names:
        match = _STAGE.match(name)
        if match:
            depth[name] = order.setdefault(match.group(1), len(order))
    return depth


class Optimizer:
    """AdamW (https://arxiv.org/abs/1711.05101) over groups, with clipping by the norm of all gradients.

    Attributes:
        parameters: What it changes.
    """

    def __init__(
        self,
        parameters: list[Parameter],
        *,
        weight_decay: float,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
    ) -> None:
        """Takes over the parameters: their own regularisation is replaced by decoupled decay.

        Args:
            parameters: What to change.
            weight_decay: Decay of the parameters that decay.
            beta1: Decay of the mean of gradients.
            beta2: Decay of their mean square.
            epsilon: Keeps the quotient of both finite.
        """
        self.parameters = parameters
        decayed = {parameter.tensor.name for parameter in parameters if parameter.decays}
        for parameter in parameters:
            parameter.tensor.regularizer = None
            parameter.tensor.optimize_attr["learning_rate"] = parameter.rate
        self._inner = paddle.optimizer.AdamW(
            learning_rate=0.0,
            parameters=[parameter.tensor for parameter in parameters],
            beta1=beta1,
            beta2=beta2,
            epsilon=epsilon,
            weight_decay=weight_decay,
            apply_decay_param_fun=decayed.__contains__,
            multi_precision=False,
        )
        self._names = {parameter.tensor.name: parameter.name for parameter in parameters}
        self._make_moments()

    def _make_moments(self) -> None:
        """Makes the moments now: Paddle would do it in the first step, under names that count earlier optimizers."""
        block = paddle.base.framework.default_main_program().global_block()
        with paddle.utils.unique_name.guard():
            self._inner._create_accumulators(block, [parameter.tensor for parameter in self.parameters])  # noqa: SLF001

    def gradients(self) -> list[Any]:
        """The gradients that exist, in the order of the parameters."""
        return [p.tensor.grad for p in self.parameters if p.tensor.grad is not None]

    def step(self, rate: float) -> None:
        """Changes the parameters by their gradients, and clears these."""
        self._inner.set_lr(rate)
        self._inner.step()
        self.clear()

    def clear(self) -> None:
        """Forgets the gradients."""
        self._inner.clear_grad(set_to_zero=False)

    def state(self) -> dict[str, Any]:
        """The moments as tensors, named `<structured name>/<moment>`."""
        return {
            f"{self._names[parameter]}/{kind}": value
            for parameter, kind, value in _split(self._inner.state_dict(), self._names)
        }

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Takes a state over.

        Args:
            state: What `state` gave, as arrays. Parameters it does not name begin with fresh moments.
        """
        tensors = self._inner.state_dict()
        values = dict(tensors)
        for parameter, kind, _ in list(_split(tensors, self._names)):
            value = state.get(f"{self._names[parameter]}/{kind}")
            if value is not None:
                values[f"{parameter}_{kind}"] = paddle.to_tensor(np.ascontiguousarray(value))
        self._inner.set_state_dict(values)


def _split(state: Mapping[str, Any], names: Mapping[str, str]) -> Iterator[tuple[str, str, Any]]:
    """Takes Paddle's keys `<parameter>_<moment>` apart; parameter names may begin with each other."""
    for key, value in state.items():
        end = len(key)
        # The longest beginning that is a parameter's name.
        while (end := key.rfind("_", 0, end)) > 0:
            if key[:end] in names:
                yield key[:end], key[end + 1 :], value
                break
