"""Reads the figures measured on PaddleOCR and compares a model with them, for the parity tests of all kinds of models.

`check_*` return what is wrong as text, so that the same comparison can run over figures made with another fill.
"""

from __future__ import annotations

import json
import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import paddle

if TYPE_CHECKING:
    from collections.abc import Mapping

    from paddle import nn

FOLDER = Path(__file__).parent / "figures"
# The same checks run over models' figures that were made with another fill.
_MODELS = Path(os.environ.get("OCRFT_FIGURES", FOLDER))


@dataclass(frozen=True)
class Figures:
    """One model's figures: the `.json` and the arrays of the `.npz`."""

    name: str
    facts: dict[str, Any]
    arrays: dict[str, np.ndarray]

    @classmethod
    def load(cls, name: str, folder: Path = _MODELS) -> Figures:
        with np.load(folder / f"{name}.npz") as arrays:
            return cls(name, json.loads((folder / f"{name}.json").read_text()), dict(arrays))

    def batch(self) -> dict[str, paddle.Tensor]:
        """Everything that is neither the input nor an expected output."""
        return {k: paddle.to_tensor(v) for k, v in self.arrays.items() if "/" not in k and k != "input"}


def value(key: str, shape: list[int], *, fill: int = 0) -> np.ndarray:
    """The rule that fills a parameter or buffer, for a name and a shape; another `fill` gives other numbers.

    Variances are uniform in [0.5, 1.5], means normal with deviation 0.1; a vector is that around 1 for weights and
    scales and around 0 for others; anything else is normal over the root of its inputs.
    """
    seed = zlib.crc32(key.encode())
    rng = np.random.default_rng([fill, seed] if fill else seed)
    if key.endswith("._variance"):
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    if key.endswith("._mean"):
        return (0.1 * rng.standard_normal(shape)).astype(np.float32)
    if len(shape) <= 1:
        base = 1.0 if key.endswith(("weight", "scale")) else 0.0
        return (base + 0.1 * rng.standard_normal(shape)).astype(np.float32)
    fan_in = np.prod(shape[1:]) if len(shape) == 4 else shape[0]
    return (rng.standard_normal(shape) / np.sqrt(fan_in)).astype(np.float32)


def fill(model: nn.Layer, figures: Figures) -> None:
    """Fills a model by the rule, with the figures' `gain` and `set/` values where they have them."""
    state = model.state_dict()
    gain = figures.facts.get("gain", {})
    types = figures.facts["state_dict"]
    # In the model's own order: an LSTM has each parameter under two names, and the later one stays.
    for key in state:
        shape, dtype = types[key]
        if not dtype.startswith("float"):
            continue
        filled = figures.arrays.get(f"set/{key}")
        if filled is None:
            filled = value(key, shape, fill=figures.facts.get("fill", 0))
            if key in gain:
                filled = (filled * np.float32(gain[key])).astype(np.float32)
        state[key].set_value(paddle.to_tensor(filled))


def check_names(model: nn.Layer, figures: Figures) -> list[str]:
    """Names and shapes of parameters and buffers."""
    ours = {k: list(v.shape) for k, v in model.state_dict().items()}
    theirs = {k: list(shape) for k, (shape, _) in figures.facts["state_dict"].items()}
    problems = [f"missing: {k} {theirs[k]}" for k in theirs.keys() - ours.keys()]
    problems += [f"not in the figures: {k} {ours[k]}" for k in ours.keys() - theirs.keys()]
    problems += [f"{k}: {ours[k]} instead of {theirs[k]}" for k in ours.keys() & theirs.keys() if ours[k] != theirs[k]]
    return sorted(problems)


def check_eval(model: nn.Layer, figures: Figures, *, rtol: float = 1e-3, atol: float = 1e-4) -> list[str]:
    """The output in eval mode."""
    model.eval()
    with paddle.no_grad():
        output = model(paddle.to_tensor(figures.arrays["input"]))
    expected = {k.removeprefix("eval/"): v for k, v in figures.arrays.items() if k.startswith("eval/")}
    if not isinstance(output, dict):
        output = {next(iter(expected)): output}
    return _differences(output, expected, rtol=rtol, atol=atol)


def without_dropout(model: nn.Layer) -> None:
    """Switches every dropout off and leaves the model in training mode."""
    model.train()
    for layer in model.sublayers():
        if isinstance(layer, paddle.nn.Dropout):
            layer.p = 0.0
        elif isinstance(layer, paddle.nn.LSTM):
            layer.dropout = 0.0


def check_losses(losses: Mapping[str, paddle.Tensor], figures: Figures, *, rtol: float = 1e-3) -> list[str]:
    """Every loss value, and that there are no others."""
    expected = figures.facts["loss_values"]
    problems = [f"losses {sorted(losses)} instead of {sorted(expected)}"] if losses.keys() != expected.keys() else []
    ours = {key: float(losses[key]) for key in losses.keys() & expected.keys()}
    wrong = [key for key in ours if not np.isclose(ours[key], expected[key], rtol=rtol, atol=1e-4)]
    return problems + [f"{key}: {ours[key]} instead of {expected[key]}" for key in wrong]


def gradient_norms(model: nn.Layer) -> dict[str, float]:
    """L2 norm of each parameter's gradient; 0 for a parameter without one."""
    return {
        name: 0.0 if p.grad is None else float(np.linalg.norm(p.grad.numpy().astype(np.float64)))
        for name, p in model.named_parameters()
    }


def check_gradients(model: nn.Layer, figures: Figures, *, rtol: float = 1e-2, least: float = 1e-3) -> list[str]:
    """Every gradient norm above `least`."""
    ours = gradient_norms(model)
    problems = []
    for key, expected in figures.facts["grad_norm"].items():
        if key not in ours:
            problems.append(f"{key}: no such parameter")
        elif max(expected, ours[key]) > least and abs(ours[key] - expected) > rtol * expected:
            problems.append(f"{key}: gradient norm {ours[key]:.6g} instead of {expected:.6g}")
    return problems


def _differences(ours: Mapping[str, Any], expected: Mapping[str, np.ndarray], *, rtol: float, atol: float) -> list[str]:
    problems = [f"outputs {sorted(ours)} instead of {sorted(expected)}"] if ours.keys() != expected.keys() else []
    for key in ours.keys() & expected.keys():
        got = ours[key].numpy()
        if got.shape != expected[key].shape:
            problems.append(f"{key}: shape {got.shape} instead of {expected[key].shape}")
        elif not np.allclose(got, expected[key], rtol=rtol, atol=atol):
            problems.append(f"{key}: off by {np.abs(got - expected[key]).max():.3g}")
    return problems
