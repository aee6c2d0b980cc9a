"""The `inference.yml` beside an exported model: what `paddleocr` 3.x reads to know how to use it.

`paddleocr` 3.7 runs a fixed set of pre-processing steps and fails with a bare assertion at any other, so only those
stand here, with the values of the model's own geometry.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from ocr_finetune_trainer.dictionary import Dictionary
    from ocr_finetune_trainer.evaluation.db_postprocess import DBPostProcess
    from ocr_finetune_trainer.geometry import DetectionGeometry, RecognitionGeometry
    from ocr_finetune_trainer.orientation_geometry import OrientationGeometry
    from ocr_finetune_trainer.table_geometry import TableGeometry

__all__ = [
    "FILE_NAME",
    "detection_config",
    "orientation_config",
    "read_config",
    "recognition_config",
    "table_config",
    "write_config",
]

FILE_NAME = "inference.yml"


def recognition_config(*, serving_name: str, geometry: RecognitionGeometry, dictionary: Dictionary) -> dict[str, Any]:
    """The settings of a recognition model.

    Args:
        serving_name: A name that `paddleocr` knows.
        geometry: How crops become its input; `paddleocr` takes height and least width from here.
        dictionary: Its characters; `paddleocr` always adds the space as one more class behind them.
    """
    shape = [3, geometry.height, geometry.min_width]
    widths = (geometry.min_width, geometry.min_width, geometry.max_width)
    shapes = [[batch, 3, geometry.height, width] for batch, width in zip((1, 1, 8), widths, strict=True)]
    return {
        "Global": {"model_name": serving_name},
        "Hpi": {
            "backend_configs": {
                "paddle_infer": {"trt_dynamic_shapes": {"x": shapes}},
                "tensorrt": {"dynamic_shapes": {"x": shapes}},
            }
        },
        "PreProcess": {
            "transform_ops": [
                {"DecodeImage": {"channel_first": False, "img_mode": "BGR"}},
                {"RecResizeImg": {"image_shape": shape}},
                {"KeepKeys": {"keep_keys": ["image"]}},
            ]
        },
        "PostProcess": {"name": "CTCLabelDecode", "character_dict": list(dictionary.characters)},
    }


def detection_config(*, serving_name: str, geometry: DetectionGeometry, postprocess: DBPostProcess) -> dict[str, Any]:
    """The settings of a detection model.

    `paddleocr.PaddleOCR` brings its own size rule and ignores this file's. `paddleocr.TextDetection` alone would shrink
    every page to 960 pixels; it takes one number from here, the longest side a page may keep, and so it sees pages as
    the pipeline, and as evaluation, does.

    Args:
        serving_name: A name that `paddleocr` knows.
        geometry: How pages become its input.
        postprocess: How maps become boxes.
    """
    longest = geometry.rule.longest_side
    shapes = [[1, 3, 32, 32], [1, 3, 736, 736], [1, 3, longest, longest]]
    normalization = geometry.normalization
    return {
        "Global": {"model_name": serving_name},
        "Hpi": {
            "backend_configs": {
                "paddle_infer": {"trt_dynamic_shapes": {"x": shapes}},
                "tensorrt": {"dynamic_shapes": {"x": shapes}},
            }
        },
        "PreProcess": {
            "transform_ops": [
                {"DecodeImage": {"channel_first": False, "img_mode": "BGR"}},
                {"DetResizeForTest": {"resize_long": longest}},
                {
                    "NormalizeImage": {
                        "mean": list(normalization.mean),
                        "order": "hwc",
                        "scale": "1./255.",
                        "std": list(normalization.std),
                    }
                },
                {"ToCHWImage": None},
                {"KeepKeys": {"keep_keys": ["image", "shape"]}},
            ]
        },
        "PostProcess": {"name": "DBPostProcess", **postprocess.settings()},
    }


def table_config(*, serving_name: str, geometry: TableGeometry) -> dict[str, Any]:
    """The settings of a table model.

    Args:
        serving_name: A name that `paddleocr` knows.
        geometry: How pictures become its input.
    """
    side = geometry.side
    shapes = [[1, 3, side, side], [1, 3, side, side], [8, 3, side, side]]
    normalization = geometry.normalization
    corners = "xyxyxyxy" if geometry.box_numbers == 8 else "xyxy"
    labels = {
        "learn_empty_box": False,
        "loc_reg_num": geometry.box_numbers,
        "max_text_length": 500,
        "merge_no_span_structure": geometry.vocabulary.merged,
        "replace_empty_cell_token": False,
    }
    keys = ["image", "structure", "bboxes", "bbox_masks", "length", "shape"]
    return {
        "Global": {"model_name": serving_name},
        "Hpi": {
            "backend_configs": {
                "paddle_infer": {"trt_dynamic_shapes": {"x": shapes}},
                "tensorrt": {"dynamic_shapes": {"x": shapes}},
            }
        },
        "PreProcess": {
            "transform_ops": [
                {"DecodeImage": {"channel_first": False, "img_mode": "BGR"}},
                {"TableLabelEncode": labels},
                {"TableBoxEncode": {"in_box_format": corners, "out_box_format": corners}},
                {"ResizeTableImage": {"max_len": side}},
                {
                    "NormalizeImage": {
                        "mean": list(normalization.mean),
                        "order": "hwc",
                        "scale": "1./255.",
                        "std": list(normalization.std),
                    }
                },
                {"PaddingTableImage": {"size": [side, side]}},
                {"ToCHWImage": None},
                {"KeepKeys": {"keep_keys": keys}},
            ]
        },
        "PostProcess": {
            "name": "TableLabelDecode",
            "merge_no_span_structure": geometry.vocabulary.merged,
            "character_dict": list(geometry.vocabulary.lines),
        },
    }


def orientation_config(
    *, serving_name: str, geometry: OrientationGeometry, labels: Sequence[str] = ("0_degree", "180_degree")
) -> dict[str, Any]:
    """The settings of a text-line orientation classifier.

    Args:
        serving_name: A name that `paddleocr` knows.
        geometry: How lines become its input.
        labels: What the classes are called.
    """
    shapes = [[batch, 3, geometry.height, geometry.width] for batch in (1, 1, 8)]
    normalization = geometry.normalization
    return {
        "Global": {"model_name": serving_name},
        "Hpi": {
            "backend_configs": {
                "paddle_infer": {"trt_dynamic_shapes": {"x": shapes}},
                "tensorrt": {"dynamic_shapes": {"x": shapes}},
            }
        },
        "PreProcess": {
            "transform_ops": [
                {"ResizeImage": {"size": [geometry.width, geometry.height]}},
                {
                    "NormalizeImage": {
                        "channel_num": 3,
                        "mean": list(normalization.mean),
                        "order": "",
                        "scale": 1.0 / 255.0,
                        "std": list(normalization.std),
                    }
                },
                {"ToCHWImage": None},
            ]
        },
        "PostProcess": {"Topk": {"topk": 1, "label_list": list(labels)}},
    }


def write_config(config: Mapping[str, Any], folder: Path) -> None:
    """Writes `inference.yml`."""
    # The C implementation writes 18,000 entries in a tenth of a second, the other one takes ten.
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    # A copy without shared parts: an alias (`*id001`) only puzzles people.
    plain = json.loads(json.dumps(config))
    text = yaml.dump(plain, Dumper=dumper, allow_unicode=True, sort_keys=False, width=10**6)
    (folder / FILE_NAME).write_text(text, encoding="utf-8")


def read_config(folder: Path) -> dict[str, Any]:
    """Reads `inference.yml` of an exported folder; empty if there is none.

    Raises:
        yaml.YAMLError: It is not YAML.
    """
    path = folder / FILE_NAME
    if not path.is_file():
        return {}
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    document = yaml.load(path.read_text(encoding="utf-8"), Loader=loader)  # noqa: S506 - both are safe loaders
    return document if isinstance(document, dict) else {}
