"""`ocrft --version`."""

from __future__ import annotations

from typing import Annotated

import typer

from ocr_finetune_trainer.cli.output import out


def _print_version(value: bool) -> None:
    if value:
        from importlib.metadata import version

        out.print(f"ocrft {version('ocr-finetune')}")
        raise typer.Exit


def callback(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Fine-tunes OCR models: labelled pictures in, a proven PaddleOCR model out."""
