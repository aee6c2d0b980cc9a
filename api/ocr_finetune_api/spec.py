"""The `spec` of an OCRFineTune: the one source of the manifest's fields, defaults, checks and descriptions.

The CRD is generated from these models, the operator and the local engine parse manifests with them. Descriptions are
what `kubectl explain` shows. Rules that look at several fields stand twice: as CEL next to the model (for the API
server) and as a validator (for `ocrft`), one directly under the other.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel
from pydantic.config import JsonDict

from ocr_finetune_api import overrides
from ocr_finetune_api.model_table import TABLE, Kind, lookup, nearest, why_refused
from ocr_finetune_api.values import (
    AutoOrInt,
    AutoOrNumber,
    Duration,
    Interval,
    OptionalDuration,
    Percentage,
)

Uri = Annotated[str, Field(max_length=2048)]
Name = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]


class ApiModel(BaseModel):
    """Base of all parts of the resource: camelCase in YAML, unknown fields refused, values immutable."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="forbid",
        frozen=True,
        use_enum_values=False,
        validate_default=False,
    )


class Rule(BaseModel):
    """One CEL rule: the expression, and what to write instead."""

    model_config = ConfigDict(frozen=True)

    rule: str
    message: str


def _rules(*pairs: tuple[str, str]) -> dict[str, Any]:
    """CEL rules for the schema of a model; see `ocr_finetune_api.crd`."""
    return {"x-kubernetes-validations": [{"rule": rule, "message": message} for rule, message in pairs]}


class SourceFormat(StrEnum):
    """Layouts that `prepare` reads."""

    AUTO = "auto"
    CHAR_FOLDERS = "char-folders"
    PPOCR = "ppocr"
    PPOCRLABEL = "ppocrlabel"
    CCPD = "ccpd"
    ICDAR2015 = "icdar2015"
    COCO = "coco"
    LMDB = "lmdb"
    PADDLEX = "paddlex"
    CSV = "csv"
    PUBTABNET = "pubtabnet"
    PP_STRUCTURE = "pp-structure"


class DictionarySpec(ApiModel):
    """Which characters the model can read."""

    mode: Literal["auto", "keep", "extend", "replace"] = Field(
        "auto",
        description="keep: the base model's characters. extend: those and what the data adds. replace: only what `uri` "
        "or the data has. auto: keep if nothing is missing, else extend.",
    )
    uri: Uri = Field("", description="A dictionary file, one entry a line; empty takes the characters of the data.")
    space: Literal["auto", "yes", "no"] = Field(
        "auto", description="Whether the space is a class. auto: yes for a kept dictionary, else as the data has it."
    )


class ModelSpec(ApiModel):
    """The model to start from."""

    name: str = Field(
        ..., max_length=64, description="A name of the model table (`ocrft models`).", examples=["PP-OCRv5_mobile_rec"]
    )
    pretrained: Uri = Field(
        "official",
        description="official, none, the URI of a .pdparams file, or run://<other run> for its best checkpoint.",
    )
    dictionary: DictionarySpec = Field(default_factory=DictionarySpec, description="Which characters it can read.")
    guidance: Literal["auto", "keep", "drop"] = Field(
        "auto", description="The guided (GTC) branch in training. auto: kept for PP-OCRv4 and v5, dropped for v3."
    )
    freeze: Annotated[str, Field(pattern=r"^(none|backbone|body|stages:[1-9][0-9]?)$", max_length=16)] = Field(
        "none",
        description="What is not trained: none, backbone, body (all but the head), or stages:N for the backbone's first N "
        "stages.",
    )
    freeze_epochs: int = Field(
        0, ge=0, le=100000, description="Thaw what `freeze` names after this many epochs; 0 keeps it frozen."
    )
    max_text_length: AutoOrInt = Field(
        "auto", description="Longest label in characters, at most 1000. auto: the longest of the data, at least 25."
    )

    @property
    def kind(self) -> Kind:
        """What the model does."""
        return TABLE[self.name].kind

    @property
    def guided(self) -> bool:
        """Whether a guided branch is trained."""
        return {"keep": True, "drop": False}.get(self.guidance, TABLE[self.name].guided)

    @model_validator(mode="after")
    def _exists(self) -> Self:
        if self.name not in TABLE:
            refused = why_refused(self.name)
            if refused:
                msg = f"name: {refused}"
                raise ValueError(msg)
            near = nearest(self.name)
            meant = f"; did you mean {near}?" if near else f"; known are {', '.join(TABLE)}"
            msg = f"name: there is no model {self.name!r}{meant}"
            raise ValueError(msg)
        if isinstance(self.max_text_length, int) and not 1 <= self.max_text_length <= 1000:
            msg = f"maxTextLength: {self.max_text_length} is not between 1 and 1000"
            raise ValueError(msg)
        return self


