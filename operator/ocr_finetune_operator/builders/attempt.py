"""What all builders get: one attempt at a stage, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ocr_finetune_api import API_VERSION, KIND
from ocr_finetune_api.plan import Stage
from ocr_finetune_api.spec import OCRFineTuneSpec
from ocr_finetune_operator.constants import (
    APP_NAME,
    LABEL_ATTEMPT,
    LABEL_MANAGED_BY,
    LABEL_NAME,
    LABEL_RUN,
    LABEL_STAGE,
    MANAGER,
    METRICS_PORT,
    RENDEZVOUS_PORT,
)


@dataclass(frozen=True, kw_only=True)
class Owner:
    """The run that owns what is built."""

    name: str
    namespace: str
    uid: str

    def metadata(self, name: str, *, labels: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Metadata of an object of the run."""
        return {
            "name": name,
            "namespace": self.namespace,
            "labels": self.labels() | dict(labels or {}),
            "ownerReferences": [
                {
                    "apiVersion": API_VERSION,
                    "kind": KIND,
                    "name": self.name,
                    "uid": self.uid,
                    "controller": True,
                    "blockOwnerDeletion": True,
                }
            ],
        }

    def labels(self) -> dict[str, str]:
        """Labels of every object of the run."""
        return {LABEL_NAME: APP_NAME, LABEL_MANAGED_BY: MANAGER, LABEL_RUN: self.name}


@dataclass(frozen=True, kw_only=True)
class Installation:
    """What an installation of the operator decides about pods."""

    service_account: str = ""
    image_pull_secrets: tuple[str, ...] = ()
    run_as_user: int | None = None
    fs_group: int | None = 65532
    metrics_port: int = METRICS_PORT
    rendezvous_port: int = RENDEZVOUS_PORT


@dataclass(frozen=True, kw_only=True)
class AttemptPlan:
    """One attempt at a stage.

    Attributes:
        spec: The spec it works from, with addresses as in the manifest.
        nodes: Number of pods.
        devices_per_node: Devices of each.
        device: gpu or cpu.
        image: Trainer image.
        claim: The claim that holds the workspace.
        input_hash: What the stage's result depends on.
        avoid_nodes: Nodes that the pods keep off.
    """

    owner: Owner
    spec: OCRFineTuneSpec
    stage: Stage
    number: int
    nodes: int
    devices_per_node: int
    device: str
    image: str
    claim: str
    input_hash: str
    avoid_nodes: tuple[str, ...] = ()
    installation: Installation = Installation()

    def labels(self) -> dict[str, str]:
        """Labels of the Job and of its pods."""
        return self.owner.labels() | {LABEL_STAGE: self.stage.value, LABEL_ATTEMPT: str(self.number)}
