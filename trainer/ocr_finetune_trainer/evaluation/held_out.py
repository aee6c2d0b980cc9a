"""The set that a run is measured on, in evaluation and in the export's checks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ocr_finetune_api import results
from ocr_finetune_api.exit_codes import DataError, InputMissingError
from ocr_finetune_api.plan import Stage
from ocr_finetune_trainer.data.store import DataSet

if TYPE_CHECKING:
    from ocr_finetune_api.workspace import Workspace

__all__ = ["HeldOutSet", "test_set"]


@dataclass(frozen=True, kw_only=True)
class HeldOutSet:
    """A set to measure on.

    Attributes:
        name: `test`, or `validation` where there is no test set.
        dataset: Its usable samples.
        unusable: Samples of it that preparation could not use; they count as wrong.
    """

    name: str
    dataset: DataSet
    unusable: int

    @property
    def optimistic(self) -> bool:
        """Whether the set has chosen the checkpoint, so that figures on it flatter the model."""
        return self.name != "test"


def test_set(workspace: Workspace) -> HeldOutSet:
    """The test set of a run; the validation set where there is none.

    Raises:
        InputMissingError: prepare has left neither.
        DataError: It holds no usable sample.
    """
    prepared = results.read(workspace.result(Stage.PREPARE))
    details: dict[str, Any] = prepared.details if prepared is not None else {}
    optimistic = bool(details.get("optimistic", not (workspace.data / "test").is_dir()))
    name = "validation" if optimistic else "test"
    if not (workspace.data / name).is_dir():
        raise InputMissingError(f"{workspace.data / name}: there is no prepared {name} set", hint="run prepare first")
    dataset = DataSet.open(workspace.data / name)
    if len(dataset) == 0:
        raise DataError(
            f"the {name} set has no usable samples, so the model cannot be measured",
            hint=f"give dataset.{name} more data; rejected samples are listed in {workspace.rejected}",
        )
    unusable = details.get("unusable") or {}
    return HeldOutSet(name=name, dataset=dataset, unusable=int(unusable.get(name, 0)))
