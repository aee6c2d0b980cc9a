"""`ocrft evaluate`: the stage of a manifest, or two trained runs together on whole pages."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from ocr_finetune_api.exit_codes import ConfigurationError, InputMissingError
from ocr_finetune_api.plan import Stage
from ocr_finetune_api.spec import Source, SourceFormat
from ocr_finetune_trainer.cli import run


def evaluate(
    manifest: Annotated[Path | None, typer.Argument(help="The manifest.", metavar="MANIFEST")] = None,
    workspace: run.WorkspaceOption = run.DEFAULT_WORKSPACE,
    claim: run.Claims = None,
    det: Annotated[Path | None, typer.Option(help="Folder of a detection run, instead of a manifest.")] = None,
    rec: Annotated[Path | None, typer.Option(help="Folder of a recognition run, instead of a manifest.")] = None,
    test: Annotated[
        str, typer.Option(help="Labelled pages to read: a folder, list, archive or address. Default: --det's test set.")
    ] = "",
    test_format: Annotated[SourceFormat, typer.Option("--format", help="The layout of --test.")] = SourceFormat.AUTO,
    iou: Annotated[float, typer.Option(min=0.0, max=1.0, help="From which overlap a line counts as found.")] = 0.5,
    strict: run.Strict = False,
    json: run.Json = False,
) -> None:
    """Measures the trained model on its test set; with --det and --rec, two runs together on whole pages."""
    if manifest is not None and det is None and rec is None and not test:
        run.run_stages(
            [Stage.EVALUATE], manifest=manifest, workspace=workspace, claims=claim or [], as_json=json, strict=strict
        )
        return
    if manifest is not None or det is None or rec is None:
        raise ConfigurationError(
            "give either a manifest, or --det and --rec",
            hint="ocrft evaluate --det WORKSPACE/RUN --rec WORKSPACE/RUN --test PAGES",
        )
    _pages(det, rec, test=Source(uri=test, format=test_format) if test else None, iou=iou, as_json=json)


def _pages(det: Path, rec: Path, *, test: Source | None, iou: float, as_json: bool) -> None:
    import warnings

    from ocr_finetune_api.workspace import Workspace
    from ocr_finetune_trainer.cli.output import err, out, print_json
    from ocr_finetune_trainer.data.labelled_set import read_pages
    from ocr_finetune_trainer.data.sources import Opener
    from ocr_finetune_trainer.evaluation.end_to_end import measure_end_to_end, served_pair, subject_of_run
    from ocr_finetune_trainer.evaluation.held_out import test_set
    from ocr_finetune_trainer.models.download import download

    warnings.simplefilter("ignore")
    for option, folder in (("--det", det), ("--rec", rec)):
        if not (folder / "run.yaml").is_file():
            raise InputMissingError(f"{option} {folder}: is not the folder of a run", hint="it holds a run.yaml")
    spaces = [Workspace(folder.resolve().parent, folder.resolve().name) for folder in (det, rec)]
    detector, recogniser = [subject_of_run(space) for space in spaces]
    with tempfile.TemporaryDirectory(prefix="ocrft-pages-") as aside:
        if test is None:
            held_out = test_set(spaces[0])
            dataset, facts = held_out.dataset, {"set": held_out.name, "optimistic": held_out.optimistic}
        else:
            read = read_pages(test, folder=Path(aside), opener=Opener(cache=Path(aside), download=download))
            dataset, facts = read.dataset, {"set": test.uri, "optimistic": False, "unusable": read.unusable}
            for problem in read.problems:
                err.print(f"note: {problem}", markup=False)
        result = measure_end_to_end(
            served_pair(detector, recogniser, aside=Path(aside)),
            dataset,
            iou=iou,
            detector=f"{det.name}, {detector.note}",
            recogniser=f"{rec.name}, {recogniser.note}",
        )
    if as_json:
        print_json({**result.as_dict(), **facts})
    else:
        out.print(f"{len(dataset)} pages of {facts['set']}: {result.summary()}", markup=False)
