"""The evaluation stage: is the new model better than the one it came from, where does it fail, and may it pass."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from ocr_finetune_api.exit_codes import DataError, GateNotMetError
from ocr_finetune_api.model_table import Kind
from ocr_finetune_api.progress import Activity
from ocr_finetune_trainer.evaluation.gate import Verdict
from ocr_finetune_trainer.evaluation.held_out import test_set
from ocr_finetune_trainer.evaluation.run import EvaluationRun
from ocr_finetune_trainer.stages.context import StageOutcome

if TYPE_CHECKING:
    from ocr_finetune_trainer.stages.context import StageContext

__all__ = ["run"]

logger = logging.getLogger(__name__)


def run(context: StageContext) -> StageOutcome:
    """Measures the best checkpoint and the base model on the test set, writes the report, and lets the gate decide.

    Raises:
        GateNotMetError: The gate or a guard is not met; report and figures are kept.
        DataError: There is nothing to measure on, or, where the manifest is strict, training has seen samples of it.
        InputMissingError: prepare or train has left nothing.
    """
    context.reporter.activity(Activity.LOADING, "loading the model")
    evaluation = _evaluator(context.spec.model.kind)(context, measured_on=test_set(context.workspace))
    evaluation.refuse_shared()
    evaluation.measure()
    evaluation.measure_pages()
    evaluation.write()
    verdict = evaluation.verdict
    outcome = StageOutcome(
        metrics=evaluation.metrics
        | (
            {"endToEnd": evaluation.end_to_end.as_dict(base=evaluation.end_to_end_before)}
            if evaluation.end_to_end is not None
            else {}
        ),
        artifacts=evaluation.artifacts,
        warnings=[*evaluation.warnings, *verdict.notes],
        details={"summary": evaluation.summary, "optimistic": evaluation.optimistic, "gate": _document(verdict)},
    )
    if not verdict.passed:
        error = GateNotMetError(
            *verdict.failures,
            hint=f"look at {context.workspace.evaluation / 'report.html'} for what to improve, or change evaluation.gate",
        )
        error.outcome = outcome  # type: ignore[attr-defined]
        raise error
    return outcome


def _evaluator(kind: Kind) -> type[EvaluationRun]:
    if kind is Kind.RECOGNITION:
        from ocr_finetune_trainer.evaluation.recognition_run import RecognitionRun

        return RecognitionRun
    if kind is Kind.DETECTION:
        from ocr_finetune_trainer.evaluation.detection_run import DetectionRun

        return DetectionRun
    if kind is Kind.TABLE:
        from ocr_finetune_trainer.evaluation.table_run import TableRun

        return TableRun
    if kind is Kind.ORIENTATION:
        from ocr_finetune_trainer.evaluation.orientation_run import OrientationRun

        return OrientationRun
    raise DataError(f"evaluation of {kind.value} models is not known here")


def _document(verdict: Verdict) -> dict[str, Any]:
    return {"passed": verdict.passed, "failures": list(verdict.failures), "notes": list(verdict.notes)}
