"""`ocrft run` and its single stages: a manifest on this machine."""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ocr_finetune_api.exit_codes import ConfigurationError, ExitCode, InputMissingError
from ocr_finetune_api.plan import STAGES, Stage

if TYPE_CHECKING:
    from ocr_finetune_api.manifest import OCRFineTune
    from ocr_finetune_api.results import StageResult
    from ocr_finetune_trainer.engine.local import LocalEngine

DEFAULT_WORKSPACE = Path("ocrft-workspace")

Manifest = Annotated[Path, typer.Argument(help="The manifest, an OCRFineTune in YAML.", metavar="MANIFEST")]
WorkspaceOption = Annotated[
    Path, typer.Option("--workspace", "-w", help="Folder for everything the run makes; shared by runs.")
]
Claims = Annotated[
    list[str] | None,
    typer.Option("--claim", help="Where pvc://NAME lies on this machine; may be given again.", metavar="NAME=FOLDER"),
]
Strict = Annotated[
    bool, typer.Option("--strict", help="Refuse a test set that shares samples with training (evaluation.strict).")
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def run(
    manifest: Manifest,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    claim: Claims = None,
    strict: Strict = False,
    json: Json = False,
) -> None:
    """Runs a manifest here: prepare, train, evaluate, export.

    Run it again to go on where it stopped; what is done for the same inputs is not done again.
    """
    run_stages(STAGES, manifest=manifest, workspace=workspace, claims=claim or [], as_json=json, strict=strict)


def add_stage_commands(application: typer.Typer) -> None:
    """Adds `prepare`, `train` and `export` to the command line; `evaluate` can do more and has a module of its own."""
    texts = {
        Stage.PREPARE: "Reads, checks and splits the data of a manifest; fetches its weights.",
        Stage.TRAIN: "Trains the model of a manifest on its prepared data.",
        Stage.EXPORT: "Makes the trained model usable by PaddleOCR and others.",
    }
    for stage, text in texts.items():
        application.command(stage.value, help=text)(_stage_command(stage))


def _stage_command(stage: Stage) -> Any:
    def command(
        manifest: Manifest,
        workspace: WorkspaceOption = DEFAULT_WORKSPACE,
        claim: Claims = None,
        json: Json = False,
    ) -> None:
        run_stages([stage], manifest=manifest, workspace=workspace, claims=claim or [], as_json=json)

    return command


def run_stages(
    stages: Sequence[Stage],
    *,
    manifest: Path,
    workspace: Path,
    claims: Sequence[str],
    as_json: bool,
    strict: bool = False,
) -> None:
    """Runs stages of a manifest on this machine, shows how they go, and ends the process with their exit code."""
    from ocr_finetune_api.manifest import load
    from ocr_finetune_trainer.cli.display import RunDisplay
    from ocr_finetune_trainer.cli.output import print_json
    from ocr_finetune_trainer.engine.local import LocalEngine

    loaded = load(manifest)
    if strict:
        loaded = _strict(loaded)
    engine = LocalEngine(loaded, folder=manifest.absolute().parent, root=workspace, claims=parse_claims(claims))
    _earlier_are_done(engine, stages)
    signal.signal(signal.SIGINT, lambda *_: engine.stop())
    signal.signal(signal.SIGTERM, lambda *_: engine.stop())
    started = time.monotonic()
    with engine.lock(), RunDisplay(engine, stages, quiet=as_json) as display:
        results = _run_each(engine, stages, display)
    if as_json:
        print_json({"run": engine.name, "workspace": str(engine.workspace.folder), "stages": results_json(results)})
    else:
        display.summary(results, seconds=time.monotonic() - started)
    raise typer.Exit(results[-1].exit_code if results else ExitCode.OK)


def _strict(manifest: OCRFineTune) -> OCRFineTune:
    spec = manifest.spec
    evaluation = spec.evaluation.model_copy(update={"strict": True})
    return manifest.model_copy(update={"spec": spec.model_copy(update={"evaluation": evaluation})})


def _run_each(engine: LocalEngine, stages: Sequence[Stage], display: Any) -> list[StageResult]:
    results: list[StageResult] = []
    for stage in stages:
        done = engine.result(stage)
        display.begin(stage, is_done=done is not None)
        # Prepare looks at its sources in any case: they may have changed. What follows depends on the workspace alone.
        result = done if done is not None and stage is not Stage.PREPARE else engine.run(stage, watch=display.watch)
        display.end(stage, result, is_old=done == result)
        results.append(result)
        if not result.succeeded or engine.stopping:
            break
    return results


def _earlier_are_done(engine: LocalEngine, stages: Sequence[Stage]) -> None:
    for earlier in STAGES[: STAGES.index(stages[0])]:
        if engine.result(earlier) is None:
            raise InputMissingError(
                f"{stages[0].value}: {earlier.value} is not done for this manifest",
                hint=f"run `ocrft {earlier.value}` first, or `ocrft run` for all stages",
            )


def results_json(results: Sequence[StageResult]) -> list[dict[str, Any]]:
    """Result documents as JSON values."""
    return [result.model_dump(mode="json", by_alias=True) for result in results]


def parse_claims(options: Sequence[str]) -> dict[str, Path]:
    """Folders by the names of claims, from options such as NAME=FOLDER.

    Raises:
        ConfigurationError: An option is not of this form.
        InputMissingError: A folder is not there.
    """
    claims: dict[str, Path] = {}
    for option in options:
        name, separator, folder = option.partition("=")
        if not separator or not name or not folder:
            raise ConfigurationError(f"--claim {option}: write --claim NAME=FOLDER")
        if not Path(folder).is_dir():
            raise InputMissingError(f"--claim {option}: {folder} is not a folder")
        claims[name] = Path(folder).absolute()
    return claims
