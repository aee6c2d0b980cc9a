"""The smaller format of an export: made from training pictures, chosen on the validation set, judged on the test set."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np

from ocr_finetune_trainer.data.pictures import PictureError, decode
from ocr_finetune_trainer.data.store import DataSet
from ocr_finetune_trainer.evaluation.held_out import HeldOutSet
from ocr_finetune_trainer.evaluation.networks import OnnxNetwork
from ocr_finetune_trainer.export.inference_config import write_config
from ocr_finetune_trainer.export.quantize import Quantized, quantize_int8, to_fp16
from ocr_finetune_trainer.geometry import DetectionGeometry
from ocr_finetune_trainer.metrics.recognition import higher_is_better

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ocr_finetune_api.workspace import Workspace
    from ocr_finetune_trainer.export.checks import Checker
    from ocr_finetune_trainer.export.exporter import Exporter
    from ocr_finetune_trainer.geometry import Geometry

__all__ = ["CALIBRATION_PICTURES", "Calibration", "Small", "make_small"]

CALIBRATION_PICTURES = 100
VALIDATION_SAMPLES = 300


class Calibration(Sequence["NDArray[np.float32]"]):
    """Inputs made from training pictures when they are asked for; a hundred pages at once would fill the memory.

    Args:
        dataset: The training set.
        geometry: How pictures become inputs.
        count: How many pictures, spread evenly over the set.
    """

    def __init__(self, dataset: DataSet, *, geometry: Geometry, count: int = CALIBRATION_PICTURES) -> None:
        self._dataset = dataset
        self._geometry = geometry
        self._chosen: Sequence[int] = _spread(len(dataset), count)

    def __len__(self) -> int:
        return len(self._chosen)

    @overload
    def __getitem__(self, index: int) -> NDArray[np.float32]: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[NDArray[np.float32]]: ...
    def __getitem__(self, index: int | slice) -> NDArray[np.float32] | Sequence[NDArray[np.float32]]:
        if isinstance(index, slice):
            part = Calibration(self._dataset, geometry=self._geometry, count=0)
            part._chosen = self._chosen[index]
            return part
        picture = decode(self._dataset.image(self._chosen[index]))
        if isinstance(self._geometry, DetectionGeometry):
            return self._geometry.normalization(self._geometry.resize(picture).picture)[None]
        return self._geometry.batch([picture])

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        for number in range(len(self)):
            try:
                yield self[number]
            except PictureError:
                continue


def _spread(total: int, count: int) -> list[int]:
    """`count` numbers spread evenly below `total`."""
    if total <= count:
        return list(range(total))
    return [round(i * (total - 1) / (count - 1)) for i in range(count)] if count > 1 else [0][:count]


@dataclass(frozen=True, kw_only=True)
class Small:
    """What became of the wish for a smaller model.

    Attributes:
        shipped: Whether it is part of the export.
        path: The file, relative to the export.
        note: What was done or why not, in a sentence.
        quantized: The choice of layers, for int8.
    """

    shipped: bool
    path: str
    note: str
    quantized: Quantized | None

    def as_dict(self) -> dict[str, Any]:
        """As JSON values."""
        values: dict[str, Any] = {"shipped": self.shipped, "note": self.note}
        if self.quantized is not None:
            values |= {
                "inFloat": dict(self.quantized.in_float),
                "layers": self.quantized.layers,
                "weightsOnly": self.quantized.weights_only,
                "tried": [{"inFloat": count, "drop": drop} for count, drop in self.quantized.tried],
                "sizeRatio": self.quantized.ratio,
                "floatBytes": dict(self.quantized.float_bytes),
                "seconds": self.quantized.seconds,
            }
        return values


def make_small(
    exporter: Exporter,
    kind: Literal["int8", "fp16"],
    *,
    workspace: Workspace,
    checker_for: Callable[[HeldOutSet], Checker],
) -> Small:
    """Makes the smaller format beside the ONNX file, and takes it away again if it is not good enough.

    Args:
        exporter: Has written and checked ONNX.
        kind: Which.
        workspace: The run's files.
        checker_for: Measures on another set.
    """
    target = exporter.folder / kind / "inference.onnx"
    quantized = None
    if kind == "int8":
        exporter.tell("measuring on the validation set")
        quantized = _int8(exporter, target, workspace=workspace, checker_for=checker_for)
    else:
        exporter.tell("writing fp16")
        to_fp16(exporter.onnx, target)
    write_config(exporter.config, target.parent)
    if quantized is None or not quantized.within:
        exporter.tell(f"checking {kind}")
        exporter.check(kind, exporter.checker.network(OnnxNetwork(target)), target)
    check = exporter.checks[kind]
    made = quantized.note() if quantized is not None else "fp16"
    if check.drop <= exporter.max_drop:
        return Small(shipped=True, path=f"{kind}/inference.onnx", note=made, quantized=quantized)
    shutil.rmtree(target.parent)
    del exporter.checks[kind]
    return Small(
        shipped=False,
        path="",
        note=f"{kind} is not shipped: {exporter.checker.metric} on the test set drops by {check.drop:.4f}, and "
        f"export.maxDrop is {exporter.max_drop:g} ({made}); the float model is shipped",
        quantized=quantized,
    )


def _int8(
    exporter: Exporter, target: Path, *, workspace: Workspace, checker_for: Callable[[HeldOutSet], Checker]
) -> Quantized:
    validation = DataSet.open(workspace.data / "validation")
    checker = checker_for(HeldOutSet(name="validation", dataset=_Part(validation, VALIDATION_SAMPLES), unusable=0))
    metric = checker.metric
    before = checker.network(OnnxNetwork(exporter.onnx)).metrics[metric]

    def drop_of(file: Path) -> float:
        after = checker.network(OnnxNetwork(file)).metrics[metric]
        return float(before - after if higher_is_better(metric) else after - before)

    def accept(file: Path) -> bool:
        check = exporter.check("int8", exporter.checker.network(OnnxNetwork(file)), file)
        return check.drop <= exporter.max_drop

    return quantize_int8(
        exporter.onnx,
        target,
        calibration=Calibration(DataSet.open(workspace.data / "train"), geometry=exporter.subject.geometry),
        drop_of=drop_of,
        max_drop=exporter.max_drop,
        accept=accept,
        tell=exporter.tell,
    )


class _Part(DataSet):
    """Some samples of a set, spread evenly over it."""

    def __init__(self, whole: DataSet, count: int) -> None:
        self._whole = whole
        self._chosen = _spread(len(whole), count)
        self.path = whole.path
        self.content_hash = whole.content_hash
        self.source_names = whole.source_names
        self.sizes = whole.sizes[self._chosen]
        self.sources = whole.sources[self._chosen]

    def __len__(self) -> int:
        return len(self._chosen)

    def __getitem__(self, index: int) -> Any:
        return self._whole[self._chosen[index]]

    def image(self, index: int) -> bytes:
        """The encoded picture alone."""
        return self._whole.image(self._chosen[index])
