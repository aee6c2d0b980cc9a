"""`spec.model`: the model to start from."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ocr_finetune_api.model_table import TABLE, Kind, nearest, why_refused
from ocr_finetune_api.spec.base import ApiModel, Uri
from ocr_finetune_api.values import AutoOrInt


class DictionarySpec(ApiModel):
    """Which characters the model can read."""

    mode: Literal["auto", "keep", "extend", "replace"] = Field(
        "auto",
        description="keep: the base model's characters. extend: those and what the data adds. replace: only what `uri` "
        "or the data has. auto: keep if nothing is missing, else extend.",
    )
    uri: Uri = Field(
        "",
        description="A dictionary file, one entry a line, or official://<model> for that of an official model; empty "
        "takes the characters of the data.",
    )
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
