"""`spec.dataset`: the labelled pictures."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from ocr_finetune_api.spec.base import ApiModel, Name, Uri, rules
from ocr_finetune_api.values import Percentage


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

    model_config = ConfigDict(json_schema_extra=rules(_ONE_OF))

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

    model_config = ConfigDict(json_schema_extra=rules(_WEIGHTS, _NAMES, _RARE))

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
