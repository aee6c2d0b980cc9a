"""Every exported format is loaded again and measured on the test set, beside the trained model it was made from."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ocr_finetune_trainer.metrics.recognition import higher_is_better

if TYPE_CHECKING:
    from ocr_finetune_trainer.evaluation.networks import Network

__all__ = [
    "DIFFERENT_TEXTS",
    "Checker",
    "FormatCheck",
    "Measured",
    "allowed_differences",
    "compare",
    "problems_of",
    "size_of",
]

# Rounding turns one text in thousands of long lines, and some more where a GPU computes in TF32 what a CPU computes in
# full; anything beyond that is another model. In a small set not one may differ.
DIFFERENT_TEXTS = 0.001
DIFFERENT_TEXTS_GPU = 0.005
SMALL_SET = 200


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a format does on the set.

    Attributes:
        metrics: Its figures.
        outputs: What it gave for each sample, as `Checker.same` compares them.
        seconds: How long that took, loading left out.
    """

    metrics: dict[str, Any]
    outputs: Sequence[Any]
    seconds: float

    @property
    def pictures_per_second(self) -> float:
        """Speed in pictures a second, decoding included."""
        return len(self.outputs) / self.seconds if self.seconds else 0.0


class Checker(Protocol):
    """Measures formats of one kind of model."""

    metric: str

    def reference(self) -> Measured:
        """The trained model itself."""

    def network(self, network: Network) -> Measured:
        """A format that runs in a network of ours."""

    def served(self, folder: Path) -> Measured:
        """The folder in `paddleocr`."""

    def same(self, first: Any, second: Any) -> bool:
        """Whether the results of two formats for one sample are the same but for rounding."""


@dataclass(frozen=True, kw_only=True)
class FormatCheck:
    """How a format compares with the trained model.

    Attributes:
        name: The format, or `paddleocr` for Paddle's format in the serving library.
        metrics: Its figures.
        drop: How much worse the metric is; negative if better.
        different: How many samples come out differently.
        samples: How many there are.
        examples: The first few of them: index, trained model's output, this one's.
        pictures_per_second: Speed on this machine.
        bytes: Size on disk.
    """

    name: str
    metrics: dict[str, Any]
    drop: float
    different: int
    samples: int
    examples: tuple[tuple[int, Any, Any], ...]
    pictures_per_second: float
    bytes: int

    def as_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "metrics": self.metrics,
            "drop": self.drop,
            "different": self.different,
            "samples": self.samples,
            "picturesPerSecond": round(self.pictures_per_second, 1),
            "bytes": self.bytes,
        }


def compare(name: str, measured: Measured, reference: Measured, *, checker: Checker, size: int) -> FormatCheck:
    """Compares a format with the trained model on the same set."""
    metric = checker.metric
    differing = [
        (i, theirs, ours)
        for i, (theirs, ours) in enumerate(zip(reference.outputs, measured.outputs, strict=True))
        if not checker.same(theirs, ours)
    ]
    difference = reference.metrics[metric] - measured.metrics[metric]
    return FormatCheck(
        name=name,
        metrics=measured.metrics,
        drop=difference if higher_is_better(metric) else -difference,
        different=len(differing),
        samples=len(reference.outputs),
        examples=tuple(differing[:5]),
        pictures_per_second=measured.pictures_per_second,
        bytes=size,
    )


def allowed_differences(samples: int) -> int:
    """How many results may differ from the trained model's by rounding."""
    import paddle

    if samples < SMALL_SET:
        return 0
    share = DIFFERENT_TEXTS_GPU if "gpu" in paddle.device.get_device() else DIFFERENT_TEXTS
    return max(1, int(share * samples))


def problems_of(check: FormatCheck, *, metric: str, max_drop: float) -> list[str]:
    """Why a format may not be shipped; empty if it may."""
    problems = []
    allowed = allowed_differences(check.samples)
    if check.different > allowed:
        shown = "; ".join(
            f"sample {i}: {_short(theirs)} became {_short(ours)}" for i, theirs, ours in check.examples[:3]
        )
        problems.append(
            f"{check.name}: {check.different} of {check.samples} results differ from the trained model's "
            f"({allowed} may by rounding): {shown}"
        )
    if check.drop > max_drop:
        problems.append(
            f"{check.name}: {metric} is {check.drop:.4f} worse than the trained model's; export.maxDrop is {max_drop:g}"
        )
    return problems


def _short(output: Any) -> str:
    if isinstance(output, str | float):
        return repr(output)
    return f"{len(output)} regions" if hasattr(output, "__len__") else str(getattr(output, "structure", output))[:80]


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files of a folder."""
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


class Stopwatch:
    """Seconds spent inside."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._started = 0.0

    def __enter__(self) -> Stopwatch:
        self._started = time.perf_counter()
        return self

    def __exit__(self, *exc: object) -> None:
        self.seconds += time.perf_counter() - self._started
