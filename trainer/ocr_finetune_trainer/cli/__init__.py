"""`ocrft`, the command line. Modules of this package import nothing heavy at their top, so that it starts at once."""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
from typing import NoReturn

import typer

from ocr_finetune_api.exit_codes import ExitCode, OCRFineTuneError
from ocr_finetune_trainer.cli.output import print_error

__all__ = ["app", "main"]


def _application() -> typer.Typer:
    from ocr_finetune_trainer.cli import (
        cache,
        check,
        compare,
        convert,
        evaluate,
        init,
        models,
        predict,
        run,
        stage,
        version,
    )

    application = typer.Typer(
        name="ocrft",
        help="Fine-tunes OCR models: labelled pictures in, a proven PaddleOCR model out.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        context_settings={"help_option_names": ["-h", "--help"]},
        callback=version.callback,
    )
    application.command("init")(init.init)
    application.command("check")(check.check)
    application.command("run")(run.run)
    run.add_stage_commands(application)
    application.command("evaluate")(evaluate.evaluate)  # the stage, and more
    application.command("predict")(predict.predict)
    application.command("compare")(compare.compare)
    application.command("convert")(convert.convert)
    application.add_typer(cache.app)
    application.add_typer(models.app)
    application.command("stage", hidden=True)(stage.stage)
    return application


app = _application()


def main() -> NoReturn:
    """Runs the command line; a person sees no traceback."""
    as_json = "--json" in sys.argv
    try:
        app()
    except OCRFineTuneError as error:
        print_error(error, as_json=as_json)
        sys.exit(int(error.exit_code))
    except BrokenPipeError:
        # The reader of our output has gone; nothing is left to say.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(int(ExitCode.OK))
    except Exception as error:
        with tempfile.NamedTemporaryFile("w", prefix="ocrft-", suffix=".txt", delete=False) as file:
            traceback.print_exception(error, file=file)
        problem = OCRFineTuneError(
            f"internal error: {type(error).__name__}: {error}",
            hint=f"this is a mistake of the program; please report it with {file.name}",
        )
        print_error(problem, as_json=as_json)
        sys.exit(int(ExitCode.INTERNAL))
    sys.exit(int(ExitCode.OK))
