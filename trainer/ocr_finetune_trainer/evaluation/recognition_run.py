"""The evaluation of a recognition model."""

from __future__ import annotations

import functools
from collections import Counter
from typing import TYPE_CHECKING, Any

from ocr_finetune_api.progress import Activity
from ocr_finetune_trainer.data.store import DataSet
from ocr_finetune_trainer.evaluation.bad_cases import BadCase, bad_lines
from ocr_finetune_trainer.evaluation.breakdown import likely_wrong_labels
from ocr_finetune_trainer.evaluation.evaluate import measure_recognition
from ocr_finetune_trainer.evaluation.files import write_jsonl
from ocr_finetune_trainer.evaluation.gate import GateInput, GuardInput
from ocr_finetune_trainer.evaluation.recognition import RecognitionEvaluation
from ocr_finetune_trainer.evaluation.report import recognition_report
from ocr_finetune_trainer.evaluation.run import EvaluationRun, picture_of
from ocr_finetune_trainer.geometry import RecognitionGeometry

if TYPE_CHECKING:
    from ocr_finetune_trainer.evaluation.records import RecognitionMeasurement
    from ocr_finetune_trainer.evaluation.subjects import Subject

__all__ = ["PREDICTIONS", "RecognitionRun"]

PREDICTIONS = "predictions.jsonl"
BAD_CASES = 200


class RecognitionRun(EvaluationRun):
    """Reads the test set and the guard sets with both models."""

    evaluation: RecognitionEvaluation
    guards: dict[str, RecognitionEvaluation]

    def measure(self) -> None:
        """Runs both models on all sets."""
        self.context.reporter.activity(Activity.EVALUATING, "reading the test set")
        names = [guard.name for guard in self.spec.evaluation.guard]
        parts = 2 * (1 + len(names))
        best = self._read(self.trained, self.dataset, part=0, parts=parts)
        base = self._read(self.base, self.dataset, part=1, parts=parts)
        self.evaluation = RecognitionEvaluation(
            best=best,
            base=base,
            trained_on=self._training_characters(),
            groups=[self.dataset.group(index) for index in range(len(self.dataset))],
        )
        self.guards = {}
        for number, name in enumerate(names, start=1):
            guard = DataSet.open(self.workspace.data / f"guard-{name}")
            self.guards[name] = RecognitionEvaluation(
                best=self._read(self.trained, guard, part=2 * number, parts=parts),
                base=self._read(self.base, guard, part=2 * number + 1, parts=parts),
            )

    def _read(self, subject: Subject, dataset: DataSet, *, part: int, parts: int) -> RecognitionMeasurement:
        if not isinstance(subject.geometry, RecognitionGeometry) or subject.dictionary is None:
            raise TypeError(f"{subject.model_name} is no recognition model")
        return measure_recognition(
            subject.layer,
            dataset,
            geometry=subject.geometry,
            dictionary=subject.dictionary,
            unusable=self.measured_on.unusable if dataset is self.dataset else 0,
            looks=subject is self.trained and dataset is self.dataset,
            progress=lambda done, total: self.progress((part + done / max(total, 1)) / parts, subject.note),
        )

    def _training_characters(self) -> Counter[str]:
        counts: Counter[str] = Counter()
        for text in DataSet.open(self.workspace.data / "train").texts:
            counts.update(text)
        return counts

    @property
    def metric(self) -> str:
        """The gate's metric."""
        chosen = self.spec.evaluation.gate.metric
        if chosen == "auto":
            chosen = self.spec.evaluation.metric
        return "accuracy" if chosen == "auto" else chosen

    def gate_input(self) -> GateInput:
        """What the gate decides on."""
        sources = self.evaluation.document["bySource"]
        guards = [
            GuardInput(spec=spec, new=figures["best"][self.metric], base=figures["base"][self.metric])
            for spec in self.spec.evaluation.guard
            for figures in [self.guards[spec.name].headline()]
        ]
        return GateInput(
            metric=self.metric,
            new=self.evaluation.interval(self.metric),
            improvement=self.evaluation.improvement(self.metric),
            regressed=self.evaluation.regressed,
            sources={name: row[self.metric] for name, row in sources.items()},
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
        document = self.evaluation.document
        return (
            f"accuracy {document['base']['accuracy']:.2%} → {document['best']['accuracy']:.2%}, character error rate "
            f"{document['best']['characterErrorRate']:.2%} on {document['samples']} samples"
        )

    @property
    def artifacts(self) -> dict[str, str]:
        """What `write` leaves."""
        return super().artifacts | {"predictions": f"{self.workspace.evaluation.name}/{PREDICTIONS}"}

    def write(self) -> None:
        """Writes the report, the figures, and what was read in each sample."""
        super().write()
        rows = self.evaluation.predictions()
        for row in rows:
            row["origin"] = self.dataset.origin(row["index"])
        write_jsonl(self.workspace.evaluation / PREDICTIONS, rows)

    def bad_cases(self) -> list[BadCase]:
        """The worst samples, those that got worse, and labels that may be wrong."""
        suspects = likely_wrong_labels(self.evaluation.best, limit=BAD_CASES)
        chosen = [(sample, "the label may be wrong") for sample in suspects]
        chosen += [(new, "the base model read it") for new, _ in self.evaluation.regressions[0][:BAD_CASES]]
        chosen += [(sample, "among the worst") for sample in self.evaluation.worst(BAD_CASES)]
        return bad_lines(chosen, sizes=self.dataset.sizes)

    def report(self) -> str:
        """The report as HTML."""
        return recognition_report(
            self.evaluation,
            picture_of=functools.partial(picture_of, self.dataset),
            sections=self.sections(),
            origin_of=self.dataset.origin,
            title=f"Evaluation of {self.context.config.run.name}",
            facts=self.facts,
            verdict=self.verdict_document(),
        )