class Columns(ApiModel):
    """Which columns of a CSV file hold what."""

    path: str = Field("", max_length=128, description="Column of the picture's path; empty: recognised by its content.")
    text: str = Field("", max_length=128, description="Column of the text.")
    id: str = Field("", max_length=128, description="Column of the character's id (char-folders).")
    points: str = Field("", max_length=128, description="Column of the polygon, as JSON (detection).")
    group: str = Field("", max_length=128, description="Column of what must stay on one side of a split.")


class PathPrefix(ApiModel):
    """A rule for paths that were written on another machine."""

    model_config = ConfigDict(**(ApiModel.model_config | {"serialize_by_alias": False}))

    from_: str = Field(..., alias="from", max_length=1024, description="What the paths begin with.")
    to: str = Field("", max_length=1024, description="What stands there instead, relative to the source.")


class Source(ApiModel):
    """Where labelled pictures lie, and how they are laid out."""

    uri: Uri = Field(
        ...,
        min_length=1,
        description="A path, pvc://<claim>/<path>, file://, http(s)://, s3://, gs:// or oss://; a folder, a list file, "
        "or a .tar or .zip archive.",
    )
    format: SourceFormat = Field(SourceFormat.AUTO, description="The layout; auto recognises it and says why.")
    list_file: str = Field(
        "", max_length=1024, description="The label list, relative to `uri`, where a folder has several."
    )
    columns: Columns = Field(default_factory=Columns, description="For CSV files: which column holds what.")
    path_prefix: PathPrefix | None = Field(None, description="For paths that were written on another machine.")
    include_unconfirmed: bool = Field(
        default=False, description="PPOCRLabel: also take pages that nobody has confirmed in fileState.txt."
    )


class TrainSource(Source):
    """One source of training samples."""

    name: Name = Field("train", description="A name for reports and metrics.")
    weight: float | None = Field(
        None,
        gt=0,
        le=1000,
        description="Share of this source in an epoch, relative to the others; give one to each source or to none. "
        "Without weights every sample is seen once an epoch.",
    )


_ONE_OF = (
    "has(self.fraction) != (has(self.uri) && self.uri != '')",
    "give either a fraction of the training data or a uri of its own, not both",
)


class HeldOut(ApiModel):
    """Held-back samples: a part of the training data, or a source of its own."""

    model_config = ConfigDict(json_schema_extra=_rules(_ONE_OF))

    fraction: Annotated[float, Field(gt=0.0, lt=1.0)] | None = Field(
        None, description="Part of the training data to hold back, by group."
    )
    uri: Uri = Field("", description="A source of its own, as in `dataset.train`.")
    format: SourceFormat = Field(SourceFormat.AUTO, description="The layout of `uri`.")
    list_file: str = Field("", max_length=1024, description="The label list, relative to `uri`.")
    columns: Columns = Field(default_factory=Columns, description="For CSV files: which column holds what.")
    path_prefix: PathPrefix | None = Field(None, description="For paths that were written on another machine.")
    include_unconfirmed: bool = Field(default=False, description="PPOCRLabel: also take unconfirmed pages.")

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if (self.fraction is None) == (not self.uri):
            raise ValueError(_ONE_OF[1])
        return self

    def source(self) -> Source:
        """The source that `uri` names."""
        values = {name: getattr(self, name) for name in Source.model_fields}
        return Source.model_construct(**values)


