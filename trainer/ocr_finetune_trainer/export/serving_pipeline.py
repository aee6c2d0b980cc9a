"""The PaddleX pipeline that reads whole pages with one's own models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

from ocr_finetune_trainer.evaluation.db_postprocess import DBPostProcess
from ocr_finetune_trainer.geometry import PIPELINE_RULE

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["pipeline_config", "pipeline_text"]

# The pipeline's own settings win over those of `inference.yml`; the others are read from there.
_POSTPROCESS = ("thresh", "box_thresh", "unclip_ratio")


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
