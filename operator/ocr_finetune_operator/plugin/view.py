"""How a run looks in a terminal."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ocr_finetune_api.plan import STAGES
from ocr_finetune_api.status import Attempt, OCRFineTuneStatus, StageState

_COLOURS = {"Succeeded": "green", "Failed": "red", "Suspended": "yellow", "Queued": "yellow", "Pending": "yellow"}
_MARKS = {StageState.SUCCEEDED: "✓", StageState.FAILED: "✗", StageState.RUNNING: "▸", StageState.PENDING: "·"}


def status_of(run: dict[str, Any]) -> OCRFineTuneStatus:
    """The status of a run as it came from the cluster."""
    return OCRFineTuneStatus.model_validate(run.get("status") or {})


def overview(runs: list[dict[str, Any]]) -> RenderableType:
    """All runs of a namespace."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("NAME", "MODEL", "PHASE", "PROGRESS", "ETA", "BEST", "RESTARTS"):
        table.add_column(column)
    for run in runs:
        status = status_of(run)
        progress = status.progress
        best = progress.best_metric if progress else None
        table.add_row(
            run["metadata"]["name"],
            run["spec"]["model"]["name"],
            _phase(status.phase.value),
            f"{progress.percent:g} %" if progress else "",
            progress.eta if progress else "",
            f"{best:g}" if best is not None else "",
            str(status.restarts),
        )
    return table


def detail(run: dict[str, Any]) -> RenderableType:
    """One run."""
    status = status_of(run)
    metadata = run["metadata"]
    parts: list[RenderableType] = [
        Text.assemble((metadata["name"], "bold"), f"  {run['spec']['model']['name']}  ", _phase(status.phase.value)),
        _stages(status),
    ]
    progress = status.progress
    if progress is not None and status.finished_at == "":
        parts += [ProgressBar(total=100, completed=progress.percent, width=60), Text(_sentence(status))]
    if status.metrics is not None:
        parts.append(_metrics(status))
    counts = f"restarts {status.restarts}, disruptions {status.disruptions}"
    parts.append(Text(counts + (f", next attempt at {status.next_attempt_at}" if status.next_attempt_at else "")))
    parts += _conditions(status)
    if status.failure is not None:
        parts += _failure(status)
    if status.artifacts is not None:
        kept = status.artifacts.model_dump(by_alias=True)
        parts += [Text(f"{name}: {value}") for name, value in kept.items() if value]
    return Group(*parts)


def attempts(status: OCRFineTuneStatus) -> RenderableType:
    """The attempts of a run."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("STAGE", "ATTEMPT", "NODES", "STARTED", "RAN", "OUTCOME", "REASON", "NODE", "LOST STEPS"):
        table.add_column(column)
    for attempt in status.attempts:
        table.add_row(
            attempt.stage.value,
            str(attempt.number) + (f" ({attempt.execution}×)" if attempt.execution > 1 else ""),
            str(attempt.nodes),
            attempt.started_at,
            _ran(attempt),
            Text(attempt.outcome.value, style=_COLOURS.get(attempt.outcome.value, ""))
            if attempt.outcome
            else "goes on",
            attempt.reason,
            attempt.node,
            str(attempt.lost_steps) if attempt.lost_steps else "",
        )
    return table


def _ran(attempt: Attempt) -> str:
    seconds = attempt.active_seconds
    if attempt.active_since:
        seconds += int((datetime.now(UTC) - datetime.fromisoformat(attempt.active_since)).total_seconds())
    minutes, rest = divmod(max(seconds, 0), 60)
    return f"{minutes // 60}h{minutes % 60:02d}m" if minutes >= 60 else f"{minutes}m{rest:02d}s"


def _phase(phase: str) -> Text:
    return Text(phase, style=_COLOURS.get(phase, "cyan"))


def _stages(status: OCRFineTuneStatus) -> Text:
    text = Text()
    for stage in STAGES:
        known = status.stage(stage)
        colour = {StageState.SUCCEEDED: "green", StageState.FAILED: "red", StageState.RUNNING: "cyan"}.get(
            known.state, ""
        )
        text.append(f"{_MARKS[known.state]} {stage.value}  ", style=colour)
    return text


def _sentence(status: OCRFineTuneStatus) -> str:
    progress = status.progress
    if progress is None:
        return ""
    facts = [f"{progress.percent:g} %"]
    if progress.epochs:
        facts.append(f"epoch {progress.epoch} of {progress.epochs}")
    if progress.steps:
        facts.append(f"step {progress.step} of {progress.steps}")
    if progress.loss is not None:
        facts.append(f"loss {progress.loss:g}")
    if progress.samples_per_second is not None:
        facts.append(f"{progress.samples_per_second:g} samples/s")
    if progress.best_metric is not None:
        facts.append(f"best {progress.metric_name} {progress.best_metric:g}")
    if progress.eta:
        facts.append(f"{progress.eta} left")
    return ", ".join(facts) + (f" ({progress.activity})" if progress.activity else "")


def _metrics(status: OCRFineTuneStatus) -> Text:
    metrics = status.metrics
    if metrics is None:
        return Text()
    shown = []
    for name in ("base", "best", "exported"):
        values = getattr(metrics, name) or {}
        numbers = [f"{key} {value:g}" for key, value in values.items() if isinstance(value, (int, float))][:4]
        if numbers:
            shown.append(f"{name}: {', '.join(numbers)}")
    return Text("; ".join(shown) + (" (measured on the validation set)" if metrics.optimistic else ""))


def _conditions(status: OCRFineTuneStatus) -> list[RenderableType]:
    """Conditions that say why it does not get on."""
    bad = [
        one
        for one in status.conditions
        if (one.type in ("Stalled", "SpecDrift") and one.status == "True")
        or (one.type in ("Accepted", "ProgressAvailable", "Admitted") and one.status == "False")
    ]
    return [Text(f"{one.type}: {one.reason}: {one.message}", style="yellow") for one in bad]


def _failure(status: OCRFineTuneStatus) -> list[RenderableType]:
    failure = status.failure
    if failure is None:
        return []
    where = (
        f" (rank {failure.rank} on {failure.node}, exit code {failure.exit_code})" if failure.rank is not None else ""
    )
    parts: list[RenderableType] = [
        Text(f"{failure.failure_class.value} in {failure.stage.value}: {failure.message}{where}", style="red"),
        Text(f"hint: {failure.hint}"),
    ]
    if failure.log_tail:
        parts.append(Text("\n".join(failure.log_tail.splitlines()[-10:]), style="dim"))
    return parts
