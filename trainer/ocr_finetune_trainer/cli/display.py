"""What a person sees of a run on a terminal, and in a log where there is none."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.table import Column

from ocr_finetune_api.exit_codes import ExitCode
from ocr_finetune_api.plan import Stage
from ocr_finetune_api.progress import Activity, Progress
from ocr_finetune_trainer.cli.output import err, out, print_problems

if TYPE_CHECKING:
    from ocr_finetune_api.results import StageResult
    from ocr_finetune_trainer.engine.local import LocalEngine

LINE_EVERY_SECONDS = 10.0


class RunDisplay:
    """Progress bars on a terminal, a line now and then elsewhere, and the summary."""

    def __init__(self, engine: LocalEngine, stages: Sequence[Stage], *, quiet: bool) -> None:
        """Shows nothing yet.

        Args:
            engine: The run.
            stages: What will be run.
            quiet: Show nothing but problems (for `--json`).
        """
        self._engine = engine
        self._stages = stages
        self._quiet = quiet
        self._live = err.is_terminal and not quiet
        self._bars = Bars(
            TextColumn("{task.fields[mark]} [bold]{task.description:<9}"),
            BarColumn(bar_width=20, table_column=Column(min_width=20)),
            TextColumn("{task.percentage:>4.0f}%", table_column=Column(min_width=5)),
            TimeElapsedColumn(table_column=Column(min_width=7)),
            TextColumn("{task.fields[detail]}", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")),
            console=err,
            expand=True,
            disable=not self._live,
        )
        self._tasks: dict[Stage, TaskID] = {}
        self._line_at = 0.0
        self._all_old = True

    def __enter__(self) -> Self:
        self._bars.start()
        for stage in self._stages:
            self._tasks[stage] = self._bars.add_task(stage.value, total=100, start=False, mark=" ", detail="")
        return self

    def __exit__(self, *exc: object) -> None:
        self._bars.stop()

    def begin(self, stage: Stage, *, is_done: bool) -> None:
        """A stage begins."""
        detail = "checking" if is_done else "starting"
        self._bars.start_task(self._tasks[stage])
        self._bars.update(self._tasks[stage], mark="[cyan]▸[/]", detail=detail)
        if not self._live and not self._quiet:
            err.print(f"{stage.value}: {detail}")
        self._line_at = time.monotonic()

    def watch(self, stage: Stage, progress: Progress) -> None:
        """A stage has got further."""
        detail = "stopping with a checkpoint" if self._engine.stopping else describe(progress)
        self._bars.update(self._tasks[stage], completed=progress.percent, detail=detail)
        if not self._live and not self._quiet and time.monotonic() - self._line_at >= LINE_EVERY_SECONDS:
            self._line_at = time.monotonic()
            err.print(f"{stage.value}: {progress.percent:.0f}% {detail}", markup=False)

    def end(self, stage: Stage, result: StageResult, *, is_old: bool) -> None:
        """A stage has ended; `is_old` if its result stood already."""
        self._all_old = self._all_old and is_old
        mark = "[green]✓[/]" if result.succeeded else "[red]✗[/]"
        completed = 100 if result.succeeded else None
        self._bars.update(self._tasks[stage], mark=mark, detail=_outcome(result), completed=completed)
        self._bars.stop_task(self._tasks[stage])
        if not self._live and not self._quiet:
            err.print(f"{stage.value}: {_outcome(result)}", markup=False)
        if not self._quiet:
            for warning in result.warnings:
                err.print("[yellow]note:[/] ", end="")
                err.print(warning, markup=False)

    def summary(self, results: Sequence[StageResult], *, seconds: float) -> None:
        """What came out, or why nothing did."""
        last = results[-1]
        if last.exit_code == ExitCode.STOPPED:
            err.print(f"[bold yellow]stopped:[/] {last.message}. Run the same command to go on.")
            return
        if not last.succeeded:
            print_problems(last.problems or [last.message], hint=last.hint)
            if last.problems and last.message not in last.problems:
                err.print(last.message, markup=False)
            return
        if last.stage is Stage.EXPORT:
            rows = [("all is done", "nothing has changed since") if self._all_old else ("done in", _duration(seconds))]
            rows += _summary(self._engine)
            width = max(len(label) for label, _ in rows)
            out.print(f"\n{self._engine.name}", style="bold green")
            for label, text in rows:
                out.print(f"  {label:<{width}}  {text}", markup=False)
            _print_usage(last)


def describe(progress: Progress) -> str:
    """One line on what a stage is doing."""
    parts = []
    if progress.activity is not Activity.TRAINING or not progress.epochs:
        parts.append(progress.message or progress.activity.value)
    if progress.epochs:
        parts.append(f"epoch {progress.epoch}/{progress.epochs}")
    if progress.loss is not None:
        parts.append(f"loss {progress.loss:.3f}")
    if progress.metric is not None:
        parts.append(f"{progress.metric_name} {progress.metric:.4f}")
    if progress.samples_per_second:
        parts.append(f"{progress.samples_per_second:.0f} samples/s")
    if progress.eta_seconds is not None:
        parts.append(f"{_duration(progress.eta_seconds)} left")
    return " · ".join(parts)


def _outcome(result: StageResult) -> str:
    if not result.succeeded:
        return "stopped" if result.exit_code == ExitCode.STOPPED else f"failed (exit code {result.exit_code})"
    if result.stage is Stage.PREPARE:
        return _prepared(result)
    if result.stage is Stage.TRAIN:
        return _trained(result)
    return str(result.details.get("summary") or "done")


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{rest:02}s" if minutes else f"{rest}s"


def _summary(engine: LocalEngine) -> list[tuple[str, str]]:
    """What came out, as pairs of a label and a text; paths stay whole, so that they can be copied."""
    rows = []
    prepared, trained = engine.result(Stage.PREPARE), engine.result(Stage.TRAIN)
    evaluated, exported = engine.result(Stage.EVALUATE), engine.result(Stage.EXPORT)
    if prepared:
        rows.append(("data", _prepared(prepared)))
    if trained:
        rows.append(("training", _trained(trained)))
    if evaluated:
        where = (
            "on the validation set (no test set: optimistic)"
            if evaluated.details.get("optimistic")
            else "on the test set"
        )
        for name, before, after in before_and_after(evaluated.metrics):
            rows.append((name, f"{before} before → {after} after, {where}"))
        pages = evaluated.metrics.get("endToEnd")
        if pages:
            before = f"{pages['base']['fMeasure']:.2%}" if "base" in pages else "not measured"
            rows.append(("whole pages", f"F-measure {before} before → {pages['fMeasure']:.2%} after"))
    folder = engine.workspace.folder
    for result in (trained, evaluated, exported):
        rows += [(name, str(folder / path)) for name, path in (result.artifacts if result else {}).items()]
    return rows


def _prepared(result: StageResult) -> str:
    counts = result.details.get("counts") or {}
    verbs = {"train": "to train", "validation": "to validate", "test": "to test"}
    parts = [f"{count:,} {verbs.get(name, name)}" for name, count in counts.items()]
    dictionary = result.details.get("dictionary")
    if dictionary:
        parts.append(f"{dictionary['size']:,} characters")
    parts.append(f"{result.details.get('rejected', 0):,} rejected")
    return ", ".join(parts)


def _trained(result: StageResult) -> str:
    metrics = result.metrics
    best = metrics.get("best") or {}
    took = _duration(metrics.get("seconds", 0))
    text = f"{metrics.get('epochs', 0):g} epochs, {metrics.get('steps', 0):,} steps in {took}"
    if best.get("value") is not None:
        text += f"; best {best['metric']} {best['value']:.4f} on the validation set, at step {best['step']:,}"
    return text


def before_and_after(metrics: dict[str, Any]) -> list[tuple[str, str, str]]:
    """The headline metrics of an evaluation, before and after training."""
    base, best = metrics.get("base") or {}, metrics.get("best") or {}
    rows = []
    for name, label in (
        ("accuracy", "accuracy"),
        ("characterErrorRate", "character error rate"),
        ("hmean", "hmean"),
        ("structureAccuracy", "structure accuracy"),
        ("teds", "TEDS"),
    ):
        if name in best:
            before = f"{base[name]:.2%}" if name in base else "not measured"
            rows.append((label, before, f"{best[name]:.2%}"))
    return rows


def _print_usage(exported: StageResult) -> None:
    out.print("\nUse it:", style="bold green")
    for snippet in exported.details.get("snippets") or []:
        out.print(f"\n# {snippet['title']}", style="bold", markup=False)
        out.print(snippet["code"].rstrip(), markup=False)
