"""Which values of a model eight bits ruin."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["noise_of_values", "signal_to_noise"]


def noise_of_values(path: Path, quantized: Path, *, inputs: Sequence[NDArray[np.float32]]) -> dict[str, float]:
    """How much of each value survives eight bits, in dB, by its name in the float model; the worst input counts.

    Values are taken from the float model: behind a layer that eight bits have ruined, all others would look fine.

    Args:
        path: The float model.
        quantized: The same with `QuantizeLinear` wherever values could be quantised.
        inputs: Inputs (N, 3, H, W).
    """
    import onnx
    import onnxruntime
    from onnx import numpy_helper

    graph = onnx.load(str(quantized)).graph
    numbers = {value.name: value for value in graph.initializer}
    steps = {
        node.input[0]: tuple(numpy_helper.to_array(numbers[name]) for name in node.input[1:3])
        for node in graph.node
        if node.op_type == "QuantizeLinear" and node.input[1] in numbers
    }
    model = onnx.load(str(path))
    made = {output for node in model.graph.node for output in node.output}
    names = [name for name in steps if name in made]
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    entry = session.get_inputs()[0].name
    worst: dict[str, float] = {}
    for batch in inputs:
        for name, values in zip(names, session.run(names, {entry: batch}), strict=True):
            scale, zero = steps[name]
            stored = np.clip(np.round(values / scale) + float(zero), 0, 255)
            ratio = signal_to_noise(values, (stored - float(zero)) * scale)
            worst[name] = min(worst.get(name, math.inf), ratio)
    return worst


def signal_to_noise(before: NDArray[np.float32], after: NDArray[np.float32]) -> float:
    """How much of a value survives, in dB: the median over its channels.

    A single channel with huge values would outweigh all others in one ratio over the whole, and just that is what ruins
    them: eight bits are shared by all channels. What a channel has in every place says nothing, so it is no signal.

    Args:
        before: (N, C, H, W), or channels last with fewer dimensions.
        after: The same through eight bits.
    """
    channels = 1 if before.ndim == 4 else before.ndim - 1
    others = tuple(axis for axis in range(before.ndim) if axis != channels)
    signal = before.astype(np.float64).var(axis=others)
    noise = ((before.astype(np.float64) - after) ** 2).mean(axis=others)
    alive = signal > 0
    if not alive.any():
        return math.inf
    return float(np.median(10 * np.log10(signal[alive] / np.maximum(noise[alive], 1e-30))))
