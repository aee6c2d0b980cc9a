"""`ocrft stage`: one stage under the contract of a pod. Engines call it; people call `ocrft run`."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from ocr_finetune_api.plan import Stage


def stage(
    name: Annotated[Stage, typer.Argument(help="Which stage.")],
    config: Annotated[Path, typer.Option(help="Run configuration.")],
    workspace: Annotated[Path, typer.Option(help="Root of the workspace.")],
) -> None:
    """Runs one stage of a run configuration and prints its result."""
    from ocr_finetune_api import run_config
    from ocr_finetune_trainer.cli.output import print_problems
    from ocr_finetune_trainer.processes import end_with_parent
    from ocr_finetune_trainer.stages.runner import run_stage, write_termination_message

    if parent := os.environ.get("OCRFT_PARENT_PID"):
        end_with_parent(parent=int(parent))
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    result = run_stage(name, config=run_config.read(config), root=workspace)
    write_termination_message(result)
    sys.stdout.write(result.to_json())
    if not result.succeeded:
        print_problems(result.problems or [result.message], hint=result.hint)
    raise typer.Exit(result.exit_code)
