"""The PersistentVolumeClaim of a workspace that the operator makes."""

from __future__ import annotations

from typing import Any

from ocr_finetune_api.spec import WorkspaceSpec
from ocr_finetune_operator import names
from ocr_finetune_operator.builders.attempt import Owner


def build(owner: Owner, workspace: WorkspaceSpec) -> dict[str, Any]:
    """The claim. With `reclaimPolicy: Retain` it has no owner, so that deleting the run keeps what it made."""
    metadata = owner.metadata(names.claim(owner.name))
    if workspace.reclaim_policy == "Retain":
        del metadata["ownerReferences"]
    spec: dict[str, Any] = {
        "accessModes": list(workspace.access_modes),
        "resources": {"requests": {"storage": workspace.size}},
    }
    if workspace.storage_class_name:
        spec["storageClassName"] = workspace.storage_class_name
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec}
