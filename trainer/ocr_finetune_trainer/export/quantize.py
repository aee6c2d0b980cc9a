"""Smaller ONNX models: int8 by onnxruntime's static quantisation, and fp16.

A recogniser that is quantised whole can lose a third of its accuracy, and most of that in a few layers. So the first
layer, the head and attention keep float activations from the start, and of the rest those whose values suffer most are
left in float, in growing numbers, until the metric on the validation set is kept. What stays in float still has its
weights stored in eight bits where that costs nothing, because most of a file is weights.
"""

from __future__ import annotations

import contextlib
import logging
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ocr_finetune_trainer.export.sensitivity import noise_of_values

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Quantized", "quantize_int8", "to_fp16"]

logger = logging.getLogger(__name__)

QUANTIZED = ("Conv", "ConvTranspose", "MatMul", "Gemm")
# Parts of the quantisable layers that are left in float, one after the other; 1 leaves only weights in eight bits.
LEVELS = (0.0, 0.05, 0.1, 0.2, 0.35, 0.6, 1.0)
LEAST_WEIGHTS = 1024
WANTED_RATIO = 0.35
_DEBUG_SAMPLES = 4
_NAMED = 12

Batches = Sequence["NDArray[np.float32]"]


@dataclass(frozen=True, kw_only=True)
class Quantized:
    """What quantisation came to.

    Attributes:
        drop: Loss of the metric on the set that chose the layers.
        within: Whether that is as little as was allowed, and the file was accepted.
        in_float: Layers with float activations, each with the reason.
        layers: Layers that could be quantised.
        weights_only: Whether only weights are in eight bits, so that the file is smaller but not faster.
        tried: Layers left in float and drop of each attempt.
        size: Bytes of the file.
        float_size: Bytes of the float model.
        seconds: How long it took.
        float_bytes: Bytes of larger weights that are stored as float, by the operator that uses them.
    """

    drop: float
    within: bool
    in_float: Mapping[str, str]
    layers: int
    weights_only: bool
    tried: tuple[tuple[int, float], ...]
    size: int
    float_size: int
    seconds: float
    float_bytes: Mapping[str, int]

    @property
    def ratio(self) -> float:
        """Size as a part of the float model's."""
        return self.size / max(self.float_size, 1)

    def note(self) -> str:
        """What was done, in a sentence."""
        if self.weights_only:
            what = "only the weights are in eight bits: no choice of layers kept the metric with eight-bit activations"
        elif self.in_float:
            named = ", ".join(f"{name} ({reason})" for name, reason in list(self.in_float.items())[:_NAMED])
            more = f", and {len(self.in_float) - _NAMED} more" if len(self.in_float) > _NAMED else ""
            what = f"{len(self.in_float)} of {self.layers} layers keep float activations: {named}{more}"
        else:
            what = f"all {self.layers} layers are in eight bits"
        told = f"int8: {what}; {self.ratio:.2f} of the float model's size"
        if self.ratio > WANTED_RATIO:
            largest = sorted(self.float_bytes.items(), key=lambda item: -item[1])[:3]
            named = ", ".join(f"{size / 1024:.0f} KiB of {name}" for name, size in largest)
            told += f", because onnxruntime stores these as float: {named}" if named else ", because it is small itself"
        return told


class _Reader:
    """Calibration batches as onnxruntime wants them; can be read again."""

    def __init__(self, batches: Batches, *, name: str) -> None:
        self._batches = batches
        self._name = name
        self._left = iter(batches)

    def get_next(self) -> dict[str, Any] | None:
        """The next batch, None behind the last."""
        batch = next(self._left, None)
        return None if batch is None else {self._name: batch}

    def rewind(self) -> None:
        """Starts again."""
        self._left = iter(self._batches)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return ({self._name: batch} for batch in self._batches)

    def __len__(self) -> int:
        return len(self._batches)


