"""What all stages have in common: run once for the same inputs, leave a result, end with the right exit code."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import signal
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import NoReturn

from ocr_finetune_api import results
from ocr_finetune_api.exit_codes import ExitCode, InputMissingError, OCRFineTuneError, StopRequested, class_of
from ocr_finetune_api.plan import STAGES, Stage, StagePlan, plan
from ocr_finetune_api.progress import Activity
from ocr_finetune_api.results import StageResult
from ocr_finetune_api.run_config import RunConfig
from ocr_finetune_api.workspace import Workspace, run_folder
from ocr_finetune_trainer.stages.context import StageContext, StageOutcome
from ocr_finetune_trainer.telemetry.reporter import Reporter
from ocr_finetune_trainer.telemetry.server import TelemetryServer

logger = logging.getLogger(__name__)

METRICS_PORT = "OCRFT_METRICS_PORT"  # where nodes share one machine, only the first serves at the planned port
TERMINATION_LOG = Path("/dev/termination-log")
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE}
_UNWRITABLE = {errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR}

StageFunction = Callable[[StageContext], StageOutcome]


def run_stage(stage: Stage, *, config: RunConfig, root: Path) -> StageResult:
    """Runs a stage, or gives its result again if it is done for the same inputs.

    Args:
        stage: Which stage.
        config: The run configuration.
        root: Root of the workspace.

    Returns:
        The result, also of a failure; it lies in the workspace too, where that can be written.
    """
    workspace = Workspace(root, run_folder(config.run.name, config.run.uid))
    planned = plan(config.spec)[stage]
    started = _now()
    node_rank = _node_rank()
    input_hash = planned.input_hash
    try:
        input_hash = results.input_hash(planned, _earlier(stage, workspace=workspace))
        done = results.read(workspace.result(stage))
        if done is not None and done.succeeded and done.input_hash == input_hash and _is_current(done, config):
            logger.info("%s is done for these inputs; its result stands", stage.value)
            return done
        outcome = _run(stage, config=config, workspace=workspace, planned=planned, node_rank=node_rank)
    except BaseException as error:
        result = _failure(stage, error, workspace=workspace, node_rank=node_rank)
    else:
        result = StageResult(
            stage=stage,
            input_hash=input_hash,
            metrics=outcome.metrics,
            artifacts=outcome.artifacts,
            choices=list(outcome.choices),
            warnings=list(outcome.warnings),
            details=outcome.details,
            fingerprint=outcome.fingerprint,
        )
    result = result.model_copy(
        update={
            "input_hash": input_hash,
            "attempt": config.attempt,
            "started_at": started,
            "finished_at": _now(),
        }
    )
    return _leave(result, workspace=workspace) if node_rank == 0 else result


def write_termination_message(result: StageResult, path: Path = TERMINATION_LOG) -> None:
    """Tells Kubernetes how the stage ended, where there is a Kubernetes."""
    if path.exists() and os.access(path, os.W_OK):
        path.write_text(result.short_form(), encoding="utf-8")


def _run(stage: Stage, *, config: RunConfig, workspace: Workspace, planned: StagePlan, node_rank: int) -> StageOutcome:
    workspace.folder.mkdir(parents=True, exist_ok=True)
    function: StageFunction = import_module(f"ocr_finetune_trainer.stages.{stage.value}").run
    with ExitStack() as stack:
        folder = stack.enter_context(_memory_folder())
        reporter = stack.enter_context(Reporter.for_stage(stage, folder=folder, attempt=config.attempt))
        stack.enter_context(TelemetryServer(folder=folder, port=int(os.environ.get(METRICS_PORT, config.metrics_port))))
        stack.enter_context(_stop_on_signal())
        context = StageContext(
            config=config, workspace=workspace, planned=planned, reporter=reporter, node_rank=node_rank
        )
        outcome = function(context)
        reporter.update(activity=Activity.DONE, percent=100.0)
        return outcome


def _earlier(stage: Stage, *, workspace: Workspace) -> StageResult | None:
    """The result of the stage before this one, which must be there."""
    if stage is STAGES[0]:
        return None
    before = STAGES[STAGES.index(stage) - 1]
    result = results.read(workspace.result(before))
    if result is None or not result.succeeded:
        raise InputMissingError(
            f"{workspace.result(before)}: {before.value} has not succeeded, and {stage.value} works on what it leaves",
            hint=f"run {before.value} first",
        )
    return result


def _is_current(done: StageResult, config: RunConfig) -> bool:
    """Whether what a result was made from outside the workspace is still the same; prepare alone reads such things."""
    if done.stage is not Stage.PREPARE:
        return True
    from ocr_finetune_trainer.stages.prepare import is_current

    return is_current(done, config)


def _failure(stage: Stage, error: BaseException, *, workspace: Workspace, node_rank: int) -> StageResult:
    problem = _as_ours(error, workspace=workspace)
    outcome = getattr(error, "outcome", None)
    kept = {} if outcome is None else {"metrics": outcome.metrics, "artifacts": outcome.artifacts}
    return StageResult(
        stage=stage,
        input_hash="",
        exit_code=int(problem.exit_code),
        failure_class=problem.failure_class or class_of(problem.exit_code),
        message=problem.problems[0] if problem.problems else str(problem),
        hint=problem.hint,
        problems=list(problem.problems),
        rank=node_rank if problem.node is None else problem.node,
        **kept,
    )


def _as_ours(error: BaseException, *, workspace: Workspace) -> OCRFineTuneError:
    """The failure as one that a person can act on, whatever it was."""
    if isinstance(error, OCRFineTuneError):
        return error
    if isinstance(error, KeyboardInterrupt):
        return StopRequested("stopped on request; the next run goes on from here")
    if isinstance(error, OSError) and error.errno in _FULL:
        return OCRFineTuneError(
            f"{error.filename or workspace.root}: {error.strerror}",
            hint="free or add storage, then run again: what was finished is kept",
            exit_code=ExitCode.STORAGE,
        )
    if isinstance(error, OSError) and error.errno in _UNWRITABLE:
        return OCRFineTuneError(
            f"{error.filename or workspace.root}: {error.strerror}",
            hint="choose another folder with --workspace, or make this one writable",
            exit_code=ExitCode.OUTPUT_UNWRITABLE,
        )
    where = _keep_traceback(error, workspace)
    return OCRFineTuneError(
        f"internal error: {type(error).__name__}: {error}",
        hint=f"this is a mistake of the program; please report it with {where}",
        exit_code=ExitCode.INTERNAL,
    )


def _keep_traceback(error: BaseException, workspace: Workspace) -> str:
    text = "".join(traceback.format_exception(error))
    path = workspace.logs / "internal-error.txt"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError:
        return f"this trace:\n{text}"
    return str(path)


def _leave(result: StageResult, *, workspace: Workspace) -> StageResult:
    """Writes the result; one that cannot be written is itself a failure, unless the stage failed already."""
    try:
        results.write(result, workspace.result(result.stage))
    except OSError as error:
        if result.succeeded:
            lost = _failure(result.stage, error, workspace=workspace, node_rank=0)
            return lost.model_copy(update={"input_hash": result.input_hash, "attempt": result.attempt})
        logger.warning("the result could not be written: %s", error)
    return result


@contextmanager
def _memory_folder() -> Iterator[Path]:
    shared = Path("/dev/shm")  # noqa: S108 - a private folder is made in it
    folder = Path(tempfile.mkdtemp(prefix="ocrft-", dir=shared if os.access(shared, os.W_OK) else None))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _stop_on_signal() -> Iterator[None]:
    """SIGTERM ends a stage as Ctrl-C does; training replaces this by a stop that all ranks agree on."""

    def stop(_number: int, _frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _node_rank() -> int:
    return int(os.environ.get("OCRFT_NODE_RANK") or os.environ.get("JOB_COMPLETION_INDEX") or 0)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
