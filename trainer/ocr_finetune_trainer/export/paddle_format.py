"""Paddle's inference format: the folder that `paddleocr` 3.x loads with `model_dir`."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ocr_finetune_api.exit_codes import OCRFineTuneError
from ocr_finetune_trainer.export.inference_config import write_config
from ocr_finetune_trainer.geometry import RecognitionGeometry
from ocr_finetune_trainer.orientation_geometry import OrientationGeometry
from ocr_finetune_trainer.table_geometry import TableGeometry

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ocr_finetune_trainer.geometry import Geometry

__all__ = ["input_shape", "save_paddle"]

logger = logging.getLogger(__name__)


def input_shape(geometry: Geometry) -> list[int | None]:
    """The shape of the input `x`; None is dynamic."""
    if isinstance(geometry, RecognitionGeometry):
        return [None, 3, geometry.height, None]
    if isinstance(geometry, TableGeometry):
        return [None, 3, geometry.side, geometry.side]
    if isinstance(geometry, OrientationGeometry):
        return [None, 3, geometry.height, geometry.width]
    return [None, 3, None, None]


def save_paddle(layer: Any, *, folder: Path, geometry: Geometry, config: Mapping[str, Any]) -> None:
    """Writes `inference.json`, `inference.pdiparams` and `inference.yml`.

    Args:
        layer: A layer as it is served (`evaluation.subjects.Subject.layer`).
        folder: Where they go.
        geometry: The model's geometry.
        config: What goes into `inference.yml`.

    Raises:
        OCRFineTuneError: Paddle cannot export the layer.
    """
    import paddle

    folder.mkdir(parents=True, exist_ok=True)
    spec = [paddle.static.InputSpec(input_shape(geometry), "float32", name="x")]
    try:
        # Paddle's translator warns of the code that it makes itself; what came out is measured by the export's checks.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            paddle.jit.save(paddle.jit.to_static(layer, input_spec=spec, full_graph=True), str(folder / "inference"))
    except Exception as error:  # Paddle raises whatever its translator stumbles over
        raise OCRFineTuneError(
            f"export of {type(layer).__name__} to Paddle's inference format failed: {error}"
        ) from error
    write_config(config, folder)
    logger.info("wrote %s", folder)
