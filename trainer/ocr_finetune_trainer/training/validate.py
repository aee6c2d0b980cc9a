"""Measures a model in the middle of training: each sample of the validation set on exactly one rank, the sums added up."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ocr_finetune_api.exit_codes import ConfigurationError
from ocr_finetune_api.model_table import Kind

if TYPE_CHECKING:
    from paddle import nn

    from ocr_finetune_trainer.data.store import DataSet
    from ocr_finetune_trainer.dictionary import Dictionary
    from ocr_finetune_trainer.evaluation.db_postprocess import DBPostProcess
    from ocr_finetune_trainer.geometry import Geometry
    from ocr_finetune_trainer.training.ranks import Ranks

__all__ = ["measure_on_all_ranks", "metric_of"]

_DEFAULT = {
    Kind.RECOGNITION: "accuracy",
    Kind.DETECTION: "hmean",
    Kind.TABLE: "structureAccuracy",
    Kind.ORIENTATION: "accuracy",
}
_KNOWN = {
    Kind.RECOGNITION: ("accuracy", "editSimilarity", "characterErrorRate"),
    Kind.DETECTION: ("hmean", "precision", "recall"),
    Kind.TABLE: ("structureAccuracy", "teds"),
    Kind.ORIENTATION: ("accuracy",),
}


def metric_of(kind: Kind, wanted: str) -> str:
    """The metric that chooses the best checkpoint.

    Raises:
        ConfigurationError: A model of this kind has no such metric.
    """
    if wanted == "auto":
        return _DEFAULT[kind]
    if wanted not in _KNOWN[kind]:
        raise ConfigurationError(
            f"evaluation.metric: a {kind} model has no {wanted}",
            hint=f"write one of {', '.join(_KNOWN[kind])}, or auto",
        )
    return wanted


def measure_on_all_ranks(
    model: nn.Layer,
    dataset: DataSet,
    *,
    geometry: Geometry,
    dictionary: Dictionary | None,
    ranks: Ranks,
    batch_size: int,
    timeout: float,
    postprocess: DBPostProcess | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Measures the validation set, every rank its share.

    Args:
        model: What is measured; every rank has the same weights.
        dataset: Labelled pictures.
        geometry: How they become the model's input; says what kind of model it is.
        dictionary: The model's characters, for a recognition model.
        ranks: The gang.
        batch_size: Crops of one forward pass.
        timeout: Seconds that the fastest rank waits for the slowest.
        postprocess: From maps to outlines, for a detection model.
        progress: Called with samples done and samples of this rank.

    Returns:
        The figures of the whole set, the same on every rank.
    """
    from ocr_finetune_trainer.evaluation.evaluate import measure

    mine = measure(
        model,
        dataset,
        geometry=geometry,
        dictionary=dictionary,
        indices=range(ranks.rank, len(dataset), ranks.world),
        batch_size=batch_size,
        postprocess=postprocess,
        progress=progress,
    )
    ranks.wait_for_all("the evaluation", timeout=timeout)
    return mine.scores_of(ranks.sum(mine.sums))