def quantize_int8(
    path: Path,
    target: Path,
    *,
    calibration: Batches,
    drop_of: Callable[[Path], float],
    max_drop: float,
    accept: Callable[[Path], bool] = lambda _: True,
    tell: Callable[[str], None] = lambda _: None,
) -> Quantized:
    """Quantises a model; `target` holds the first attempt that is good enough, or else the best one.

    Args:
        path: The float model, constants and batch norms folded (`onnx_format.simplify`).
        target: Where the result goes.
        calibration: Inputs (N, 3, H, W) from training, which give the ranges of all values.
        drop_of: How much worse the metric of a file is than the float model's.
        max_drop: How much is allowed.
        accept: Has the last word on a file that is good enough by `drop_of`, as on another set.
        tell: Told what is being done.

    Raises:
        ValueError: There is nothing to calibrate with.
    """
    import onnx

    if not len(calibration):
        raise ValueError("quantisation needs at least one picture to calibrate with")
    started = time.perf_counter()
    model = onnx.load(str(path))
    fixed, candidates = _layers(model)
    with tempfile.TemporaryDirectory(prefix="ocrft-int8-") as aside_name, _quiet():
        maker = _Maker(model, aside=Path(aside_name), calibration=calibration, fixed=fixed)
        best: tuple[float, int, Path, tuple[str, ...]] | None = None
        tried: list[tuple[int, float]] = []
        noise: Mapping[str, float] = {}
        accepted = False
        for level in LEVELS:
            count = math.ceil(level * len(candidates))
            if tried and count == tried[-1][0]:
                continue
            if count and not noise:
                tell("looking for the layers that suffer most")
                noise = maker.noise_of(candidates)
            excluded = tuple(sorted(candidates, key=lambda name: noise.get(name, 0.0))[:count])
            tell(f"quantising with {count} of {len(candidates)} layers in float")
            file = maker.make(excluded, number=len(tried))
            drop = drop_of(file)
            tried.append((count, drop))
            if best is None or drop <= best[0]:
                best = (drop, count, file, excluded)
            if drop <= max_drop and accept(file):
                best, accepted = (drop, count, file, excluded), True
                break
        assert best is not None
        drop, count, file, excluded = best
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.read_bytes())
    reasons = dict(fixed)
    reasons |= {name: f"its values keep only {noise[name]:.1f} dB in eight bits" for name in excluded}
    return Quantized(
        drop=drop,
        within=accepted,
        in_float=reasons,
        layers=len(fixed) + len(candidates),
        weights_only=count == len(candidates),
        tried=tuple(tried),
        size=target.stat().st_size,
        float_size=path.stat().st_size,
        seconds=time.perf_counter() - started,
        float_bytes=_float_bytes(onnx.load(str(target)).graph),
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Onnxruntime logs advice to the root logger that does not apply to a model that is simplified already."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)


def _layers(model: Any) -> tuple[dict[str, str], list[str]]:
    """(layers that keep float activations, with the reason; layers that may be quantised)."""
    graph = model.graph
    weights = {value.name for value in graph.initializer}
    _name_nodes(graph)
    layers = [node for node in graph.node if node.op_type in QUANTIZED]
    fixed: dict[str, str] = {}
    for node in layers:
        if graph.input[0].name in node.input:
            fixed[node.name] = "first layer"
        elif node.input[1] not in weights:
            fixed[node.name] = "attention"
    head = _last(graph, {node.name for node in layers} - set(fixed))
    if head is not None:
        fixed[head] = "head"
    return fixed, [node.name for node in layers if node.name not in fixed]


def _name_nodes(graph: Any) -> None:
    for number, node in enumerate(graph.node):
        if not node.name:
            node.name = f"{node.op_type}_{number}"


def _last(graph: Any, names: set[str]) -> str | None:
    """The layer nearest to the output, going back along first inputs."""
    makers = {output: node for node in graph.node for output in node.output}
    value = graph.output[0].name
    while value in makers:
        node = makers[value]
        if node.name in names:
            return str(node.name)
        value = next((name for name in node.input if name in makers), "")
    return None


class _Maker:
    """Quantises one model in several ways with one calibration."""

    def __init__(self, model: Any, *, aside: Path, calibration: Batches, fixed: Mapping[str, str]) -> None:
        import onnx

        self._aside = aside
        self._fixed = list(fixed)
        self._calibration = calibration
        self._input = model.graph.input[0].name
        # Names given to nameless nodes must be those of the file that is quantised.
        self._float = aside / "float.onnx"
        onnx.save(onnx.shape_inference.infer_shapes(model), str(self._float))
        self._metadata = {entry.key: entry.value for entry in model.metadata_props}

    def make(self, excluded: Sequence[str], *, number: int) -> Path:
        """Quantises all layers but some."""
        import onnx

        target = self._aside / f"int8-{number}.onnx"
        raw = self._aside / f"raw-{number}.onnx"
        self._quantize(raw, [*self._fixed, *excluded])
        model = onnx.load(str(raw))
        _store_weights_in_eight_bits(model)
        _compact(model)
        onnx.helper.set_model_props(model, self._metadata)
        onnx.checker.check_model(model)
        onnx.save(model, str(target))
        return target

    def _quantize(self, target: Path, excluded: Sequence[str]) -> None:
        from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

        quantize_static(
            str(self._float),
            str(target),
            _Reader(self._calibration, name=self._input),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(QUANTIZED),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=list(excluded),
            calibrate_method=CalibrationMethod.MinMax,
            calibration_cache_path=str(self._aside / "ranges.json"),
            extra_options={"WeightSymmetric": True, "ActivationSymmetric": False},
        )

    def noise_of(self, candidates: Sequence[str]) -> dict[str, float]:
        """What quantising a layer's input and output leaves of them: signal to noise ratio in dB; low is bad."""
        import onnx

        every = max(1, len(self._calibration) // _DEBUG_SAMPLES)
        few = self._calibration[::every][:_DEBUG_SAMPLES]
        noise = noise_of_values(self._float, self._aside / "raw-0.onnx", inputs=few)
        values = {
            node.name: (node.input[0], node.output[0]) for node in onnx.load(str(self._float)).graph.node if node.output
        }
        return {name: min(noise.get(value, math.inf) for value in values[name]) for name in candidates}


def _store_weights_in_eight_bits(model: Any) -> None:
    """Stores float weights of layers as eight bits and a scale a channel; they compute in float as before."""
    import onnx
    from onnx import numpy_helper

    graph = model.graph
    values = {value.name: value for value in graph.initializer}
    users: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    added = []
    for name, value in values.items():
        nodes = users.get(name, [])
        layers = [node for node in nodes if node.op_type in QUANTIZED and len(node.input) > 1 and node.input[1] == name]
        if not layers or len(layers) != len(nodes) or value.data_type != onnx.TensorProto.FLOAT:
            continue
        array = numpy_helper.to_array(value)
        if array.size < LEAST_WEIGHTS or array.ndim < 2:
            continue
        axis = 0 if layers[0].op_type == "Conv" else 1 if array.ndim in (2, 4) else array.ndim - 1
        scale = np.abs(array).max(axis=tuple(i for i in range(array.ndim) if i != axis))
        scale = np.where(scale > 0, scale / 127, 1.0).astype(np.float32)
        shape = [-1 if i == axis else 1 for i in range(array.ndim)]
        stored = np.round(array / scale.reshape(shape)).clip(-127, 127).astype(np.int8)
        graph.initializer.remove(value)
        graph.initializer.extend(
            [numpy_helper.from_array(stored, f"{name}_int8"), numpy_helper.from_array(scale, f"{name}_int8_scale")]
        )
        added.append(
            onnx.helper.make_node(
                "DequantizeLinear", [f"{name}_int8", f"{name}_int8_scale"], [name], name=f"{name}_stored", axis=axis
            )
        )
    for node in reversed(added):
        graph.node.insert(0, node)


def _float_bytes(graph: Any) -> dict[str, int]:
    """Bytes of larger float weights by the operator that uses them, also in the bodies of loops."""
    import onnx
    from onnx import numpy_helper

    users = {name: node.op_type for node in graph.node for name in node.input}
    sizes: dict[str, int] = {}

    def add(name: str, size: int) -> None:
        if size >= 4 * LEAST_WEIGHTS:
            sizes[name] = sizes.get(name, 0) + size

    for value in graph.initializer:
        if value.data_type == onnx.TensorProto.FLOAT:
            add(users.get(value.name, "Loop"), numpy_helper.to_array(value).nbytes)
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.t.data_type == onnx.TensorProto.FLOAT:
                add("Constant", numpy_helper.to_array(attribute.t).nbytes)
            if attribute.type == onnx.AttributeProto.GRAPH:
                add(node.op_type, sum(_float_bytes(attribute.g).values()))
    return sizes


def _compact(model: Any) -> None:
    """Gives values short names: of a small model in eight bits, half of the file would be names."""
    graph = model.graph
    del graph.value_info[:]
    # A loop's body takes values of the graph around it by their names.
    fixed = {value.name for value in (*graph.input, *graph.output)} | _used_inside(graph)
    short: dict[str, str] = {}

    def renamed(name: str) -> str:
        return name if not name or name in fixed else short.setdefault(name, format(len(short), "x"))

    for value in graph.initializer:
        value.name = renamed(value.name)
    for number, node in enumerate(graph.node):
        node.name = format(number, "x")
        node.doc_string = ""
        for names in (node.input, node.output):
            for i, name in enumerate(names):
                names[i] = renamed(name)


def _used_inside(graph: Any) -> set[str]:
    """Names that are used in the bodies of a graph's loops and branches."""
    bodies = [attribute.g for node in graph.node for attribute in node.attribute if attribute.HasField("g")]
    return {name for body in bodies for node in body.node for name in node.input}.union(*map(_used_inside, bodies))


def to_fp16(path: Path, target: Path) -> None:
    """Stores and computes in half precision; inputs and outputs stay float32.

    Args:
        path: The float model.
        target: Where the result goes.
    """
    import onnx
    from onnxruntime.quantization.onnx_model import ONNXModel
    from onnxruntime.transformers.float16 import convert_float_to_float16

    model = onnx.load(str(path))
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    half = convert_float_to_float16(model, keep_io_types=True)
    ONNXModel(half).topological_sort()  # the casts of inputs are appended behind what uses them
    onnx.helper.set_model_props(half, metadata)
    onnx.checker.check_model(half)
    target.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(half, str(target))
