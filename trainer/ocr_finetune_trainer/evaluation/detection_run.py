"""The evaluation of a detection model."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from ocr_finetune_api.progress import Activity
from ocr_finetune_trainer.data.store import DataSet
from ocr_finetune_trainer.evaluation.bad_cases import BadCase, bad_pages
from ocr_finetune_trainer.evaluation.detection import DetectionMeasurement, measure_detection
from ocr_finetune_trainer.evaluation.detection_breakdown import DetectionEvaluation
from ocr_finetune_trainer.evaluation.files import write_jsonl
from ocr_finetune_trainer.evaluation.gate import GateInput, GuardInput
from ocr_finetune_trainer.evaluation.recognition_run import BAD_CASES, PREDICTIONS
from ocr_finetune_trainer.evaluation.report.detection import detection_report
from ocr_finetune_trainer.evaluation.run import EvaluationRun, picture_of
from ocr_finetune_trainer.geometry import DetectionGeometry

if TYPE_CHECKING:
    from ocr_finetune_trainer.evaluation.subjects import Subject
    from ocr_finetune_trainer.geometry import ResizeRule

__all__ = ["DetectionRun"]


class DetectionRun(EvaluationRun):
    """Finds the texts of the test set and the guard sets with both models."""

    evaluation: DetectionEvaluation
    guards: dict[str, DetectionEvaluation]

    def measure(self) -> None:
        """Runs both models on all sets."""
        self.context.reporter.activity(Activity.EVALUATING, "finding the texts of the test set")
        geometry = self.trained.geometry
        if not isinstance(geometry, DetectionGeometry):
            raise TypeError(f"{self.trained.model_name} is no detection model")
        names = [guard.name for guard in self.spec.evaluation.guard]
        parts = 2 + len(geometry.other_rules) + 2 * len(names)
        best = self._find(self.trained, self.dataset, part=0, parts=parts)
        base = self._find(self.base, self.dataset, part=1, parts=parts)
        others = {}
        for number, rule in enumerate(geometry.other_rules, start=2):
            measured = self._find(self.trained, self.dataset, part=number, parts=parts, rule=rule)
            others[rule.name] = DetectionMeasurement.scores_of(measured.sums)
        self.evaluation = DetectionEvaluation(best=best, base=base, other_rules=others)
        self.guards = {}
        for number, name in enumerate(names):
            guard = DataSet.open(self.workspace.data / f"guard-{name}")
            part = 2 + len(others) + 2 * number
            self.guards[name] = DetectionEvaluation(
                best=self._find(self.trained, guard, part=part, parts=parts),
                base=self._find(self.base, guard, part=part + 1, parts=parts),
                other_rules={},
            )

    def _find(
        self, subject: Subject, dataset: DataSet, *, part: int, parts: int, rule: ResizeRule | None = None
    ) -> DetectionMeasurement:
        geometry = subject.geometry
        if not isinstance(geometry, DetectionGeometry):
            raise TypeError(f"{subject.model_name} is no detection model")
        return measure_detection(
            subject.layer,
            dataset,
            geometry=geometry if rule is None else geometry.with_rule(rule),
            postprocess=subject.postprocess,
            unusable=self.measured_on.unusable if dataset is self.dataset else 0,
            progress=lambda done, total: self.progress((part + done / max(total, 1)) / parts, subject.note),
        )

    @property
    def metric(self) -> str:
        """The gate's metric."""
        chosen = self.spec.evaluation.gate.metric
        if chosen == "auto":
            chosen = self.spec.evaluation.metric
        return "hmean" if chosen == "auto" else chosen

    def gate_input(self) -> GateInput:
        """What the gate decides on."""
        guards = [
            GuardInput(spec=spec, new=figures["best"][self.metric], base=figures["base"][self.metric])
            for spec in self.spec.evaluation.guard
            for figures in [self.guards[spec.name].headline()]
        ]
        sources = self.evaluation.document["bySource"]
        return GateInput(
            metric=self.metric,
            new=self.evaluation.interval(self.metric),
            improvement=self.evaluation.improvement(self.metric),
            regressed=self.evaluation.regressed,
            sources={name: float(row[self.metric] or 0.0) for name, row in sources.items()},
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
        return (
            f"hmean {base['hmean']:.2%} → {best['hmean']:.2%} (precision {best['precision']:.2%}, recall "
            f"{best['recall']:.2%}) on {best['pages']} pages"
        )

    @property
    def artifacts(self) -> dict[str, str]:
        """What `write` leaves."""
        return super().artifacts | {"predictions": f"{self.workspace.evaluation.name}/{PREDICTIONS}"}

    def write(self) -> None:
        """Writes the report, the figures, and what was found on each page."""
        super().write()
        rows = self.evaluation.predictions()
        for row in rows:
            row["origin"] = self.dataset.origin(row["index"])
        write_jsonl(self.workspace.evaluation / PREDICTIONS, rows)

    def bad_cases(self) -> list[BadCase]:
        """Pages where labels may be missing, those that got worse, and the worst."""
        chosen = [(page, "labels may be missing") for page in self.evaluation.unlabelled()[:BAD_CASES]]
        chosen += [(page, "the base model found more") for page in self.evaluation.worse()[:BAD_CASES]]
        chosen += [(page, "texts missed, or found where none is") for page in self.evaluation.worst(BAD_CASES)]
        return bad_pages(chosen, texts=lambda index: self.dataset[index].texts)

    def report(self) -> str:
        """The report as HTML."""
        return detection_report(
            self.evaluation,
            picture_of=functools.partial(picture_of, self.dataset),
            sections=self.sections(),
            origin_of=self.dataset.origin,
            title=f"Evaluation of {self.context.config.run.name}",
            facts=self.facts,
            verdict=self.verdict_document(),
        )
