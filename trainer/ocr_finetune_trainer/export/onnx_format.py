"""ONNX: one file that needs nothing of Paddle, with what is needed to use it in its metadata.

RapidOCR and others read the dictionary from the metadata key `character`. paddle2onnx's own simplifier is not used: it
installs packages from the network while it runs. onnxruntime's basic optimisations fold constants and batch norms just
as well, in milliseconds.
"""

from __future__ import annotations

import json
import logging
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ocr_finetune_api.exit_codes import OCRFineTuneError
from ocr_finetune_trainer.export.onnx_conversion import convert
from ocr_finetune_trainer.geometry import DetectionGeometry, RecognitionGeometry
from ocr_finetune_trainer.orientation_geometry import OrientationGeometry
from ocr_finetune_trainer.table_geometry import TableGeometry

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ocr_finetune_trainer.dictionary import Dictionary
    from ocr_finetune_trainer.geometry import Geometry

__all__ = ["OPSET", "metadata_for", "save_onnx", "set_metadata", "simplify"]

OPSET = 17
INPUT = "x"

logger = logging.getLogger(__name__)


def output_names(geometry: Geometry) -> tuple[str, ...]:
    """Names of the outputs.

    `probabilities` (N, T, classes) of a recogniser, (N, 2) of an orientation classifier; `maps` (N, 1, H, W) of a
    detector; `boxes` (N, steps, 8) and `structure` (N, steps, classes) of a table model.
    """
    if isinstance(geometry, TableGeometry):
        return "boxes", "structure"
    return ("maps",) if isinstance(geometry, DetectionGeometry) else ("probabilities",)


def metadata_for(
    *,
    model_name: str,
    serving_name: str,
    geometry: Geometry,
    dictionary: Dictionary | None,
    metrics: Mapping[str, Any],
    config: Mapping[str, Any],
) -> dict[str, str]:
    """What the file says about itself.

    Args:
        model_name: Name in the model table.
        serving_name: Name that `paddleocr` knows.
        geometry: How pictures become its input.
        dictionary: Characters of a recognition model.
        metrics: What was measured, JSON values.
        config: The settings of `inference.yml`: pre- and post-processing.
    """
    metadata = {
        "model_name": model_name,
        "serving_name": serving_name,
        "metrics": json.dumps(metrics, ensure_ascii=False),
        "preprocess": json.dumps(config.get("PreProcess", {}), ensure_ascii=False),
        "postprocess": json.dumps(
            {key: value for key, value in config.get("PostProcess", {}).items() if key != "character_dict"}
        ),
        "normalization": json.dumps({"mean": geometry.normalization.mean, "std": geometry.normalization.std}),
    }
    if isinstance(geometry, RecognitionGeometry):
        metadata["shape"] = json.dumps([3, geometry.height, geometry.min_width])
        metadata["max_width"] = str(geometry.max_width)
    if isinstance(geometry, TableGeometry):
        metadata["shape"] = json.dumps([3, geometry.side, geometry.side])
        metadata["structure"] = "\n".join(geometry.vocabulary.lines)
        metadata["box_frame"] = "square" if geometry.padded_frame else "picture"
    if isinstance(geometry, OrientationGeometry):
        metadata["shape"] = json.dumps([3, geometry.height, geometry.width])
        metadata["channels"] = "RGB"
    if dictionary is not None:
        # One entry a line, the blank left out, the space behind: what readers of this key expect.
        metadata["character"] = "\n".join(dictionary.characters)
        metadata["use_space"] = str(dictionary.use_space).lower()
    return metadata


def save_onnx(paddle_folder: Path, *, path: Path, geometry: Geometry, metadata: Mapping[str, str]) -> None:
    """Converts an exported folder.

    Args:
        paddle_folder: Made by `paddle_format.save_paddle`.
        path: The file to write.
        geometry: The model's geometry.
        metadata: Made by `metadata_for`.

    Raises:
        OCRFineTuneError: It cannot be converted.
    """
    import onnx

    path.parent.mkdir(parents=True, exist_ok=True)
    content = convert(paddle_folder, opset=OPSET)
    try:
        model = simplify(content)
        _name(model, outputs=output_names(geometry))
        set_metadata(model, metadata)
        onnx.checker.check_model(model, full_check=True)
        onnx.save(model, str(path))
    except Exception as error:
        raise OCRFineTuneError(f"the ONNX model made from {paddle_folder} is not valid: {error}") from error
    logger.info("wrote %s", path)


def simplify(content: bytes) -> Any:
    """Folds constants and batch norms, and drops what does nothing.

    Args:
        content: A serialised ONNX model.

    Returns:
        `onnx.ModelProto` with operators of the standard set only.
    """
    import onnx
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        optimised = Path(folder) / "model.onnx"
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(optimised)
        options.log_severity_level = 3
        onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        model = onnx.load(str(optimised))
    used = {node.domain for node in model.graph.node}
    kept = [entry for entry in model.opset_import if entry.domain in used or entry.domain in ("", "ai.onnx")]
    del model.opset_import[:]
    model.opset_import.extend(kept)
    model.producer_name = "ocr-finetune"
    return model


def _name(model: Any, *, outputs: Sequence[str]) -> None:
    """Names input and outputs, and calls the dynamic sides what they are."""
    graph = model.graph
    _rename(graph, graph.input[0].name, INPUT)
    for value, name in zip(graph.output, outputs, strict=True):
        _rename(graph, value.name, name)
    sides = [(graph.input[0], ("batch", "", "height", "width"))]
    sides += [(value, ("batch", "", "", "")) for value in graph.output]
    for value, names in sides:
        for i, dimension in enumerate(value.type.tensor_type.shape.dim):
            if not dimension.HasField("dim_value"):
                dimension.dim_param = names[i] or f"{value.name}_{i}"


def _rename(graph: Any, old: str, new: str) -> None:
    if old == new:
        return
    for node in graph.node:
        for names in (node.input, node.output):
            for i, name in enumerate(names):
                if name == old:
                    names[i] = new
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.name == old:
            value.name = new


def set_metadata(model: Any, metadata: Mapping[str, str]) -> None:
    """Puts metadata into an `onnx.ModelProto`, in place of what was there."""
    import onnx

    onnx.helper.set_model_props(model, dict(metadata))
