"""`ocrft cache`: what the workspace keeps of prepared data, and what can go."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ocr_finetune_trainer.cli.run import DEFAULT_WORKSPACE, Json, WorkspaceOption

app = typer.Typer(name="cache", help="Prepared data that runs share.", no_args_is_help=True)


@app.command("list")
def list_entries(workspace: WorkspaceOption = DEFAULT_WORKSPACE, json: Json = False) -> None:
    """Lists what lies in the cache, and which runs use it."""
    from rich.table import Table

    from ocr_finetune_trainer.cli.output import out, print_json
    from ocr_finetune_trainer.data.cache import entries

    found = entries(_existing(workspace))
    if json:
        print_json(
            [
                {"kind": e.kind, "name": e.name, "bytes": e.size, "usedBy": list(e.used_by), "path": str(e.path)}
                for e in found
            ]
        )
        return
    table = Table("kind", "name", "MiB", "used by")
    for entry in found:
        table.add_row(entry.kind, entry.name, f"{entry.size / 2**20:.1f}", ", ".join(entry.used_by) or "no run")
    out.print(table)
    out.print(f"{sum(entry.size for entry in found) / 2**20:.1f} MiB in {len(found)} entries")


@app.command("prune")
def prune_entries(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    older_than: Annotated[str, typer.Option(help="Keep what is younger, such as 1h or 7d.")] = "1h",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    json: Json = False,
) -> None:
    """Removes what no run uses."""
    from ocr_finetune_api.exit_codes import ConfigurationError
    from ocr_finetune_api.values import seconds
    from ocr_finetune_trainer.cli.output import out, print_json
    from ocr_finetune_trainer.data.cache import prune

    try:
        age = seconds(older_than)
    except ValueError as error:
        raise ConfigurationError(f"--older-than {older_than}: {error}") from None
    gone = prune(_existing(workspace), older_than=age, dry_run=dry_run)
    size = sum(entry.size for entry in gone)
    if json:
        print_json({"removed": [entry.name for entry in gone], "bytes": size, "dryRun": dry_run})
        return
    done = "would be removed" if dry_run else "removed"
    out.print(f"{len(gone)} entries, {size / 2**20:.1f} MiB {done}")


def _existing(workspace: Path) -> Path:
    from ocr_finetune_api.exit_codes import InputMissingError

    if not workspace.is_dir():
        raise InputMissingError(f"{workspace}: there is no such workspace", hint="name it with --workspace")
    return workspace.absolute()
