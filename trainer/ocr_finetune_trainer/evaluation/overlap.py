"""Test samples that training has seen, picture for picture: figures on them prove nothing."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ocr_finetune_trainer.data.store import DataSet

__all__ = ["shared_pictures"]


def shared_pictures(held_out: DataSet, train: DataSet) -> list[dict[str, Any]]:
    """Pictures of a set that are in the training set byte by byte.

    Preparation keeps such pairs on one side of a split of its own; sets that come from elsewhere may share some. Near
    duplicates are listed in the data report.

    Args:
        held_out: The set that is measured on.
        train: The training set.

    Returns:
        For each the index and origin on both sides.
    """
    of_digest = {_digest(held_out.image(index)): index for index in range(len(held_out))}
    shared = []
    for index in range(len(train)):
        found = of_digest.get(_digest(train.image(index)))
        if found is not None:
            shared.append({"index": found, "origin": held_out.origin(found), "inTraining": train.origin(index)})
    return shared


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).digest()
