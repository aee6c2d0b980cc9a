"""Where a training begins: at its own newest checkpoint, at another run's, or at the start; and what is told about it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ocr_finetune_api.exit_codes import ConfigurationError, InputMissingError
from ocr_finetune_trainer.training import checkpoint
from ocr_finetune_trainer.training.checkpoint import Checkpoint, Damage, Progress
from ocr_finetune_trainer.training.choices import Settings
from ocr_finetune_trainer.training.identity import EPOCHS, differences, require_same_model

if TYPE_CHECKING:
    from ocr_finetune_api.workspace import Workspace

__all__ = ["Start", "keep_settings", "locate", "set_aside"]

logger = logging.getLogger(__name__)

Tell = Callable[..., None]

# What belongs to the machine or may change at any time; all other choices stay what they were when training began.
_MAY_CHANGE = frozenset({"epochs", "batch_size", "workers", "evaluate_every", "choices", "warnings"})


@dataclass(frozen=True, kw_only=True)
class Start:
    """Where training begins.

    Attributes:
        checkpoint: What is restored; None at the very start.
        progress: How far it had come; None if only the arrays are taken over.
        restarted: Why an older training was not gone on with, one sentence a field.
        skipped: Checkpoints that can't be used, one sentence each.
    """

    checkpoint: Checkpoint | None = None
    progress: Progress | None = None
    restarted: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()


def locate(
    workspace: Workspace,
    *,
    identity: Mapping[str, Any],
    batch: int | None = None,
    resume_from: str,
    tell: Tell,
    begin_anew: bool,
) -> Start:
    """Finds where to begin.

    Args:
        workspace: The run's files.
        identity: What a checkpoint must have in common with this run.
        batch: Samples of a step as the manifest says it, None where it does not.
        resume_from: Another run's checkpoint, as the manifest names it; empty for none.
        tell: Told what happened: a name and fields.
        begin_anew: Whether checkpoints that can't be gone on with may be set aside; only rank 0 does that.

    Raises:
        ConfigurationError: `resume_from` is of another model, or this run's own checkpoints are of a newer version.
        InputMissingError: There is no usable checkpoint at `resume_from`.
    """
    skipped: list[str] = []

    def skip(damage: Damage) -> None:
        if damage.newer:
            raise ConfigurationError(
                str(damage),
                hint="take that version of the image again, or move the checkpoints away: then training begins anew",
            )
        skipped.append(f"skipped a damaged checkpoint: {damage.path.name}: {damage.reason}")
        tell("damaged-checkpoint", path=damage.path.name, reason=damage.reason)

    newest = checkpoint.load_latest(workspace, report=skip)
    wrong = _differences(newest, identity, batch=batch) if newest is not None else []
    if newest is not None and not wrong:
        start = Start(checkpoint=newest, progress=_extended(newest.manifest.progress, identity))
    else:
        if wrong and begin_anew:
            kept = set_aside(workspace.checkpoints)
            tell("restarted", reasons=wrong, kept=kept.name)
        start = _elsewhere(workspace, resume_from, identity=identity, batch=batch)
    return replace(start, restarted=tuple(wrong), skipped=tuple(skipped))


def keep_settings(new: Settings, old: Mapping[str, Any]) -> Settings:
    """The settings to go on with: what was chosen when training began stays, also on other machines."""
    known = {field.name for field in fields(Settings)} - _MAY_CHANGE
    return replace(new, **{name: value for name, value in old.items() if name in known})


def set_aside(folder: Path) -> Path:
    """Moves a folder of checkpoints out of the way; returns where it went."""
    number = 1
    while (target := folder.with_name(f"{folder.name}.before-{number}")).exists():
        number += 1
    folder.rename(target)
    return target


def _epochs(progress: Progress) -> int:
    return progress.steps // max(progress.steps_per_epoch, 1)


def _extended(progress: Progress, identity: Mapping[str, Any]) -> Progress:
    """The progress with the epochs of the manifest as it is now."""
    wanted = identity[EPOCHS]
    if wanted == "auto" or int(wanted) <= _epochs(progress) or not progress.steps_per_epoch:
        return progress
    steps = int(wanted) * progress.steps_per_epoch
    # Where epochs were added twice, the first plan decides: what was trained by it is past.
    return progress.model_copy(
        update={"steps": steps, "extended_from": progress.extended_from or progress.steps, "ended": ""}
    )


def _differences(found: Checkpoint, identity: Mapping[str, Any], *, batch: int | None) -> list[str]:
    return differences(
        found.manifest.identity,
        identity,
        trained_epochs=_epochs(found.manifest.progress),
        same_batch=batch is not None and batch == found.manifest.settings.get("global_batch"),
    )


def _elsewhere(workspace: Workspace, resume_from: str, *, identity: Mapping[str, Any], batch: int | None) -> Start:
    if not resume_from:
        return Start()
    found = _named(workspace, resume_from)
    damage = found.damage()
    if damage is not None:
        raise InputMissingError(f"training.resumeFrom: {damage}", hint="name another checkpoint")
    require_same_model(found.manifest.identity, identity, source=str(found.path))
    wrong = _differences(found, identity, batch=batch)
    if not wrong:
        return Start(checkpoint=found, progress=_extended(found.manifest.progress, identity))
    for line in wrong:
        logger.info("resumeFrom: %s; so only weights and optimizer are taken over, and step 0 comes next", line)
    return Start(checkpoint=found)


def _named(workspace: Workspace, uri: str) -> Checkpoint:
    """The checkpoint that a path or `run://<name>` names."""
    if uri.startswith("run://"):
        name = uri.removeprefix("run://")
        folders = sorted(workspace.root.glob(f"{name}-*/checkpoints")) + sorted(
            workspace.root.glob(f"{name}/checkpoints")
        )
    else:
        folders = [Path(uri.removeprefix("file://"))]
    for folder in folders:
        parent, wanted = (folder.parent, folder.name) if (folder / checkpoint.MANIFEST).exists() else (folder, "")
        found, damaged = checkpoint.find(parent)
        for item in found:
            if not wanted or item.path.name == wanted:
                return item
        if damaged:
            newer = [str(damage) for damage in damaged if not wanted or damage.path.name == wanted]
            raise ConfigurationError(*(f"training.resumeFrom: {line}" for line in newer))
    raise InputMissingError(f"training.resumeFrom: {uri}: there is no checkpoint", hint="name its folder")
