"""`spec.workspace`, `credentials`, `queue`, `policy` and `pods`: what a run needs of its surroundings."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, model_validator
from pydantic.config import JsonDict

from ocr_finetune_api.spec.base import ApiModel, Uri, rules
from ocr_finetune_api.values import Duration

_CLAIM = (
    "!(has(self.claimName) && self.claimName != '' && has(self.size) && self.size != '')",
    "give either the name of a claim or the size of one to be made, not both",
)


class WorkspaceSpec(ApiModel):
    """Where all files of the run lie. On one machine `ocrft run --workspace` says it instead."""

    model_config = ConfigDict(json_schema_extra=rules(_CLAIM))

    claim_name: str = Field("", max_length=253, description="An existing PersistentVolumeClaim.")
    size: str = Field("", max_length=32, description="Size of a claim to be made, such as 50Gi.")
    storage_class_name: str = Field("", max_length=253, description="Storage class of a claim to be made.")
    access_modes: Annotated[
        list[Literal["ReadWriteOnce", "ReadWriteMany", "ReadWriteOncePod"]], Field(max_length=2)
    ] = Field(["ReadWriteMany"], description="Access modes of a claim to be made.")
    reclaim_policy: Literal["Retain", "Delete"] = Field(
        "Retain", description="What becomes of a made claim when the run is deleted."
    )

    @model_validator(mode="after")
    def _claim(self) -> Self:
        if self.claim_name and self.size:
            raise ValueError(_CLAIM[1])
        return self


class CredentialSpec(ApiModel):
    """Access to object storage; mounted as files, in prepare and export only."""

    prefix: Uri = Field(..., min_length=1, description="Addresses that begin with this; the longest prefix wins.")
    secret_name: str = Field(..., min_length=1, max_length=253, description="Secret with the keys of its file system.")
    endpoint: Uri = Field("", description="Address of the service, where it is not the vendor's own.")
    region: str = Field("", max_length=64, description="Region of the service.")


class QueueSpec(ApiModel):
    """Kueue."""

    name: str = Field("", max_length=253, description="LocalQueue of all stages; empty: not queued.")
    stages: dict[Literal["prepare", "train", "evaluate", "export"], str] = Field(
        default_factory=dict, description="LocalQueues of single stages."
    )
    priority_class: str = Field("", max_length=253, description="WorkloadPriorityClass.")


class PolicySpec(ApiModel):
    """What happens over time and on failure; may change at any time."""

    suspend: bool = Field(default=False, description="Stop with a checkpoint and free the devices.")
    retry_nonce: int = Field(0, ge=0, description="Raise it to go on with a failed run at the failed stage.")
    max_restarts: int = Field(3, ge=0, le=1000, description="Failures to retry; disruptions do not count.")
    grace_period: Duration = Field("120s", description="Time for a checkpoint between SIGTERM and SIGKILL.")
    startup_timeout: Duration = Field("30m", description="Until all pods of an admitted attempt run.")
    rendezvous_timeout: Duration = Field("10m", description="Until all ranks have met.")
    stall_timeout: Duration = Field("30m", description="Without a step.")
    node_lost_grace: Duration = Field("5m", description="Until pods of a dead node are given up.")
    active_deadline: Duration = Field("72h", description="Running time of all attempts together.")
    ttl_after_finished: Duration = Field("168h", description="Until Jobs and pods of a finished run are removed.")
    avoid_failed_nodes: bool = Field(default=True, description="Keep off a node that failed twice.")


_OPEN: JsonDict = {"x-kubernetes-preserve-unknown-fields": True}


class StageResources(ApiModel):
    """Requests and limits of a container."""

    requests: dict[str, str | int] = Field(default_factory=dict, description="As in a pod.")
    limits: dict[str, str | int] = Field(default_factory=dict, description="As in a pod.")


class PodsSpec(ApiModel):
    """How the pods look."""

    image: str = Field("", max_length=1024, description="Trainer image; empty: the installation's own.")
    shared_memory: str = Field("8Gi", max_length=32, description="Size of /dev/shm.")
    resources: dict[Literal["prepare", "train", "evaluate", "export"], StageResources] = Field(
        default_factory=dict, description="Requests and limits by stage."
    )
    node_selector: dict[str, str] = Field(default_factory=dict, description="As in a pod.")
    tolerations: Annotated[list[dict[str, Any]], Field(max_length=64)] = Field(
        default_factory=list, description="As in a pod."
    )
    affinity: dict[str, Any] = Field(default_factory=dict, description="As in a pod.", json_schema_extra=_OPEN)
    priority_class_name: str = Field("", max_length=253, description="As in a pod.")
    runtime_class_name: str = Field("", max_length=253, description="As in a pod.")
    resource_claims: Annotated[list[dict[str, Any]], Field(max_length=32)] = Field(
        default_factory=list, description="As in a pod."
    )
    scheduler_name: str = Field("", max_length=253, description="As in a pod.")
    env: Annotated[list[dict[str, Any]], Field(max_length=128)] = Field(
        default_factory=list, description="As in a container; names of PADDLE_ and OCRFT_ are the operator's."
    )
    env_from: Annotated[list[dict[str, Any]], Field(max_length=32)] = Field(
        default_factory=list, description="As in a container."
    )
    service_account_name: str = Field("", max_length=253, description="As in a pod.")
    image_pull_secrets: Annotated[list[dict[str, str]], Field(max_length=16)] = Field(
        default_factory=list, description="As in a pod."
    )
    pod_template: dict[str, Any] = Field(
        default_factory=dict,
        description="Anything else of a PodTemplateSpec; what the operator sets itself wins, a clash is refused.",
        json_schema_extra=_OPEN,
    )
