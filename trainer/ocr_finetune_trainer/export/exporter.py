"""Makes all formats of a model, checks each, and puts them in place together: a reader never sees half an export."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ocr_finetune_api.exit_codes import OCRFineTuneError
from ocr_finetune_api.model_table import lookup
from ocr_finetune_trainer.evaluation.networks import OnnxNetwork, PaddleInferenceNetwork
from ocr_finetune_trainer.export.checks import FormatCheck, compare, problems_of, size_of
from ocr_finetune_trainer.export.inference_config import (
    detection_config,
    orientation_config,
    recognition_config,
    table_config,
    write_config,
)
from ocr_finetune_trainer.export.onnx_format import metadata_for, save_onnx
from ocr_finetune_trainer.export.paddle_format import save_paddle
from ocr_finetune_trainer.geometry import RecognitionGeometry
from ocr_finetune_trainer.orientation_geometry import OrientationGeometry
from ocr_finetune_trainer.table_geometry import TableGeometry

if TYPE_CHECKING:
    from collections.abc import Callable

    from ocr_finetune_api.run_config import RunConfig
    from ocr_finetune_api.workspace import Workspace
    from ocr_finetune_trainer.evaluation.subjects import Subject
    from ocr_finetune_trainer.export.checks import Checker, Measured

__all__ = ["ONNX_FILE", "Exporter", "put_in_place", "settings_for"]

ONNX_FILE = "inference.onnx"


@dataclass(kw_only=True)
class Exporter:
    """Writes the formats of one model into a folder and checks them.

    Attributes:
        subject: The model.
        folder: Where the formats go.
        checker: Measures them.
        metrics: What the evaluation measured; goes into the files.
        max_drop: How much worse the metric of a format may be.
        tell: Told what is being done.
        checks: The checks so far, by format.
    """

    subject: Subject
    folder: Path
    checker: Checker
    metrics: Mapping[str, Any]
    max_drop: float
    tell: Callable[[str], None]
    checks: dict[str, FormatCheck] = field(default_factory=dict)
    _reference: Measured | None = None

    @property
    def paddle(self) -> Path:
        """Folder of Paddle's format."""
        return self.folder / "paddle"

    @property
    def onnx(self) -> Path:
        """The ONNX file."""
        return self.folder / "onnx" / ONNX_FILE

    @property
    def reference(self) -> Measured:
        """The trained model on the set."""
        if self._reference is None:
            self.tell("measuring the trained model")
            self._reference = self.checker.reference()
        return self._reference

    @property
    def config(self) -> dict[str, Any]:
        """The settings of `inference.yml`."""
        return settings_for(self.subject)

    def metadata(self) -> dict[str, str]:
        """What an ONNX file says about itself."""
        return metadata_for(
            model_name=self.subject.model_name,
            serving_name=lookup(self.subject.model_name).serving_name,
            geometry=self.subject.geometry,
            dictionary=self.subject.dictionary,
            metrics=self.metrics,
            config=self.config,
        )

    def make_paddle(self) -> None:
        """Writes Paddle's format."""
        self.tell("writing Paddle's format")
        layer = self.subject.layer
        if isinstance(self.subject.geometry, TableGeometry):
            from ocr_finetune_trainer.models.table import ServedTable

            layer = ServedTable(layer)
            layer.eval()
        save_paddle(layer, folder=self.paddle, geometry=self.subject.geometry, config=self.config)

    def make_onnx(self) -> None:
        """Writes ONNX, with the settings beside it so that `paddleocr` loads it with `engine="onnxruntime"`."""
        self.tell("writing ONNX")
        save_onnx(self.paddle, path=self.onnx, geometry=self.subject.geometry, metadata=self.metadata())
        write_config(self.config, self.onnx.parent)

    def check_paddle(self) -> None:
        """Loads Paddle's format with Paddle's engine and with `paddleocr`, and measures both."""
        self.tell("checking Paddle's format")
        self.check("paddle", self.checker.network(self._paddle_network()), self.paddle)
        self.tell("checking with paddleocr")
        self.check("paddleocr", self.checker.served(self.paddle), self.paddle)

    def _paddle_network(self) -> PaddleInferenceNetwork:
        # oneDNN stumbles over the loop of a table model; `paddleocr` switches it off for SLANet, too.
        return PaddleInferenceNetwork(self.paddle, onednn=not isinstance(self.subject.geometry, TableGeometry))

    def check_onnx(self) -> None:
        """Loads ONNX with onnxruntime and measures it."""
        self.tell("checking ONNX")
        self.check("onnx", self.checker.network(OnnxNetwork(self.onnx)), self.onnx)

    def make_legacy(self, config: RunConfig, *, workspace: Workspace) -> None:
        """Writes the older form of Paddle's format in a process of its own, loads and measures it."""
        from ocr_finetune_trainer.export.legacy import save_legacy

        folder = self.folder / "paddle-legacy"
        self.tell("writing Paddle's older format")
        save_legacy(config, workspace=workspace, folder=folder)
        self.tell("checking Paddle's older format")
        onednn = not isinstance(self.subject.geometry, TableGeometry)
        self.check("paddle-legacy", self.checker.network(PaddleInferenceNetwork(folder, onednn=onednn)), folder)

    def check(self, name: str, measured: Measured, path: Path) -> FormatCheck:
        """Compares a format with the trained model and keeps the result."""
        check = compare(name, measured, self.reference, checker=self.checker, size=size_of(path))
        self.checks[name] = check
        return check

    def raise_problems(self, *, exempt: frozenset[str] = frozenset()) -> None:
        """Ends the stage if a format is not the trained model.

        Args:
            exempt: Formats that have been judged elsewhere.

        Raises:
            OCRFineTuneError: A format differs by more than is allowed; all of them are named.
        """
        problems = [
            problem
            for name, check in self.checks.items()
            if name not in exempt
            for problem in problems_of(check, metric=self.checker.metric, max_drop=self.max_drop)
        ]
        if problems:
            raise OCRFineTuneError(
                *problems, hint=f"nothing was exported; what was written is kept in {self.folder} to look at"
            )


def settings_for(subject: Subject) -> dict[str, Any]:
    """The settings of a model's `inference.yml`."""
    serving_name = lookup(subject.model_name).serving_name
    if isinstance(subject.geometry, RecognitionGeometry):
        if subject.dictionary is None:
            raise TypeError("a recognition model has a dictionary")
        return recognition_config(serving_name=serving_name, geometry=subject.geometry, dictionary=subject.dictionary)
    if isinstance(subject.geometry, TableGeometry):
        return table_config(serving_name=serving_name, geometry=subject.geometry)
    if isinstance(subject.geometry, OrientationGeometry):
        return orientation_config(serving_name=serving_name, geometry=subject.geometry)
    return detection_config(serving_name=serving_name, geometry=subject.geometry, postprocess=subject.postprocess)


def put_in_place(built: Path, target: Path) -> None:
    """Replaces a folder by another one in two renames."""
    old = target.with_name(f".{target.name}.old.{os.getpid()}")
    if target.exists():
        target.rename(old)
    built.rename(target)
    shutil.rmtree(old, ignore_errors=True)
