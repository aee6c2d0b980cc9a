"""What a checkpoint must have in common with the run that goes on from it, field by field.

What is not named here may change between two attempts: how often is evaluated and saved, patience, budget, the number of
nodes and devices, more epochs, and how the samples of a step are divided into batches.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ocr_finetune_api.exit_codes import ConfigurationError
from ocr_finetune_api.plan import content_hash

if TYPE_CHECKING:
    from ocr_finetune_api.spec import OCRFineTuneSpec
    from ocr_finetune_trainer.dictionary import Dictionary

__all__ = ["EPOCHS", "differences", "identity_of", "planned_batch", "require_same_model"]

EPOCHS = "training.epochs"
_BATCH = frozenset({"training.batchSize", "training.gradientAccumulation"})

# Without these being equal the arrays do not fit or mean something else.
_MODEL = ("model.name", "model.guidance", "model.dictionary")
_TRAINING = {
    "batch_size": "batchSize",
    "gradient_accumulation": "gradientAccumulation",
    "learning_rate": "learningRate",
    "schedule": "schedule",
    "weight_decay": "weightDecay",
    "clip_norm": "clipNorm",
    "precision": "precision",
    "batch_norm": "batchNorm",
    "ema": "ema",
    "layer_decay": "layerDecay",
    "augmentation": "augmentation",
    "seed": "seed",
    "config": "config",
}
_SAID = {
    "model.dictionary": "the characters are others than when the checkpoint was written",
    "dataset.train": "the training data is other data than when the checkpoint was written",
}


def identity_of(spec: OCRFineTuneSpec, *, guided: bool, dictionary: Dictionary | None, data: str) -> dict[str, Any]:
    """The values that decide what training does, by the path of their field in the manifest.

    Args:
        spec: The run's spec.
        guided: Whether the guided branch is trained.
        dictionary: The model's characters.
        data: Content hash of the training set.
    """
    training = spec.training.model_dump(mode="json")
    return {
        "model.name": spec.model.name,
        "model.guidance": "keep" if guided else "drop",
        "model.dictionary": "" if dictionary is None else content_hash(list(dictionary.classes)),
        "model.pretrained": spec.model.pretrained,
        "model.freeze": spec.model.freeze,
        "model.freezeEpochs": spec.model.freeze_epochs,
        "dataset.train": data,
        EPOCHS: spec.training.epochs,
        **{f"training.{alias}": training[name] for name, alias in _TRAINING.items()},
    }


def differences(
    old: Mapping[str, Any], new: Mapping[str, Any], *, trained_epochs: int, same_batch: bool = False
) -> list[str]:
    """What forbids going on, one sentence a field; empty if nothing does.

    Args:
        old: The identity in the checkpoint.
        new: That of this run.
        trained_epochs: Epochs that the checkpoint's training was planned for; there may be more now, not fewer.
        same_batch: Whether a step takes as many samples as before, however they are divided: then training is the same.
    """
    found = []
    for name, value in new.items():
        if name not in old or old[name] == value or (same_batch and name in _BATCH):
            continue
        if name == EPOCHS:
            if value != "auto" and int(value) < trained_epochs:
                found.append(f"{name}: was {trained_epochs}, is now {value}; epochs can only be added")
            continue
        found.append(f"{name}: {_SAID.get(name) or f'was {old[name]}, is now {value}'}")
    return found


def planned_batch(spec: OCRFineTuneSpec) -> int | None:
    """Samples of a step over all devices, as the manifest says it; None where it leaves that to be chosen."""
    wanted, gang = spec.training.batch_size, spec.distributed
    if wanted == "auto":
        return None
    return int(wanted) * spec.training.gradient_accumulation * gang.nodes * gang.devices_per_node


def require_same_model(old: Mapping[str, Any], new: Mapping[str, Any], *, source: str) -> None:
    """Makes sure that the arrays of another run's checkpoint fit.

    Raises:
        ConfigurationError: It is of another model or dictionary; each difference is named.
    """
    wrong = [f"{name}: {old.get(name)!r} there, {new[name]!r} here" for name in _MODEL if old.get(name) != new[name]]
    if wrong:
        raise ConfigurationError(
            *(f"training.resumeFrom: {source}: {line}" for line in wrong),
            hint="to start from its weights with another dictionary, write model.pretrained: run://<its name>",
        )
