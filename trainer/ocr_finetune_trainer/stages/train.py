"""The second stage: trains on this node's devices, together with those of all other nodes."""

from __future__ import annotations

import os
import threading
import time
from typing import Any

from ocr_finetune_api.exit_codes import ExitCode, OCRFineTuneError, StopRequested
from ocr_finetune_api.progress import Activity
from ocr_finetune_api.results import Choice
from ocr_finetune_trainer.stages.context import StageContext, StageOutcome
from ocr_finetune_trainer.training.gang import Gang, Identity, Meeting, error_of, wait_until
from ocr_finetune_trainer.training.launch import (
    Command,
    check_shared_memory,
    clean_environment,
    launcher_command,
    start,
    worker_command,
)
from ocr_finetune_trainer.training.pulse import Outcome
from ocr_finetune_trainer.training.supervisor import POLL_SECONDS, Supervisor, stop_requests

__all__ = ["run"]

OWN_ADDRESS = "OCRFT_POD_IP"
PEER_TIMEOUT = "OCRFT_PEER_TIMEOUT"
_PEER_TIMEOUT_SECONDS = 60.0
_LAST_WORDS_SECONDS = 10.0


def run(context: StageContext) -> StageOutcome:
    """Trains.

    Raises:
        StopRequested: Somebody asked for a stop, and a checkpoint is saved.
        PeerError: Another node or rank did not come, is gone or hangs; the message names it.
        OCRFineTuneError: Training can't begin or go on.
    """
    config, folder = context.config, context.reporter.folder
    check_shared_memory(folder, processes=config.devices_per_node, device=config.device)
    with stop_requests(folder) as stop:
        gang = _gang(context, stop)
        last: Outcome | None = None
        try:
            context.reporter.activity(Activity.WAITING, "waiting for all nodes")
            meeting = gang.meet()
            last = _train(context, gang=gang, meeting=meeting, stop=stop)
        except OCRFineTuneError as error:
            last = Outcome.of(error)
            raise
        finally:
            gang.close(last)
    return _stage_outcome(last)


def _gang(context: StageContext, stop: threading.Event) -> Gang:
    config = context.config
    return Gang(
        Identity(
            run=config.run.uid,
            attempt=config.attempt,
            node=context.node_rank,
            nodes=config.nodes,
            address=os.environ.get(OWN_ADDRESS, "") or "127.0.0.1",
            processes=config.devices_per_node,
        ),
        host=config.rendezvous.host,
        port=config.rendezvous.port,
        timeout=config.rendezvous.timeout_seconds,
        peer_timeout=float(os.environ.get(PEER_TIMEOUT, "") or _PEER_TIMEOUT_SECONDS),
        stop=stop,
    )


def _train(context: StageContext, *, gang: Gang, meeting: Meeting, stop: threading.Event) -> Outcome:
    config, node = context.config, context.node_rank
    first = node * config.devices_per_node
    supervisor = Supervisor(
        context.reporter.folder,
        ranks=range(first, first + config.devices_per_node),
        reporter=context.reporter,
        stop=stop,
        grace_seconds=config.grace_period_seconds,
        stall_seconds=config.stall_timeout_seconds,
        in_gang=config.nodes > 1,
    )
    context.reporter.update(activity=Activity.STARTING, message="", execution=meeting.execution)
    arguments = _arguments(context, meeting)
    supervisor.begin(start(arguments, environment=clean_environment(os.environ, device=config.device)))
    try:
        return _watch(supervisor, gang=gang, stop=stop)
    finally:
        supervisor.kill()


def _arguments(context: StageContext, meeting: Meeting) -> list[str]:
    config, folder = context.config, context.reporter.folder
    config_file = folder / "train.yaml"
    config_file.write_text(config.to_yaml(), encoding="utf-8")
    command = Command(config=config_file, workspace=context.workspace.root, folder=folder, execution=meeting.execution)
    if config.nodes * config.devices_per_node == 1:
        return worker_command(command)
    return launcher_command(
        command,
        nodes=config.nodes,
        node=context.node_rank,
        processes=config.devices_per_node,
        master=f"{meeting.addresses[0]}:{meeting.launcher_port}",
        own_address=meeting.addresses[context.node_rank],
    )


def _watch(supervisor: Supervisor, *, gang: Gang, stop: threading.Event) -> Outcome:
    """Waits for the end of this node's part, or of the gang."""
    while True:
        outcome = supervisor.poll()
        gang.report(supervisor.states(), outcome)
        verdict = gang.verdict()
        if verdict is not None:
            _end(verdict, supervisor=supervisor, stop=stop)
        if outcome is not None and outcome.exit_code in (ExitCode.OK, ExitCode.STOPPED):
            if gang.leads:
                wait_until(gang.everyone_done, seconds=_LAST_WORDS_SECONDS)
            return outcome
        if outcome is not None:
            _fail(outcome, supervisor=supervisor, gang=gang, stop=stop)
        time.sleep(POLL_SECONDS)


def _fail(outcome: Outcome, *, supervisor: Supervisor, gang: Gang, stop: threading.Event) -> None:
    """Ends this node's part, with the verdict of the whole gang if it comes: the cause may lie elsewhere."""
    supervisor.kill()

    def judged() -> bool:
        gang.report(supervisor.states(), outcome)
        return gang.verdict() is not None

    if not gang.alone:
        wait_until(judged, seconds=_LAST_WORDS_SECONDS)
    _end(gang.verdict() or outcome, supervisor=supervisor, stop=stop)


def _end(verdict: Outcome, *, supervisor: Supervisor, stop: threading.Event) -> None:
    supervisor.kill()
    if stop.is_set() and verdict.exit_code == ExitCode.PEER_UNAVAILABLE:
        raise StopRequested(
            f"stopped on request; not all ranks could agree on a last checkpoint, so {supervisor.newest_checkpoint()}",
            *verdict.problems,
        )
    raise error_of(verdict)


def _stage_outcome(outcome: Outcome) -> StageOutcome:
    if outcome.exit_code != ExitCode.OK:
        raise error_of(outcome)
    values: dict[str, Any] = dict(outcome.values)
    choices = [Choice(**choice) for choice in values.pop("choices", [])]
    return StageOutcome(choices=choices, **values)
