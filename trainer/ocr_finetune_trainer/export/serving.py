"""The real serving library, `paddleocr` 3.x, started offline and quiet: an export counts when this reads with it.

It is imported only here: that takes seconds. It must not look for a model hub, nor write into a home folder that may be
read-only, so its settings are in the environment before its first import.
"""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ocr_finetune_api.exit_codes import OCRFineTuneError
from ocr_finetune_trainer.evaluation.reader import Reading
from ocr_finetune_trainer.evaluation.table_decode import DecodedTable
from ocr_finetune_trainer.metrics.end_to_end import Line

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

__all__ = ["DetectedPage", "ServedDetector", "ServedOrientation", "ServedReader", "ServedTableReader", "paddleocr"]

_SETTINGS = {"PADDLE_PDX_DISABLE_MODEL_SOURCE_CHECK": "True", "PADDLE_PDX_EAGER_INIT": "True"}
_CACHE = "PADDLE_PDX_CACHE_HOME"

# What `paddleocr` puts around the tokens of a table.
_PAGE = frozenset({"<html>", "<body>", "<table>", "</table>", "</body>", "</html>"})

DetectedPage = list[tuple["NDArray[np.float32]", float]]


def paddleocr() -> Any:
    """The package `paddleocr`, imported without network and without a word.

    Raises:
        OCRFineTuneError: It is not installed, or one of its parts is broken.
    """
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    if _CACHE not in os.environ and not _writable(Path.home()):
        os.environ[_CACHE] = tempfile.mkdtemp(prefix="ocrft-paddlex-")
    try:
        with _quiet():
            import paddleocr as package
    except Exception as error:
        raise OCRFineTuneError(
            f"paddleocr cannot be started: {error}",
            hint="install the trainer's extra: pip install ocr-finetune[trainer]",
        ) from error
    logging.getLogger("ppocr").setLevel(logging.ERROR)
    logging.getLogger("paddlex").setLevel(logging.ERROR)
    return package


def _writable(folder: Path) -> bool:
    return os.access(folder, os.W_OK)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class ServedReader:
    """`paddleocr.TextRecognition` on an exported folder.

    Args:
        folder: The export.
        serving_name: The name it is served under.

    Raises:
        OCRFineTuneError: `paddleocr` does not load it.
    """

    def __init__(self, folder: Path, *, serving_name: str) -> None:
        self._model = _load("TextRecognition", folder=folder, serving_name=serving_name)

    def read(self, images: Sequence[NDArray[np.uint8]], *, batch_size: int = 1) -> list[Reading]:
        """Reads crops, uint8 (h, w, 3) BGR; it pads to the widest of a batch of `batch_size` crops in their order."""
        with _quiet():
            results = self._model.predict(list(images), batch_size=batch_size)
        return [Reading(result["rec_text"], float(result["rec_score"])) for result in results]


class ServedDetector:
    """`paddleocr.TextDetection` on an exported folder, with the size rule of the whole pipeline.

    Args:
        folder: The export.
        serving_name: The name it is served under.

    Raises:
        OCRFineTuneError: `paddleocr` does not load it.
    """

    def __init__(self, folder: Path, *, serving_name: str) -> None:
        self._model = _load("TextDetection", folder=folder, serving_name=serving_name)

    def detect(self, image: NDArray[np.uint8], *, limit_side_len: int = 64, limit_type: str = "min") -> DetectedPage:
        """Finds texts on a page, uint8 (H, W, 3) BGR: polygons (N, 2) in pixels with their scores."""
        with _quiet():
            result = self._model.predict(image, batch_size=1, limit_side_len=limit_side_len, limit_type=limit_type)[0]
        polygons = [np.asarray(polygon, dtype=np.float32) for polygon in result["dt_polys"]]
        return list(zip(polygons, [float(score) for score in result["dt_scores"]], strict=True))


