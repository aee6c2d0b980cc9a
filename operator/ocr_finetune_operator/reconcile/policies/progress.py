"""Progress as it was pulled: what of it people see, and when it means that an attempt stalls."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from ocr_finetune_api.progress import Activity, Progress
from ocr_finetune_api.status import RunProgress
from ocr_finetune_operator.reconcile.views import iso

# The trainer says when it does something else than steps; its own watchdog looks after that.
_MAKES_STEPS = (Activity.TRAINING,)


@dataclass(frozen=True, kw_only=True)
class Pulled:
    """What is known of the progress of an attempt; kept in memory only.

    Attributes:
        job: The Job it is about.
        document: The newest document; None if there has been none.
        reachable: Whether the last pull worked.
        error: Why not.
        at: When it was.
        moved_at: Since when the position has not changed.
        first_failure: Since when it can't be reached.
    """

    job: str
    document: Progress | None = None
    reachable: bool = False
    error: str = ""
    at: float = 0.0
    moved_at: float = 0.0
    first_failure: float = 0.0


def answered(before: Pulled, document: Progress, *, now: float) -> Pulled:
    """Takes a document in."""
    moved = before.document is None or not before.reachable or _position(before.document) != _position(document)
    return replace(
        before,
        document=document,
        reachable=True,
        error="",
        at=now,
        moved_at=now if moved or document.activity not in _MAKES_STEPS else before.moved_at,
        first_failure=0.0,
    )


def unanswered(before: Pulled, error: str, *, now: float) -> Pulled:
    """Takes a failed pull in: it says nothing about the training."""
    return replace(
        before, reachable=False, error=error, at=now, first_failure=before.first_failure or now, moved_at=now
    )


def stalled_for(pulled: Pulled) -> float:
    """Seconds without a step although the trainer can be reached and says that it trains."""
    if not pulled.reachable or pulled.document is None or pulled.document.activity not in _MAKES_STEPS:
        return 0.0
    return pulled.at - pulled.moved_at


def waiting_for_peers(pulled: Pulled) -> bool:
    """Whether the ranks have not met yet."""
    return pulled.reachable and pulled.document is not None and pulled.document.activity is Activity.WAITING


def shown(document: Progress) -> RunProgress:
    """The progress as the status has it."""
    return RunProgress(
        stage=document.stage,
        activity=document.activity.value,
        epoch=document.epoch,
        epochs=document.epochs,
        step=document.step,
        steps=document.steps,
        percent=round(document.percent, 1),
        eta=_duration(document.eta_seconds),
        loss=_rounded(document.loss),
        learning_rate=_rounded(document.learning_rate),
        samples_per_second=_rounded(document.samples_per_second),
        metric_name=document.metric_name[:64],
        metric=_rounded(document.metric),
        best_metric=_rounded(document.best_metric),
        checkpoint_step=document.checkpoint_step,
        resumed_from_step=document.resumed_from_step,
        message=document.message[:256],
        updated_at=iso(document.updated_at) if 0 < document.updated_at < 32503680000 else "",
    )


def _position(document: Progress) -> tuple[object, ...]:
    return document.stage, document.execution, document.epoch, document.step, document.activity


def _rounded(value: float | None) -> float | None:
    """Four significant digits are what a person reads; NaN and infinity are no JSON."""
    if value is None:
        return None
    rounded = float(f"{value:.4g}")  # which takes the largest numbers to infinity
    return rounded if math.isfinite(rounded) else None


def _duration(seconds: float | None) -> str:
    if seconds is None or not 0 <= seconds < 365 * 86400:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d{hours}h"
    if hours:
        return f"{hours}h{minutes:02d}m"
    return f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"
