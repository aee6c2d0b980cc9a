"""`spec.evaluation` and `spec.export`: how the result is judged, and what is made of it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ocr_finetune_api.spec.base import ApiModel, Fraction, Name, Uri
from ocr_finetune_api.spec.dataset import Source, SourceFormat

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