class ServedTableReader:
    """`paddleocr.TableStructureRecognition` on an exported folder.

    Args:
        folder: The export.
        serving_name: The name it is served under.

    Raises:
        OCRFineTuneError: `paddleocr` does not load it.
    """

    def __init__(self, folder: Path, *, serving_name: str) -> None:
        self._model = _load("TableStructureRecognition", folder=folder, serving_name=serving_name)

    def read(self, image: NDArray[np.uint8]) -> DecodedTable:
        """Reads a table, uint8 (h, w, 3) BGR: tokens, and boxes of 8 numbers in whole pixels."""
        with _quiet():
            result = self._model.predict(image, batch_size=1)[0]
        tokens = [token for token in result["structure"] if token not in _PAGE]
        boxes = np.asarray(result["bbox"], dtype=np.float32).reshape(-1, 8)
        return DecodedTable(structure=tuple(tokens), boxes=boxes, score=float(result.get("structure_score", 0.0)))


class ServedOrientation:
    """`paddleocr.TextLineOrientationClassification` on an exported folder.

    Args:
        folder: The export.
        serving_name: The name it is served under.

    Raises:
        OCRFineTuneError: `paddleocr` does not load it.
    """

    def __init__(self, folder: Path, *, serving_name: str) -> None:
        self._model = _load("TextLineOrientationClassification", folder=folder, serving_name=serving_name)

    def turned(self, images: Sequence[NDArray[np.uint8]]) -> list[float]:
        """The probability that each line, uint8 (h, w, 3) BGR, stands on its head."""
        with _quiet():
            results = self._model.predict(list(images), batch_size=1)
        # Numbers come as an array of one or as an array of arrays of one, depending on the model.
        best = [(int(np.ravel(result["class_ids"])[0]), float(np.ravel(result["scores"])[0])) for result in results]
        return [score if number == 1 else 1.0 - score for number, score in best]


class ServedPipeline:
    """`paddleocr.PaddleOCR` with a pipeline of one's own.

    Args:
        config: `export.serving_pipeline.pipeline_config`.
        folder: Where the pipeline's file goes.

    Raises:
        OCRFineTuneError: `paddleocr` does not load it.
    """

    def __init__(self, config: Mapping[str, Any], *, folder: Path) -> None:
        from ocr_finetune_trainer.export.serving_pipeline import pipeline_text

        file = folder / "pipeline.yml"
        file.write_text(pipeline_text(dict(config)), encoding="utf-8")
        package = paddleocr()
        # Without names and folders as arguments, `PaddleOCR` puts its own default models in place of the file's.
        parts = {"text_detection": "TextDetection", "text_recognition": "TextRecognition"}
        models = {
            f"{argument}_{key}": config["SubModules"][part][key]
            for argument, part in parts.items()
            for key in ("model_name", "model_dir")
        }
        try:
            with _quiet():
                self._pipeline = package.PaddleOCR(paddlex_config=str(file), device=_device(), **models)
        except Exception as error:
            raise OCRFineTuneError(
                f"{file}: paddleocr.PaddleOCR does not load it: {type(error).__name__}: {error}"
            ) from error

    def read(self, image: NDArray[np.uint8]) -> list[Line]:
        """Reads a page, uint8 (H, W, 3) BGR: outlines in pixels with their texts."""
        with _quiet():
            result = self._pipeline.predict(image)[0]
        return [
            Line(points=np.asarray(points), text=text)
            for points, text in zip(result["rec_polys"], result["rec_texts"], strict=True)
        ]


def _load(name: str, *, folder: Path, serving_name: str) -> Any:
    package = paddleocr()
    try:
        with _quiet():
            return getattr(package, name)(model_name=serving_name, model_dir=str(folder), device=_device())
    except Exception as error:
        raise OCRFineTuneError(
            f"{folder}: paddleocr.{name} does not load it as {serving_name}: {type(error).__name__}: {error}"
        ) from error


def _device() -> str:
    import paddle

    return "gpu" if paddle.is_compiled_with_cuda() and paddle.device.cuda.device_count() else "cpu"
