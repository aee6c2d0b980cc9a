"""One process of a training, on one device: puts the parts together and runs the loop.

`ocrft stage train` starts it, by itself or through `paddle.distributed.launch`, and learns from its pulse how it is doing
and from its outcome how it ended.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from ocr_finetune_api import run_config
from ocr_finetune_api.exit_codes import ExitCode, OCRFineTuneError, StopRequested
from ocr_finetune_api.workspace import Workspace, run_folder
from ocr_finetune_trainer.processes import end_with_parent
from ocr_finetune_trainer.training.failures import explain
from ocr_finetune_trainer.training.pulse import Outcome, Pulse, record_fatal
from ocr_finetune_trainer.training.ranks import Ranks

logger = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains; the exit code is that of the contract, the outcome lies in the folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--execution", required=True)
    parser.add_argument("--parent", type=int, default=0)
    options = parser.parse_args(arguments)
    end_with_parent(signal.SIGKILL, parent=options.parent or None)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)

    config = run_config.read(options.config)
    workspace = Workspace(options.workspace, run_folder(config.run.name, config.run.uid))
    rank = int(os.environ.get("PADDLE_TRAINER_ID", "0"))
    if rank > 0:
        _log_to(workspace.logs / f"a{config.attempt}.x{options.execution}" / f"rank-{rank}.log")
    pulse = Pulse(options.folder, rank=rank, stop_file=workspace.stop_request).start()
    _stop_on_signal(pulse)
    ranks = Ranks.from_environment(waiting=pulse.waiting, computed=pulse.computed)
    try:
        # Paddle takes seconds to import; the first beat must not wait for it.
        from ocr_finetune_trainer.training.assembly import train

        record_fatal(options.folder, rank)
        outcome = train(
            config, workspace=workspace, ranks=ranks, pulse=pulse, folder=options.folder, execution=options.execution
        )
    except StopRequested as error:
        outcome = Outcome.of(error)
    except OCRFineTuneError as error:
        outcome = Outcome.of(error)
    except BaseException as error:
        logger.exception("training failed")
        outcome = explain(error, world=ranks.world, trace=traceback.format_exc())
    pulse.finish(outcome)
    _leave(outcome.exit_code)
    return outcome.exit_code


def _log_to(path: Path) -> None:
    """Sends all output of this process, that of C++ too, to a file: the launcher keeps it in memory otherwise."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    except OSError as error:
        logger.warning("%s: %s; the log stays with the launcher", path, error.strerror)
        return
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    os.close(descriptor)


def _stop_on_signal(pulse: Pulse) -> None:
    def stop(_number: int, _frame: FrameType | None) -> None:
        pulse.stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    signal.signal(signal.SIGUSR1, lambda _number, _frame: pulse.profile.set())


def _leave(code: int) -> None:
    """Ends at once: Paddle's communication threads would wait for peers that are gone."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    if "PADDLE_TRAINER_ID" in os.environ or code not in (ExitCode.OK, ExitCode.STOPPED):
        os._exit(code)


if __name__ == "__main__":
    sys.exit(main())
