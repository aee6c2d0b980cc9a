"""`ocrft convert`: labelled pictures from one layout into another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ocr_finetune_api.spec import SourceFormat

PROBLEMS_SHOWN = 20


def convert(
    source: Annotated[str, typer.Argument(help="A folder, list file, archive or address.", metavar="SRC")],
    target: Annotated[Path, typer.Argument(help="A new folder.", metavar="DEST")],
    *,
    to: Annotated[SourceFormat, typer.Option("--to", help="The layout to write.")],
    source_format: Annotated[SourceFormat, typer.Option("--format", help="The layout to read.")] = SourceFormat.AUTO,
    list_file: Annotated[str, typer.Option("--list", help="The label list, relative to SRC.")] = "",
    crops: Annotated[bool, typer.Option("--crops", help="Cut the texts out of pages and write lines.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Writes labelled pictures in another layout; ends with 65 if some could not be converted."""
    from rich.progress import Progress

    from ocr_finetune_api.exit_codes import ConfigurationError, ExitCode
    from ocr_finetune_api.spec import Source
    from ocr_finetune_trainer.cli.output import err, out, print_json, print_problems
    from ocr_finetune_trainer.data.conversion import convert as run
    from ocr_finetune_trainer.data.sources import Opener
    from ocr_finetune_trainer.models.download import download

    if to is SourceFormat.AUTO:
        raise ConfigurationError("--to auto: name the layout to write", hint="ocrft convert --help lists them")
    opener = Opener(cache=target.absolute().parent / ".ocrft-cache", download=download)
    with Progress(console=err, transient=True, disable=json or not err.is_terminal) as bar:
        task = bar.add_task("samples", total=None)
        result = run(
            Source(uri=source, format=source_format, list_file=list_file),
            target,
            to=to,
            opener=opener,
            crops=crops,
            done=lambda count: bar.advance(task, count),
        )
    code = ExitCode.BAD_DATA if any(problem.samples or problem.fatal for problem in result.problems) else ExitCode.OK
    if json:
        problems = [problem.to_json() for problem in result.problems]
        document = {"format": result.format, "reason": result.reason, "written": result.written, "problems": problems}
        print_json({**document, "target": str(target), "exitCode": int(code)})
    else:
        out.print(f"read as {result.format}: {result.reason}", markup=False)
        out.print(f"{result.written} samples written to {target}", markup=False)
        if result.problems:
            print_problems([str(problem) for problem in result.problems], hint="--json lists all")
    raise typer.Exit(int(code))