class TextSpec(ApiModel):
    """What may be changed in labels; every change is counted and reported."""

    normalize: Literal["none", "NFC", "NFKC", "fold"] = Field(
        "none", description="Unicode normal form, or fold: look-alikes become what the dictionary has."
    )
    collapse_spaces: bool = Field(default=True, description="Runs of white space become one space; ends are cut.")


class SyntheticSpec(ApiModel):
    """Lines drawn from the user's own text and fonts, added to training."""

    corpus: Uri = Field(..., min_length=1, description="A text file, one line of text a line.")
    fonts: Uri = Field(..., min_length=1, description="A font file or a folder of fonts.")
    backgrounds: Uri = Field("", description="A folder of pictures to draw on; empty draws on plain paper.")
    share: Annotated[float, Field(gt=0.0, le=10.0)] = Field(
        0.1, description="How many lines are drawn, as a part of the real training samples."
    )


_WEIGHTS = (
    "self.train.all(s, has(s.weight)) || self.train.all(s, !has(s.weight))",
    "give a weight to each source of dataset.train or to none of them",
)
_NAMES = (
    "self.train.all(s, self.train.exists_one(t, t.name == s.name))",
    "the names of dataset.train must differ; give each source a name of its own",
)
_RARE = (
    "!has(self.rareCharacters) || self.rareCharacters == 'none' || self.train.all(s, !has(s.weight))",
    "dataset.rareCharacters and weights of sources can't be combined; take one of them out",
)


class DatasetSpec(ApiModel):
    """The labelled pictures."""

    model_config = ConfigDict(json_schema_extra=_rules(_WEIGHTS, _NAMES, _RARE))

    train: Annotated[list[TrainSource], Field(min_length=1, max_length=32)] = Field(
        ..., description="Sources of training samples."
    )
    validation: HeldOut = Field(
        default_factory=lambda: HeldOut(fraction=0.1),
        description="Chooses the best checkpoint and stops early.",
    )
    test: HeldOut | None = Field(
        None, description="Measures the result; without one it is measured on `validation` and marked optimistic."
    )
    group_by: str = Field(
        "auto",
        max_length=256,
        description="What must stay on one side of a split: auto (page of a crop, plate, writer), none, or a regular "
        "expression on the path whose first group names it.",
    )
    text: TextSpec = Field(default_factory=TextSpec, description="What may be changed in labels.")
    max_rejected: Percentage = Field(
        "1%", description="More unusable samples than this end the run; each is listed either way."
    )
    rare_characters: Literal["none", "oversample"] = Field(
        "none", description="oversample draws samples with rare characters more often."
    )
    synthetic: SyntheticSpec | None = Field(None, description="Lines drawn from the user's own text and fonts.")

    @model_validator(mode="after")
    def _sources(self) -> Self:
        weighted = [source.weight is not None for source in self.train]
        if any(weighted) and not all(weighted):
            raise ValueError(_WEIGHTS[1])
        if any(weighted) and self.rare_characters != "none":
            raise ValueError(_RARE[1])
        names = [source.name for source in self.train]
        if len(set(names)) != len(names):
            raise ValueError(_NAMES[1])
        return self


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

    every: Duration = Field("10m", description="Time between checkpoints.")
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
            )
            if value != "auto" and value < least
        ]
        if self.learning_rate != "auto" and not 0 < self.learning_rate <= 1:
            problems.append(f"learningRate: {self.learning_rate} is not above 0 and at most 1")
        if self.ema != "auto" and not 0 <= self.ema < 1:
            problems.append(f"ema: {self.ema} is not at least 0 and below 1")
        wrong = overrides.problems(self.config)
        if wrong:
            problems.append(f"config: {'; '.join(wrong)}")
        if problems:
            raise ValueError("; ".join(problems))
        return self


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

    model_config = ConfigDict(json_schema_extra=_rules(_MIN_NODES))

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


