"""What all parts of the spec are made of."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

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


def rules(*pairs: tuple[str, str]) -> dict[str, Any]:
    """CEL rules for the schema of a model; see `ocr_finetune_api.crd`."""
    return {"x-kubernetes-validations": [{"rule": rule, "message": message} for rule, message in pairs]}
