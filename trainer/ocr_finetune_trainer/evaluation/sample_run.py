"""The evaluation of a model whose samples each have their own figures; what tables and turned lines share."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

from ocr_finetune_api.progress import Activity
from ocr_finetune_trainer.data.store import DataSet
from ocr_finetune_trainer.evaluation.files import write_jsonl
from ocr_finetune_trainer.evaluation.gate import GateInput, GuardInput
from ocr_finetune_trainer.evaluation.recognition_run import PREDICTIONS
from ocr_finetune_trainer.evaluation.run import EvaluationRun, picture_of
from ocr_finetune_trainer.evaluation.sample_evaluation import SampledMeasurement, SampleEvaluation

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from ocr_finetune_trainer.evaluation.subjects import Subject

__all__ = ["SampleRun"]


class SampleRun(EvaluationRun):
    """Shows the test set and the guard sets to both models."""

    figures: tuple[str, ...]
    """Figures that get an interval; the first is the gate's unless it names another."""

    evaluation: SampleEvaluation
    guards: dict[str, SampleEvaluation]

    @abstractmethod
    def measurement(
        self, subject: Subject, dataset: DataSet, *, unusable: int, progress: Callable[[int, int], None]
    ) -> SampledMeasurement:
        """What one model makes of one set."""

    @abstractmethod
    def predictions(self) -> list[dict[str, Any]]:
        """What the new model said to each sample, as JSON values."""

    def measure(self) -> None:
        """Runs both models on all sets."""
        self.context.reporter.activity(Activity.EVALUATING, "measuring on the test set")
        names = [guard.name for guard in self.spec.evaluation.guard]
        parts = 2 * (1 + len(names))
        self.evaluation = self._both(self.dataset, part=0, parts=parts)
        self.guards = {
            name: self._both(DataSet.open(self.workspace.data / f"guard-{name}"), part=2 * number, parts=parts)
            for number, name in enumerate(names, start=1)
        }

    def _both(self, dataset: DataSet, *, part: int, parts: int) -> SampleEvaluation:
        unusable = self.measured_on.unusable if dataset is self.dataset else 0
        measured = [
            self.measurement(
                subject,
                dataset,
                unusable=unusable,
                progress=lambda done, total, at=part + number, note=subject.note: self.progress(  # type: ignore[misc]
                    (at + done / max(total, 1)) / parts, note
                ),
            )
            for number, subject in enumerate((self.trained, self.base))
        ]
        return SampleEvaluation(
            kind=self.spec.model.kind.value, metrics=self.figures, best=measured[0], base=measured[1]
        )

    @property
    def metric(self) -> str:
        """The gate's metric."""
        chosen = self.spec.evaluation.gate.metric
        if chosen == "auto":
            chosen = self.spec.evaluation.metric
        return self.figures[0] if chosen == "auto" else chosen

    def gate_input(self) -> GateInput:
        """What the gate decides on."""
        guards = []
        for spec in self.spec.evaluation.guard:
            figures = self.guards[spec.name].headline()
            new, base = (float(figures[which][self.metric] or 0.0) for which in ("best", "base"))
            guards.append(GuardInput(spec=spec, new=new, base=base))
        return GateInput(
            metric=self.metric,
            new=self.evaluation.interval(self.metric),
            improvement=self.evaluation.improvement(self.metric),
            regressed=self.evaluation.regressed,
            sources={name: float(row[self.metric] or 0.0) for name, row in self.evaluation.by_source().items()},
            guards=guards,
        )

    def document(self) -> dict[str, Any]:
        """Everything measured."""
        guards = {name: guard.headline() for name, guard in self.guards.items()}
        return {**self.evaluation.document, "guard": guards, "baseNote": self.base.note}

    @property
    def metrics(self) -> dict[str, Any]:
        """The few figures of the result document."""
        document = self.evaluation.document
        return {
            "base": document["base"],
            "best": document["best"],
            "improvement": document["improvement"],
            "interval": document["intervals"],
            "guard": {name: guard.headline() for name, guard in self.guards.items()},
            "optimistic": self.optimistic,
        }

    @property
    def summary(self) -> str:
        """One line for people."""
        base, best = self.evaluation.document["base"], self.evaluation.document["best"]
        shown = ", ".join(f"{name} {base[name] or 0.0:.2%} → {best[name] or 0.0:.2%}" for name in self.figures[:2])
        return f"{shown} on {best['samples']} samples"

    @property
    def artifacts(self) -> dict[str, str]:
        """What `write` leaves."""
        return super().artifacts | {"predictions": f"{self.workspace.evaluation.name}/{PREDICTIONS}"}

    def write(self) -> None:
        """Writes the report, the figures, and what was said to each sample."""
        super().write()
        rows = self.predictions()
        for row in rows:
            row["origin"] = self.dataset.origin(row["index"])
        write_jsonl(self.workspace.evaluation / PREDICTIONS, rows)

    def picture(self, index: int) -> NDArray[np.uint8] | None:
        """The picture of a sample, BGR; None if it has none."""
        return picture_of(self.dataset, index)