Metric = Literal[
    "auto",
    "accuracy",
    "editSimilarity",
    "characterErrorRate",
    "hmean",
    "precision",
    "recall",
    "structureAccuracy",
    "teds",
]


class GateSpec(ApiModel):
    """What the new model must reach."""

    metric: Metric = Field("auto", description="auto: accuracy, hmean or structureAccuracy, by the kind of model.")
    min: float | None = Field(None, description="The least value (the greatest, for characterErrorRate).")
    min_improvement: float | None = Field(None, description="The least improvement over the base model.")
    max_regression: Fraction | None = Field(
        None, description="The largest part of the test set that the base model read and the new one does not."
    )
    per_source: bool = Field(default=False, description="Every source of the test set must pass by itself.")
    proven: bool = Field(
        default=False,
        description="The worse end of the 95 % interval must reach min, too: a small test set must not pass by luck.",
    )


class GuardSpec(ApiModel):
    """A set on which the new model must not forget."""

    name: Name = Field(..., description="A name for reports.")
    uri: Uri = Field(..., min_length=1, description="A source, as in `dataset.train`.")
    format: SourceFormat = Field(SourceFormat.AUTO, description="The layout of `uri`.")
    max_drop: Fraction = Field(0.02, description="The largest drop of the metric against the base model.")


class PartnerSpec(ApiModel):
    """The other half of a pipeline."""

    run: str = Field(..., min_length=1, max_length=253, description="A run of the other kind in this workspace.")


class EndToEndSpec(ApiModel):
    """Reading whole pages with two models."""

    with_: PartnerSpec = Field(..., alias="with", description="The other model.")
    dataset: Source = Field(..., description="Pages with boxes and texts.")
    iou: Fraction = Field(0.5, description="From which overlap a box counts as found.")


class EvaluationSpec(ApiModel):
    """How the result is judged."""

    metric: Metric = Field("auto", description="What chooses the best checkpoint; auto: by the kind of model.")
    gate: GateSpec = Field(default_factory=GateSpec, description="What the new model must reach.")
    guard: Annotated[list[GuardSpec], Field(max_length=8)] = Field(
        default_factory=list, description="Sets on which it must not forget."
    )
    end_to_end: EndToEndSpec | None = Field(None, description="Reading whole pages with two models.")
    strict: bool = Field(
        default=False,
        description="Refuse a test set that shares samples with training; otherwise they are listed and warned of.",
    )


class ExportSpec(ApiModel):
    """What is made of the best checkpoint."""

    formats: Annotated[list[Literal["paddle", "onnx", "paddle-legacy"]], Field(min_length=1, max_length=3)] = Field(
        ["paddle", "onnx"],
        description="paddle: what PaddleOCR 3 loads. onnx. paddle-legacy: .pdmodel, for older programs.",
    )
    quantize: Literal["none", "int8", "fp16"] = Field("none", description="Also a smaller ONNX model.")
    max_drop: Fraction = Field(0.01, description="The largest loss of the metric by export or quantisation.")
    destination: Uri = Field(
        "",
        description="Where the archive goes: a path, s3://, gs://, oss://, or oci://REGISTRY/NAME:TAG; empty: nowhere.",
    )


_CLAIM = (
    "!(has(self.claimName) && self.claimName != '' && has(self.size) && self.size != '')",
    "give either the name of a claim or the size of one to be made, not both",
)


class WorkspaceSpec(ApiModel):
    """Where all files of the run lie. On one machine `ocrft run --workspace` says it instead."""

    model_config = ConfigDict(json_schema_extra=_rules(_CLAIM))

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


_CPU_PRECISION = (
    (
        "!(self.distributed.device == 'cpu' && has(self.training.precision) "
        "&& self.training.precision in ['bf16', 'fp16'])"
    ),
    "training.precision: CPUs train in fp32; write precision: auto, or device: gpu",
)


class OCRFineTuneSpec(ApiModel):
    """One fine-tuning: a model, labelled pictures, and what is to become of them."""

    model_config = ConfigDict(json_schema_extra=_rules(_CPU_PRECISION))

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
