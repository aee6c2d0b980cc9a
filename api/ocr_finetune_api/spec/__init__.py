"""The `spec` of an OCRFineTune: the one source of the manifest's fields, defaults, checks and descriptions.

The CRD is generated from these models, the operator and the local engine parse manifests with them. Descriptions are
what `kubectl explain` shows. Rules that look at several fields stand twice: as CEL next to the model (for the API
server) and as a validator (for `ocrft`), one directly under the other.
"""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import ConfigDict, Field, model_validator

from ocr_finetune_api import overrides
from ocr_finetune_api.model_table import lookup
from ocr_finetune_api.spec.base import ApiModel, rules
from ocr_finetune_api.spec.cluster import CredentialSpec, PodsSpec, PolicySpec, QueueSpec, StageResources, WorkspaceSpec
from ocr_finetune_api.spec.dataset import (
    Columns,
    DatasetSpec,
    HeldOut,
    PathPrefix,
    Source,
    SourceFormat,
    SyntheticSpec,
    TextSpec,
    TrainSource,
)
from ocr_finetune_api.spec.evaluation import (
    EndToEndSpec,
    EvaluationSpec,
    ExportSpec,
    GateSpec,
    GuardSpec,
    Metric,
    PartnerSpec,
)
from ocr_finetune_api.spec.model import DictionarySpec, ModelSpec
from ocr_finetune_api.spec.training import (
    CheckpointSpec,
    DistributedSpec,
    EarlyStopping,
    EvaluateSpec,
    ScheduleSpec,
    Topology,
    TrainingSpec,
)

__all__ = [
    "ApiModel",
    "CheckpointSpec",
    "Columns",
    "CredentialSpec",
    "DatasetSpec",
    "DictionarySpec",
    "DistributedSpec",
    "EarlyStopping",
    "EndToEndSpec",
    "EvaluateSpec",
    "EvaluationSpec",
    "ExportSpec",
    "Fraction",
    "GateSpec",
    "GuardSpec",
    "HeldOut",
    "Metric",
    "ModelSpec",
    "Name",
    "OCRFineTuneSpec",
    "PartnerSpec",
    "PathPrefix",
    "PodsSpec",
    "PolicySpec",
    "QueueSpec",
    "Rule",
    "ScheduleSpec",
    "Source",
    "SourceFormat",
    "StageResources",
    "SyntheticSpec",
    "TextSpec",
    "Topology",
    "TrainSource",
    "TrainingSpec",
    "Uri",
    "WorkspaceSpec",
]


_CPU_PRECISION = (
    (
        "!(self.distributed.device == 'cpu' && has(self.training.precision) "
        "&& self.training.precision in ['bf16', 'fp16'])"
    ),
    "training.precision: CPUs train in fp32; write precision: auto, or device: gpu",
)


class OCRFineTuneSpec(ApiModel):
    """One fine-tuning: a model, labelled pictures, and what is to become of them."""

    model_config = ConfigDict(json_schema_extra=rules(_CPU_PRECISION))

    profile: str = Field("", max_length=63, description="Defaults that the administrator has defined, by name.")
    model: ModelSpec = Field(..., description="The model to start from.")
    dataset: DatasetSpec = Field(..., description="The labelled pictures.")
    training: TrainingSpec = Field(default_factory=TrainingSpec, description="How the model is trained.")
    distributed: DistributedSpec = Field(default_factory=DistributedSpec, description="On how many devices.")
    evaluation: EvaluationSpec = Field(default_factory=EvaluationSpec, description="How the result is judged.")
    export: ExportSpec = Field(default_factory=ExportSpec, description="What is made of the best checkpoint.")
    workspace: WorkspaceSpec = Field(default_factory=WorkspaceSpec, description="Where all files of the run lie.")
    credentials: Annotated[list[CredentialSpec], Field(max_length=32)] = Field(
        default_factory=list, description="Access to object storage."
    )
    queue: QueueSpec = Field(default_factory=QueueSpec, description="Kueue.")
    policy: PolicySpec = Field(default_factory=PolicySpec, description="What happens over time and on failure.")
    pods: PodsSpec = Field(default_factory=PodsSpec, description="How the pods look.")

    @model_validator(mode="after")
    def _cpu_precision(self) -> Self:
        if self.distributed.device == "cpu" and self.training.precision in ("bf16", "fp16"):
            raise ValueError(_CPU_PRECISION[1])
        return self

    @model_validator(mode="after")
    def _expert_settings(self) -> Self:
        problems = overrides.problems_for(
            self.training.config,
            lookup(self.model.name),
            guided=self.model.guided,
            augmented=self.training.augmentation != "none",
        )
        if problems:
            raise ValueError(f"training.config: {'; '.join(problems)}")
        return self
