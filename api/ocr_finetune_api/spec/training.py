"""`spec.training` and `spec.distributed`: how the model is trained, and on how many devices."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from ocr_finetune_api import overrides
from ocr_finetune_api.spec.base import ApiModel, Fraction, Uri, rules
from ocr_finetune_api.values import AutoOrInt, AutoOrNumber, Duration, Interval, OptionalDuration, seconds


class ScheduleSpec(ApiModel):
    """How the learning rate changes."""

    name: Literal["cosine", "piecewise", "one-cycle", "linear", "constant"] = Field("cosine", description="Its shape.")
    warmup_epochs: AutoOrNumber = Field("auto", description="Epochs of linear warm-up, or auto.")
    boundaries: Annotated[list[Fraction], Field(max_length=8)] = Field(
        default_factory=list, description="piecewise: where the rate drops, as parts of the training."
    )
    factor: Fraction = Field(0.2, description="piecewise: what the rate is multiplied by at each boundary.")


class EarlyStopping(ApiModel):
    """When training ends before its last epoch."""

    patience: int = Field(10, ge=0, le=10000, description="Evaluations without improvement; 0 never stops early.")
    min_delta: float = Field(0.0, ge=0.0, le=1.0, description="What counts as an improvement.")


class CheckpointSpec(ApiModel):
    """When checkpoints are written, and how many stay."""

    every: Duration = Field("10m", description="Time between checkpoints; 0s: by steps only.")
    every_steps: int = Field(0, ge=0, description="Also after this many steps; 0: by time only.")
    keep_last: int = Field(2, ge=1, le=100, description="How many of the newest stay, beside the best.")


class EvaluateSpec(ApiModel):
    """When training measures itself on the validation set."""

    every: Interval = Field("auto", description="N epochs, N steps, or auto: under a tenth of the time.")


class TrainingSpec(ApiModel):
    """How the model is trained."""

    epochs: AutoOrInt = Field("auto", description="Passes over the data. auto: 100 under 10,000 samples, else 50.")
    batch_size: AutoOrInt = Field("auto", description="Samples a device and step. auto: 64 lines, 8 pages.")
    gradient_accumulation: int = Field(1, ge=1, le=1024, description="Batches a step, to make larger ones.")
    learning_rate: AutoOrNumber = Field("auto", description="Peak rate. auto: from the total batch and the data.")
    schedule: ScheduleSpec = Field(default_factory=ScheduleSpec, description="How the rate changes.")
    weight_decay: AutoOrNumber = Field("auto", description="Decay of weights; norms and biases have none.")
    clip_norm: AutoOrNumber = Field("auto", description="Largest L2 norm of all gradients; 0 clips nothing.")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="auto: bf16 where the GPU has it, else fp16 with loss scaling; fp32 on CPUs."
    )
    batch_norm: Literal["auto", "local", "sync", "frozen"] = Field(
        "auto", description="Batch-norm statistics. auto: frozen in fine-tuning with under 16 samples a device."
    )
    ema: AutoOrNumber = Field("auto", description="Decay of the weights' moving average; 0 keeps none.")
    layer_decay: AutoOrNumber = Field("auto", description="Factor of the rate from the head down to each stage.")
    augmentation: Literal["auto", "none"] = Field("auto", description="auto: what suits the model and the data.")
    evaluate: EvaluateSpec = Field(default_factory=EvaluateSpec, description="When it is measured.")
    early_stopping: EarlyStopping = Field(default_factory=EarlyStopping, description="When it ends early.")
    target_metric: float | None = Field(None, description="Training ends as soon as validation reaches this.")
    time_budget: OptionalDuration = Field("", description="Training ends well after this time; empty: no limit.")
    checkpoint: CheckpointSpec = Field(default_factory=CheckpointSpec, description="When checkpoints are written.")
    resume_from: Uri = Field("", description="A checkpoint of another run to go on from.")
    seed: int = Field(0, ge=0, le=2**31 - 1, description="Seed of everything random.")
    workers: AutoOrInt = Field("auto", description="Data-loading processes a device.")
    config: dict[str, Any] = Field(
        default_factory=dict,
        description="Expert settings under PaddleOCR's key names, such as PostProcess.unclip_ratio: 1.8; the reference "
        "lists them. A key that has a field of its own is refused.",
        json_schema_extra={"x-kubernetes-preserve-unknown-fields": True},
    )

    @model_validator(mode="after")
    def _ranges(self) -> Self:
        problems = [
            f"{name}: {value} is not at least {least}"
            for name, value, least in (
                ("epochs", self.epochs, 1),
                ("batchSize", self.batch_size, 1),
                ("workers", self.workers, 0),
                ("weightDecay", self.weight_decay, 0),
                ("clipNorm", self.clip_norm, 0),
                ("schedule.warmupEpochs", self.schedule.warmup_epochs, 0),
            )
            if value != "auto" and value < least
        ]
        if self.learning_rate != "auto" and not 0 < self.learning_rate <= 1:
            problems.append(f"learningRate: {self.learning_rate} is not above 0 and at most 1")
        if self.ema != "auto" and not 0 <= self.ema < 1:
            problems.append(f"ema: {self.ema} is not at least 0 and below 1")
        if self.layer_decay != "auto" and not 0 < self.layer_decay <= 1:
            problems.append(f"layerDecay: {self.layer_decay} is not above 0 and at most 1")
        problems += self._impossible()
        wrong = overrides.problems(self.config)
        if wrong:
            problems.append(f"config: {'; '.join(wrong)}")
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _impossible(self) -> list[str]:
        """Values that are fine by themselves, but not together."""
        problems = []
        warmup, rising = self.schedule.warmup_epochs, sorted(set(self.schedule.boundaries))
        if "auto" not in (warmup, self.epochs) and float(warmup) >= int(self.epochs) > 0:
            problems.append(f"schedule.warmupEpochs: {warmup} leaves nothing of {self.epochs} epochs; write fewer")
        if self.schedule.boundaries != rising:
            problems.append(f"schedule.boundaries: each must be above the one before; write {rising}")
        if not seconds(self.checkpoint.every) and not self.checkpoint.every_steps:
            problems.append("checkpoint.every: without a time or everySteps a run that is killed loses everything")
        return problems


class Topology(ApiModel):
    """Where the nodes of one training should lie."""

    preferred: str = Field("", max_length=253, description="Node label whose value the pods should share.")
    required: str = Field("", max_length=253, description="Node label whose value the pods must share.")


_MIN_NODES = (
    "self.minNodes <= self.nodes",
    "minNodes must not be above nodes",
)


class DistributedSpec(ApiModel):
    """On how many nodes and devices training runs."""

    model_config = ConfigDict(json_schema_extra=rules(_MIN_NODES))

    nodes: int = Field(1, ge=1, le=1024, description="Pods, one a node.")
    devices_per_node: int = Field(1, ge=1, le=64, description="Processes a pod, one a device.")
    device: Literal["auto", "gpu", "cpu"] = Field(
        "auto", description="auto: gpu on a cluster; on this machine a GPU if there is one, else the CPU."
    )
    resource_name: str = Field("nvidia.com/gpu", max_length=253, description="The extended resource of a device.")
    min_nodes: int = Field(1, ge=1, le=1024, description="Train on fewer nodes, down to this, if no more can be had.")
    topology: Topology = Field(default_factory=Topology, description="Where the nodes should lie.")

    @model_validator(mode="after")
    def _min_nodes(self) -> Self:
        if self.min_nodes > self.nodes:
            raise ValueError(_MIN_NODES[1])
        return self
