"""`ocrft check`: the truth about the data of a manifest, without training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ocr_finetune_trainer.cli.run import DEFAULT_WORKSPACE, Claims, Manifest, WorkspaceOption

if TYPE_CHECKING:
    from ocr_finetune_api.spec import OCRFineTuneSpec
    from ocr_finetune_api.workspace import Workspace
    from ocr_finetune_trainer.data.preparation import Examination

PROBLEMS_SHOWN = 20


def check(
    manifest: Manifest,
    *,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    claim: Claims = None,
    show: Annotated[int, typer.Option(min=0, help="Also write a sheet of so many augmented samples.")] = 0,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings are errors.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Reads all data of a manifest and says what is in it, what is wrong with it, and what to expect of it.

    Ends with 0, also with warnings; with 65 if the data can't be used, with 66 if something is missing.
    """
    from ocr_finetune_api.exit_codes import DataError, OCRFineTuneError
    from ocr_finetune_api.manifest import load
    from ocr_finetune_trainer.cli.output import print_json, print_problems
    from ocr_finetune_trainer.cli.run import parse_claims
    from ocr_finetune_trainer.engine.local import LocalEngine
    from ocr_finetune_trainer.stages.prepare import raise_errors

    engine = LocalEngine(
        load(manifest), folder=manifest.absolute().parent, root=workspace, claims=parse_claims(claim or [])
    )
    folder = engine.workspace.folder / "check"
    found, report = _examine(engine.spec, engine.workspace, folder=folder, quiet=json)
    sheet = _sheet(engine.spec, found, folder=folder, count=show) if show else None
    problem: OCRFineTuneError | None = None
    try:
        raise_errors(found, where=str(folder / "rejected.jsonl"))
    except OCRFineTuneError as error:
        problem = error
    warnings = [advice["text"] for advice in report["advice"] if advice["level"] == "warning"]
    if problem is None and strict and warnings:
        problem = DataError(*warnings, hint="correct them, or leave out --strict")
    if json:
        files = {"report": str(folder / "report.html"), "sheet": str(sheet) if sheet else ""}
        print_json({**report, "files": files, "exitCode": int(problem.exit_code) if problem else 0})
    else:
        _print(report, folder=folder, sheet=sheet)
        if problem is not None:
            print_problems(problem.problems, hint=problem.hint)
    raise typer.Exit(int(problem.exit_code) if problem else 0)


def _examine(
    spec: OCRFineTuneSpec, workspace: Workspace, *, folder: Path, quiet: bool
) -> tuple[Examination, dict[str, Any]]:
    from dataclasses import replace

    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from ocr_finetune_trainer.cli.output import err
    from ocr_finetune_trainer.data.preparation import examine
    from ocr_finetune_trainer.stages.prepare import settings_for, write_rejected, write_report

    folder.mkdir(parents=True, exist_ok=True)
    columns = (
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=err, transient=True, disable=quiet or not err.is_terminal) as bar:
        task = bar.add_task("reading the data", total=1.0)
        settings = settings_for(
            spec,
            workspace=workspace,
            progress=lambda share, what: bar.update(task, completed=share, description=what),
        )
        found = examine(replace(settings, base=_base(spec, workspace)))
    write_rejected(folder / "rejected.jsonl", found.problems)
    return found, write_report(spec, found, folder=folder)


def _base(spec: OCRFineTuneSpec, workspace: Workspace) -> Any:
    """The dictionary of the official weights, if they are on this machine already: checking data fetches nothing."""
    from ocr_finetune_api.exit_codes import OCRFineTuneError
    from ocr_finetune_api.model_table import Kind
    from ocr_finetune_trainer.dictionary import Dictionary
    from ocr_finetune_trainer.models.library import Library
    from ocr_finetune_trainer.models.store import official_dictionary

    if spec.model.kind is not Kind.RECOGNITION or spec.model.pretrained != "official":
        return None
    try:
        files = Library.from_environment(cache=workspace.cache / "models").find(spec.model.name)
    except OCRFineTuneError:
        return None
    if files is None or files.config is None:
        return None
    return Dictionary(official_dictionary(files.config), use_space=True)


def _sheet(spec: OCRFineTuneSpec, found: Examination, *, folder: Path, count: int) -> Path | None:
    """A picture of training samples as the model will see them."""
    from ocr_finetune_trainer.data.sheet import draw_sheet
    from ocr_finetune_trainer.data.store import replace_file

    content = draw_sheet(spec, found, count=count)
    if content is None:
        return None
    path = folder / "augmented.png"
    replace_file(path, content)
    return path


def _print(report: dict[str, Any], *, folder: Path, sheet: Path | None) -> None:
    from rich.table import Table

    from ocr_finetune_trainer.cli.output import out

    table = Table(title="Data", title_justify="left")
    for name in ("source", "layout", "labelled", "usable"):
        table.add_column(name, justify="right" if name in ("labelled", "usable") else "left")
    for source in report["sources"]:
        cells = (source["name"], source["format"] or "not read", str(source["records"]), str(source["usable"]))
        table.add_row(*cells)
    out.print(table)
    splits = ", ".join(f"{name} {count}" for name, count in report["splits"].items())
    out.print(f"splits: {splits}", markup=False)
    characters = report.get("characters")
    if characters:
        known = characters["dictionary"]
        out.print(
            f"characters: {characters['distinct']} in the data, {known['size']} in the dictionary ({known['mode']}), "
            f"{len(characters['rare'])} rare; longest label {report['labels']['longest']}",
            markup=False,
        )
    for choice in report["choices"]:
        out.print(f"  {choice['name']} = {choice['value']}: {choice['reason']}", markup=False, style="dim")
    shown = [advice for advice in report["advice"] if advice["level"] != "error"]
    for advice in shown[:PROBLEMS_SHOWN]:
        style = {"warning": "yellow"}.get(advice["level"], "dim")
        out.print(f"{advice['level']}: {advice['text']}", style=style, markup=False)
    if len(shown) > PROBLEMS_SHOWN:
        out.print(f"… and {len(shown) - PROBLEMS_SHOWN} more in the report")
    out.print(f"report: {folder / 'report.html'}", markup=False)
    if sheet is not None:
        out.print(f"augmented samples: {sheet}", markup=False)
