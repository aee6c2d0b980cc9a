"""The lines that use an export: in Python with `paddleocr`, with onnxruntime, and as a PaddleX pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from ocr_finetune_api.model_table import Kind
from ocr_finetune_trainer.evaluation.db_postprocess import DBPostProcess
from ocr_finetune_trainer.geometry import PIPELINE_RULE

if TYPE_CHECKING:
    from ocr_finetune_api.model_table import ModelInfo

__all__ = ["pipeline_config", "usage"]

_CLASS = {
    Kind.RECOGNITION: "TextRecognition",
    Kind.DETECTION: "TextDetection",
    Kind.TABLE: "TableStructureRecognition",
    Kind.ORIENTATION: "TextLineOrientationClassification",
}
# The pipeline's own settings win over those of `inference.yml`; the others are read from there.
_POSTPROCESS = ("thresh", "box_thresh", "unclip_ratio")


def usage(info: ModelInfo, *, paddle: str = "paddle", onnx: str = "") -> str:
    """Markdown with the lines that use an export.

    Args:
        info: The model.
        paddle: Folder of Paddle's format.
        onnx: The ONNX file; empty if there is none.
    """
    name = _CLASS[info.kind]
    parts = [
        (
            "With `paddleocr` 3.x:\n\n```python\n"
            f"from paddleocr import {name}\n"
            f'model = {name}(model_name="{info.serving_name}", model_dir="{paddle}")\n'
            'print(model.predict("picture.png")[0].json)\n```'
        )
    ]
    part = {Kind.RECOGNITION: "text_recognition", Kind.DETECTION: "text_detection"}.get(info.kind)
    if part:
        parts.append(
            "As a part of the whole pipeline:\n\n```python\nfrom paddleocr import PaddleOCR\n"
            f'ocr = PaddleOCR({part}_model_name="{info.serving_name}", {part}_model_dir="{paddle}")\n'
            'print(ocr.predict("page.png")[0].json)\n```\n\nor with both models of your own: '
            "`paddlex --pipeline pipeline.yml --input page.png`, where `pipeline.yml` lies beside this file."
        )
    if onnx:
        parts.append(
            "With onnxruntime, which needs nothing of Paddle (the dictionary and the settings are in its metadata):\n\n"
            "```python\nimport onnxruntime\n"
            f'session = onnxruntime.InferenceSession("{onnx}")\n'
            "about = session.get_modelmeta().custom_metadata_map\n"
            'output = session.run(None, {"x": batch})[0]\n```'
        )
    return "\n\n".join(parts)


def pipeline_config(
    *,
    detection: tuple[str, Path | str] | None,
    recognition: tuple[str, Path | str] | None,
    postprocess: DBPostProcess | None = None,
) -> dict[str, Any]:
    """The PaddleX pipeline `OCR` with one's own models; what is not given is the official PP-OCRv5.

    Args:
        detection: Serving name and folder of the detector.
        recognition: Serving name and folder of the recogniser.
        postprocess: How the detector's maps become outlines; None for the pipeline's own way.
    """
    settings = (postprocess or DBPostProcess()).settings()
    det_name, det_dir = detection or ("PP-OCRv5_server_det", None)
    rec_name, rec_dir = recognition or ("PP-OCRv5_server_rec", None)
    return {
        "pipeline_name": "OCR",
        "text_type": "general",
        "use_doc_preprocessor": False,
        "use_textline_orientation": False,
        "SubModules": {
            "TextDetection": {
                "module_name": "text_detection",
                "model_name": det_name,
                "model_dir": None if det_dir is None else str(det_dir),
                "limit_side_len": PIPELINE_RULE.limit_side_len,
                "limit_type": PIPELINE_RULE.limit_type.value,
                "max_side_limit": PIPELINE_RULE.max_side_limit,
                **{name: settings[name] for name in _POSTPROCESS},
            },
            "TextRecognition": {
                "module_name": "text_recognition",
                "model_name": rec_name,
                "model_dir": None if rec_dir is None else str(rec_dir),
                "batch_size": 6,
                "score_thresh": 0.0,
            },
        },
    }


def pipeline_text(config: dict[str, Any]) -> str:
    """The pipeline's YAML."""
    return yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
