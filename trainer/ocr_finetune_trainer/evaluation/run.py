"""What evaluations of all kinds of models have in common: two models, one set, a verdict, and files."""

from __future__ import annotations

import tempfile
from abc import ABC, abstractmethod
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ocr_finetune_api.exit_codes import DataError
from ocr_finetune_api.model_table import Kind
from ocr_finetune_trainer.data.store import DataSet
from ocr_finetune_trainer.evaluation.bad_cases import FOLDER as BAD_CASES
from ocr_finetune_trainer.evaluation.bad_cases import BadCase, write_bad_cases
from ocr_finetune_trainer.evaluation.files import write_json, write_jsonl, write_text
from ocr_finetune_trainer.evaluation.gate import GateInput, Verdict, judge
from ocr_finetune_trainer.evaluation.overlap import shared_pictures
from ocr_finetune_trainer.evaluation.subjects import Subject, base_of, trained_of

if TYPE_CHECKING:
    from ocr_finetune_trainer.evaluation.end_to_end import EndToEnd
    from ocr_finetune_trainer.evaluation.held_out import HeldOutSet
    from ocr_finetune_trainer.stages.context import StageContext

__all__ = ["PAGES", "EvaluationRun"]

PAGES = "pages.jsonl"


class EvaluationRun(ABC):
    """Measures one run. `measure` first, then `write`, then the rest can be asked.

    Args:
        context: The stage.
        measured_on: The set to measure on.
    """

    def __init__(self, context: StageContext, *, measured_on: HeldOutSet) -> None:
        self.context = context
        self.spec = context.spec
        self.workspace = context.workspace
        self.measured_on = measured_on
        self.dataset = measured_on.dataset
        self.optimistic = measured_on.optimistic
        self.warnings: list[str] = []
        self.end_to_end: EndToEnd | None = None
        if self.optimistic:
            self.warnings.append(
                "there is no test set: measured on the validation set, which chose the checkpoint, so the figures are "
                "optimistic; give dataset.test"
            )

    @cached_property
    def trained(self) -> Subject:
        """The best checkpoint."""
        return trained_of(self.workspace, self.spec)

    @cached_property
    def base(self) -> Subject:
        """What training started from."""
        return base_of(self.workspace, self.spec)

    @abstractmethod
    def measure(self) -> None:
        """Runs both models on all sets."""

    def measure_pages(self) -> None:
        """Reads whole pages together with another run's model, where the manifest asks for that.

        Raises:
            InputMissingError: There is no such run, or it is not trained.
            ConfigurationError: Its model is of the same kind.
            DataError: The pages have no texts.
        """
        asked = self.spec.evaluation.end_to_end
        if asked is None:
            return
        from ocr_finetune_trainer.evaluation.end_to_end import (
            find_run,
            measure_end_to_end,
            served_pair,
            subject_of_run,
        )

        self.progress(0.0, "reading whole pages")
        partner = subject_of_run(find_run(self.workspace.root, asked.with_.run))
        pages = DataSet.open(self.workspace.data / "end-to-end")
        words = {
            subject.kind: f"{name}, {subject.note}"
            for subject, name in ((self.trained, self.context.config.run.name), (partner, asked.with_.run))
        }
        with tempfile.TemporaryDirectory(prefix="ocrft-pages-") as aside:
            self.end_to_end = measure_end_to_end(
                served_pair(self.trained, partner, aside=Path(aside)),
                pages,
                iou=asked.iou,
                detector=words[Kind.DETECTION],
                recogniser=words[Kind.RECOGNITION],
                progress=lambda done, total: self.progress(done / max(total, 1), "reading whole pages"),
            )

    @property
    @abstractmethod
    def metric(self) -> str:
        """The gate's metric, `auto` resolved."""

    @abstractmethod
    def gate_input(self) -> GateInput:
        """What the gate decides on."""

    @abstractmethod
    def document(self) -> dict[str, Any]:
        """Everything measured, as JSON values."""

    @abstractmethod
    def report(self) -> str:
        """The report as HTML."""

    @property
    @abstractmethod
    def metrics(self) -> dict[str, Any]:
        """The few figures of the result document: `base`, `best`, `improvement`."""

    @property
    @abstractmethod
    def summary(self) -> str:
        """One line for people."""

    @cached_property
    def verdict(self) -> Verdict:
        """What the gate says."""
        return judge(self.spec.evaluation.gate, self.gate_input())

    def verdict_document(self) -> dict[str, Any]:
        """The verdict for the report; empty where nothing was asked for."""
        verdict, gate = self.verdict, self.spec.evaluation.gate
        asked = any(value is not None for value in (gate.min, gate.min_improvement, gate.max_regression))
        if not asked and not self.spec.evaluation.guard:
            return {}
        return {"passed": verdict.passed, "failures": verdict.failures, "notes": verdict.notes}

    @property
    def facts(self) -> dict[str, str]:
        """What stands at the top of the report."""
        facts = {
            "run": self.context.config.run.name,
            "model": f"{self.spec.model.name}, {self.trained.note}",
            "compared with": self.base.note,
            "measured on": f"{len(self.dataset)} samples of the {self.measured_on.name} set ({self.dataset.content_hash})"
            + (", optimistic" if self.optimistic else ""),
            "written": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        }
        if self.end_to_end is not None:
            facts["whole pages"] = f"{self.end_to_end.summary()}, through paddleocr.PaddleOCR"
        return facts

    @property
    def artifacts(self) -> dict[str, str]:
        """What `write` leaves, relative to the run's folder."""
        folder = self.workspace.evaluation.name
        return {
            "report": f"{folder}/report.html",
            "metrics": f"{folder}/metrics.json",
            **({"badCases": f"{folder}/{BAD_CASES}"} if (self.workspace.evaluation / BAD_CASES).is_dir() else {}),
        }

    @cached_property
    def shared(self) -> list[dict[str, Any]]:
        """Samples that training has seen."""
        found = shared_pictures(self.dataset, DataSet.open(self.workspace.data / "train"))
        if found:
            names = ", ".join(str(row["origin"]) for row in found[:5])
            self.warnings.append(
                f"{len(found)} samples of the {self.measured_on.name} set are in the training data, such as {names}; "
                "all are listed in metrics.json under sharedWithTraining, and figures on them prove nothing"
            )
        return found

    def refuse_shared(self) -> None:
        """Ends the stage before anything is measured where `evaluation.strict` asks for that.

        Raises:
            DataError: The set shares samples with training; each is named with where it stands on both sides.
        """
        if not self.spec.evaluation.strict or not self.shared:
            return
        named = [f"{row['origin']}: the same picture is in training at {row['inTraining']}" for row in self.shared]
        raise DataError(
            f"{len(named)} samples of the {self.measured_on.name} set are in the training data",
            *named,
            hint="remove them from one side, or measure without --strict (evaluation.strict: false)",
        )

    def bad_cases(self) -> list[BadCase]:
        """Samples worth a second look; none where there is no way to label them again."""
        return []

    def write(self) -> None:
        """Writes `metrics.json`, `report.html` and the folder of bad cases."""
        document = {
            "set": self.measured_on.name,
            "optimistic": self.optimistic,
            "dataHash": self.dataset.content_hash,
            "sharedWithTraining": self.shared,
            "checkpointStep": self.trained.checkpoint.step if self.trained.checkpoint else 0,
            "gate": {
                "metric": self.metric,
                "passed": self.verdict.passed,
                "failures": list(self.verdict.failures),
                "notes": list(self.verdict.notes),
            },
            **self.document(),
        }
        if self.end_to_end is not None:
            document["endToEnd"] = self.end_to_end.as_dict()
            write_jsonl(self.workspace.evaluation / PAGES, [page.as_dict() for page in self.end_to_end.pages])
        write_json(self.workspace.evaluation / "metrics.json", document)
        write_text(self.workspace.evaluation / "report.html", self.report())
        write_bad_cases(self.workspace.evaluation / BAD_CASES, self.bad_cases(), dataset=self.dataset)

    def progress(self, done: float, message: str) -> None:
        """Tells how far the stage is, in parts of 1."""
        self.context.reporter.update(percent=min(100.0, 100.0 * done), message=message)
