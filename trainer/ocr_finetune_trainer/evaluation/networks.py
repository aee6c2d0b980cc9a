"""A network is what turns a batch of pictures into numbers: a layer that trains, or one of the exported formats.

Readers and detectors see only this, so training, evaluation, `predict` and the checks of an export share their code.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ocr_finetune_api.exit_codes import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = ["LayerNetwork", "Network", "OnnxNetwork", "PaddleInferenceNetwork", "as_network", "best_of"]


class Network(Protocol):
    """Runs a batch."""

    def run(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N, 3, H, W) to the first output: probabilities (N, T, classes) or maps (N, 1, H, W)."""

    def run_all(self, x: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """(N, 3, H, W) to all outputs, in the order in which serving reads them."""

    def best(self, x: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """(N, 3, H, W) to the best class of each frame and its probability, both (N, T)."""


def best_of(probabilities: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """(N, T, classes) to the best class of each frame and its probability, both (N, T)."""
    classes = probabilities.argmax(axis=2)
    return classes, np.take_along_axis(probabilities, classes[:, :, None], axis=2)[:, :, 0]


def _first(outputs: Any) -> Any:
    """The output that serving uses, whatever container a model wraps it in."""
    if isinstance(outputs, dict):
        for name in ("maps", "probabilities"):
            if name in outputs:
                return outputs[name]
        return next(iter(outputs.values()))
    return outputs[0] if isinstance(outputs, list | tuple) else outputs


class LayerNetwork:
    """A Paddle layer. It is run in eval mode and put back into the mode it was in.

    Args:
        layer: Made by `ocr_finetune_trainer.models.build`.
    """

    def __init__(self, layer: Any) -> None:
        self._layer = layer

    def _outputs(self, x: NDArray[np.float32]) -> Any:
        import paddle

        training = self._layer.training
        self._layer.eval()
        try:
            with paddle.no_grad():
                return self._layer(paddle.to_tensor(x))
        finally:
            if training:
                self._layer.train()

    def _forward(self, x: NDArray[np.float32]) -> Any:
        return _first(self._outputs(x))

    def run_all(self, x: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """As `Network.run_all`; outputs with names come in the order of their names, as an export writes them."""
        outputs = self._outputs(x)
        if isinstance(outputs, dict):
            outputs = [outputs[name] for name in sorted(outputs)]
        values = outputs if isinstance(outputs, list | tuple) else [outputs]
        return [value.astype("float32").numpy() for value in values]

    def run(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """As `Network.run`."""
        values: NDArray[np.float32] = self._forward(x).astype("float32").numpy()
        return values

    def best(self, x: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """As `Network.best`; the classes are chosen on the device, so that only two numbers a frame travel."""
        probabilities = self._forward(x)
        return probabilities.argmax(axis=2).numpy(), probabilities.max(axis=2).astype("float32").numpy()


class OnnxNetwork:
    """An ONNX file in onnxruntime.

    Args:
        path: The file.
        threads: Threads of one operator.

    Attributes:
        output: Name of the first output.

    Raises:
        DataError: onnxruntime cannot load it.
    """

    def __init__(self, path: Path, *, threads: int = 1) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        available = onnxruntime.get_available_providers()
        providers = [name for name in ("CUDAExecutionProvider", "CPUExecutionProvider") if name in available]
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=providers)
        except Exception as error:  # onnxruntime raises a class of its own for each way to be broken
            raise DataError(f"{path}: onnxruntime cannot load it: {_first_line(error)}") from error
        self._input = self._session.get_inputs()[0].name
        self.output: str = self._session.get_outputs()[0].name

    @property
    def metadata(self) -> Mapping[str, str]:
        """What the exporter wrote beside the graph: `character`, `shape`, names and metrics."""
        values: dict[str, str] = self._session.get_modelmeta().custom_metadata_map
        return values

    def run(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """As `Network.run`."""
        output: NDArray[np.float32] = self._session.run(None, {self._input: x})[0]
        return output.astype(np.float32, copy=False)

    def run_all(self, x: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """As `Network.run_all`."""
        return [output.astype(np.float32, copy=False) for output in self._session.run(None, {self._input: x})]

    def best(self, x: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """As `Network.best`."""
        return best_of(self.run(x))


class PaddleInferenceNetwork:
    """An exported folder (`inference.json` or `.pdmodel`, `inference.pdiparams`) in Paddle's inference engine.

    Args:
        folder: The folder.
        threads: Threads of one operator.
        onednn: Whether operators may run in oneDNN where they can.

    Raises:
        DataError: It lacks a file, or the engine cannot load it.
    """

    def __init__(self, folder: Path, *, threads: int = 1, onednn: bool = True) -> None:
        from paddle import inference

        programs = [folder / name for name in ("inference.json", "inference.pdmodel") if (folder / name).is_file()]
        weights = folder / "inference.pdiparams"
        if not programs or not weights.is_file():
            raise DataError(f"{folder}: holds no inference.json (or .pdmodel) with its inference.pdiparams")
        config = inference.Config(str(programs[0]), str(weights))
        config.disable_glog_info()
        config.set_cpu_math_library_num_threads(threads)
        if not onednn:
            config.disable_mkldnn()
        try:
            self._predictor = inference.create_predictor(config)
        except Exception as error:
            raise DataError(f"{folder}: Paddle cannot load it: {_first_line(error)}") from error
        self._input = self._predictor.get_input_handle(self._predictor.get_input_names()[0])
        self._output = self._predictor.get_output_handle(self._predictor.get_output_names()[0])

    def run(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """As `Network.run`."""
        self._input.reshape(list(x.shape))
        self._input.copy_from_cpu(np.ascontiguousarray(x))
        self._predictor.run()
        values: NDArray[np.float32] = self._output.copy_to_cpu()
        return values

    def run_all(self, x: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """As `Network.run_all`."""
        self.run(x)
        names = self._predictor.get_output_names()
        return [self._predictor.get_output_handle(name).copy_to_cpu() for name in names]

    def best(self, x: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """As `Network.best`."""
        return best_of(self.run(x))


def as_network(model: Any) -> Network:
    """`model` itself if it is a network already, else a Paddle layer as one."""
    if hasattr(model, "best") and hasattr(model, "run"):
        network: Network = model
        return network
    return LayerNetwork(model)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
