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
from ocr_finetune_trainer.data.pictures import PictureError, decode
from ocr_finetune_trainer.data.store import DataSet
from ocr_finetune_trainer.evaluation.bad_cases import FOLDER as BAD_CASES
from ocr_finetune_trainer.evaluation.bad_cases import BadCase, write_bad_cases
from ocr_finetune_trainer.evaluation.files import write_json, write_jsonl, write_text
from ocr_finetune_trainer.evaluation.gate import GateInput, Verdict, judge
from ocr_finetune_trainer.evaluation.overlap import shared_pictures
from ocr_finetune_trainer.evaluation.report.sections import guard_section, pages_section
from ocr_finetune_trainer.evaluation.subjects import Subject, base_of, trained_of

if TYPE_CHECKING:
    import numpy as np
    from markupsafe import Markup
    from numpy.typing import NDArray

    from ocr_finetune_trainer.evaluation.end_to_end import EndToEnd
    from ocr_finetune_trainer.evaluation.held_out import HeldOutSet
    from ocr_finetune_trainer.stages.context import StageContext

__all__ = ["PAGES", "EvaluationRun", "picture_of"]

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
        self.end_to_end_before: EndToEnd | None = None
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

        partner = subject_of_run(find_run(self.workspace.root, asked.with_.run))
        pages = DataSet.open(self.workspace.data / "end-to-end")
        # An untrained model finds noise; there is nothing to compare with.
        subjects = [self.trained] if self.spec.model.pretrained == "none" else [self.trained, self.base]
        measured = []
        for number, subject in enumerate(subjects):
            words = {subject.kind: f"{self.context.config.run.name}, {subject.note}"}
            words |= {partner.kind: f"{asked.with_.run}, {partner.note}"}

            def progress(done: int, total: int, *, part: int = number) -> None:
                self.progress((part + done / max(total, 1)) / len(subjects), "reading whole pages")

            progress(0, 1)
            with tempfile.TemporaryDirectory(prefix="ocrft-pages-") as aside:
                measured.append(
                    measure_end_to_end(
                        served_pair(subject, partner, aside=Path(aside)),
                        pages,
                        iou=asked.iou,
                        detector=words[Kind.DETECTION],
                        recogniser=words[Kind.RECOGNITION],
                        progress=progress,
                    )
                )
        self.end_to_end, self.end_to_end_before = [*measured, None][:2]

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

    def sections(self) -> list[Markup]:
        """Parts of the report that do not depend on the kind of model."""
        limits = {guard.name: guard.max_drop for guard in self.spec.evaluation.guard}
        found = [guard_section(self.document().get("guard", {}), limits=limits, metric=self.metric)]
        if self.end_to_end is not None:
            pages = DataSet.open(self.workspace.data / "end-to-end")
            found.append(
                pages_section(
                    self.end_to_end, self.end_to_end_before, picture_of=lambda index: picture_of(pages, index)
                )
            )
        return found

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
            document["endToEnd"] = self.end_to_end.as_dict(base=self.end_to_end_before)
            write_jsonl(self.workspace.evaluation / PAGES, [page.as_dict() for page in self.end_to_end.pages])
        write_json(self.workspace.evaluation / "metrics.json", document)
        write_text(self.workspace.evaluation / "report.html", self.report())
        write_bad_cases(self.workspace.evaluation / BAD_CASES, self.bad_cases(), dataset=self.dataset)

    def progress(self, done: float, message: str) -> None:
        """Tells how far the stage is, in parts of 1."""
        self.context.reporter.update(percent=min(100.0, 100.0 * done), message=message)


def picture_of(dataset: DataSet, index: int) -> NDArray[np.uint8] | None:
    """The picture of a sample, BGR; None if it has none that can be opened."""
    try:
        return decode(dataset.image(index))
    except PictureError:
        return None
