"""`ocrft models`: the table of models, and their official weights on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ocr_finetune_api.exit_codes import ConfigurationError, DataError
from ocr_finetune_api.model_table import TABLE, Kind
from ocr_finetune_trainer.cli.output import err, out, print_json

if TYPE_CHECKING:
    from ocr_finetune_trainer.models.library import Library, Progress

app = typer.Typer(
    name="models", help="The models that can be trained, and their official weights.", invoke_without_command=True
)

Json = Annotated[bool, typer.Option("--json", help="Write JSON.")]
Home = Annotated[
    Path | None, typer.Option("--home", help="Folder of the weights; default: OCRFT_MODEL_HOME or the user's cache.")
]
Names = Annotated[list[str] | None, typer.Argument(help="Names of models.")]


@app.callback()
def models(context: typer.Context, as_json: Json = False) -> None:
    """The models that can be trained, and their official weights."""
    if context.invoked_subcommand is None:
        list_models(as_json=as_json)


@app.command("list")
def list_models(
    kind: Annotated[Kind | None, typer.Option("--kind", help="Only models that do this.")] = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Lists every model: what it is for, its size, and whether its official weights are on this machine."""
    library = _library(home)
    here = set(library.present())
    rows = [info for info in TABLE.values() if kind is None or info.kind is kind]
    if as_json:
        print_json(
            [
                {
                    "name": info.name,
                    "kind": info.kind.value,
                    "purpose": info.purpose,
                    "parameters": info.parameters,
                    "servingName": info.serving_name,
                    "dictionarySize": info.dictionary_size,
                    "guided": info.guided,
                    "officialWeights": bool(info.weights_url),
                    "present": info.name in here,
                }
                for info in rows
            ]
        )
        return
    width = max(len(info.name) for info in rows) if rows else 0
    for info in rows:
        weights = "on this machine" if info.name in here else "to be fetched" if info.weights_url else "none"
        out.print(
            f"[bold]{info.name:<{width}}[/]  {info.kind.value:<12}{_millions(info.parameters):>8}  weights: {weights}"
        )
        out.print(f"    {info.purpose}", style="dim")
    out.print(f"weights: {', '.join(map(str, library.homes))}; official site or mirror: {library.site}", style="dim")


@app.command("pull")
def pull(
    names: Names = None,
    everything: Annotated[bool, typer.Option("--all", help="Every model that has official weights.")] = False,
    archive: Annotated[Path | None, typer.Option("--from", help="Take them from an archive of `pack`.")] = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Fetches official weights and their dictionaries, or takes them from an archive where there is no network."""
    library = _library(home)
    if archive is not None:
        pulled = {name: str(library.homes[0] / name) for name in library.unpack(archive)}
    else:
        with _shown(quiet=as_json) as progress:
            pulled = {n: str(library.pull(n, progress=progress).weights) for n in _wanted(names, everything)}
    if as_json:
        print_json(pulled)
    else:
        for name, path in pulled.items():
            out.print(f"{name}: {path}")


@app.command("pack")
def pack(
    target: Annotated[Path, typer.Argument(help="The archive to write.")],
    names: Names = None,
    everything: Annotated[bool, typer.Option("--all", help="Every model that has official weights.")] = False,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Writes weights into one archive, to be carried to a cluster without a network."""
    with _shown(quiet=as_json) as progress:
        members = _library(home).pack(_wanted(names, everything), target, progress=progress)
    if as_json:
        print_json({"archive": str(target), "members": members})
    else:
        out.print(f"{target}: {len(members)} files; there: ocrft models pull --from {target.name}")


@app.command("verify")
def verify(names: Names = None, home: Home = None, as_json: Json = False) -> None:
    """Reads the weights on this machine again and compares their checksums; ends with 65 if one is wrong."""
    found = _library(home).verify(names or ())
    problems = [problem for each in found.values() for problem in each]
    if as_json:
        print_json(found)
    else:
        for name, each in found.items():
            out.print(f"{name}: {'good' if not each else 'bad'}")
        if not found:
            out.print("there are no weights on this machine")
    if problems:
        raise DataError(*problems, hint="delete the files and fetch them again: ocrft models pull NAME")


def _library(home: Path | None) -> Library:
    from ocr_finetune_trainer.models.library import Library as Shelf

    if home is None:
        return Shelf.from_environment()
    return Shelf([home], mirror=Shelf.from_environment().site)


def _wanted(names: list[str] | None, everything: bool) -> list[str]:
    if everything:
        return [name for name, info in TABLE.items() if info.weights_url]
    if not names:
        raise ConfigurationError("no model is named", hint="name one of `ocrft models list`, or say --all")
    return names


def _millions(parameters: int) -> str:
    return f"{parameters / 1e6:.1f} M" if parameters >= 1e5 else f"{parameters / 1e3:.0f} k"


@contextmanager
def _shown(*, quiet: bool) -> Iterator[Progress | None]:
    if quiet or not err.is_terminal:
        yield None
        return
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TransferSpeedColumn
    from rich.progress import Progress as Bars

    with Bars(
        TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), console=err
    ) as bars:
        tasks: dict[str, Any] = {}

        def progress(file: str, at: int, of: int) -> None:
            task = tasks.setdefault(file, None)
            if task is None:
                task = tasks[file] = bars.add_task(file)
            bars.update(task, completed=at, total=of or None)

        yield progress
