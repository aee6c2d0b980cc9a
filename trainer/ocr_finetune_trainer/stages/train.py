"""The second stage: trains on this node's devices, together with those of all other nodes."""

from __future__ import annotations

import os
import secrets
import time
from typing import Any

from ocr_finetune_api.exit_codes import ExitCode, StopRequested
from ocr_finetune_api.progress import Activity
from ocr_finetune_api.results import Choice
from ocr_finetune_trainer.stages.context import StageContext, StageOutcome
from ocr_finetune_trainer.training.launch import Command, clean_environment, start, worker_command
from ocr_finetune_trainer.training.pulse import Outcome
from ocr_finetune_trainer.training.supervisor import POLL_SECONDS, Supervisor, stop_requests

__all__ = ["run"]


def run(context: StageContext) -> StageOutcome:
    """Trains.

    Raises:
        StopRequested: Somebody asked for a stop, and a checkpoint is saved.
        OCRFineTuneError: Training can't begin or go on.
    """
    config = context.config
    folder = context.reporter.folder
    config_file = folder / "train.yaml"
    config_file.write_text(config.to_yaml(), encoding="utf-8")
    context.reporter.activity(Activity.STARTING)
    with stop_requests() as stop:
        supervisor = Supervisor(
            folder,
            ranks=range(config.devices_per_node),
            reporter=context.reporter,
            stop=stop,
            grace_seconds=config.grace_period_seconds,
            stall_seconds=config.stall_timeout_seconds,
        )
        command = Command(
            config=config_file,
            workspace=context.workspace.root,
            folder=folder,
            execution=secrets.token_hex(4),
        )
        environment = clean_environment(os.environ, device=config.device)
        supervisor.begin(start(worker_command(command), environment=environment))
        try:
            while not supervisor.poll():
                time.sleep(POLL_SECONDS)
        finally:
            supervisor.kill()
        return _outcome(supervisor.outcome())


def _outcome(outcome: Outcome) -> StageOutcome:
    if outcome.exit_code == ExitCode.STOPPED:
        raise StopRequested(*outcome.problems, hint=outcome.hint)
    if outcome.exit_code != ExitCode.OK:
        raise outcome.error()
    values: dict[str, Any] = dict(outcome.values)
    choices = [Choice(**choice) for choice in values.pop("choices", [])]
    return StageOutcome(choices=choices, **values)
