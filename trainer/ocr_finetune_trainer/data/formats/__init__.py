"""The layouts of labelled pictures that people have: one module each, one table of them all.

A layout says whether a source looks like its own, and turns it into records. It opens label files, never pictures.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Protocol

from ocr_finetune_api.exit_codes import DataError
from ocr_finetune_api.model_table import Kind
from ocr_finetune_api.spec import Columns, SourceFormat
from ocr_finetune_trainer.data.paths import Resolver

if TYPE_CHECKING:
    from ocr_finetune_trainer.data.files import Files
    from ocr_finetune_trainer.data.records import Problem, Record

__all__ = ["Layout", "Recognised", "Request", "layout", "recognise"]


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a layout is asked to read.

    Attributes:
        files: The files of the source.
        kind: What the model does; a layout that holds both lines and pages gives what suits it.
        list_file: The label list that the user named, empty if none.
        columns: Which columns of a CSV file hold what.
        include_unconfirmed: Whether pages that nobody has confirmed are taken too.
        resolver: Finds pictures.
    """

    files: Files
    kind: Kind = Kind.RECOGNITION
    list_file: str = ""
    columns: Columns = field(default_factory=Columns)
    include_unconfirmed: bool = False
    resolver: Resolver = field(init=False)
    prefix: tuple[str, str] | None = None

    def __post_init__(self) -> None:
        from ocr_finetune_trainer.data.paths import PrefixRule

        rule = PrefixRule(*self.prefix) if self.prefix else None
        object.__setattr__(self, "resolver", Resolver(self.files, prefix=rule))


@dataclass(frozen=True, kw_only=True)
class Recognised:
    """Which layout a source has, and what shows it."""

    format: SourceFormat
    reason: str


class Layout(Protocol):
    """One layout."""

    def recognise(self, request: Request) -> str:
        """What shows that the source has this layout; empty if nothing does."""

    def read(self, request: Request) -> Iterator[Record | Problem]:
        """All labelled pictures, and all that is wrong with the others, in a fixed order."""


# Asked in this order: the most particular first, since a PPOCRLabel folder also holds ordinary lists.
_MODULES: dict[SourceFormat, str] = {
    SourceFormat.LMDB: "lmdb",
    SourceFormat.PPOCRLABEL: "ppocrlabel",
    SourceFormat.CHAR_FOLDERS: "char_folders",
    SourceFormat.PADDLEX: "paddlex",
    SourceFormat.ICDAR2015: "icdar2015",
    SourceFormat.COCO: "coco",
    SourceFormat.PPOCR: "ppocr",
    SourceFormat.CSV: "csv",
    # Pictures keep their long names when somebody writes labels for them, and those labels are meant.
    SourceFormat.CCPD: "ccpd",
    SourceFormat.PUBTABNET: "pubtabnet",
    SourceFormat.PP_STRUCTURE: "pp_structure",
}


def layout(name: SourceFormat) -> Layout:
    """The layout of a name.

    Raises:
        DataError: No layout has this name.
    """
    if name not in _MODULES:
        raise DataError(
            f"format {name.value!r} is not one of {', '.join(known.value for known in _MODULES)}",
            hint="write dataset.train[].format: auto",
        )
    module = import_module(f"{__name__}.{_MODULES[name]}")
    found: Layout = module.LAYOUT
    return found


def recognise(request: Request) -> Recognised:
    """Finds out which layout a source has.

    Raises:
        DataError: It looks like none of them.
    """
    for name in _MODULES:
        reason = layout(name).recognise(request)
        if reason:
            return Recognised(format=name, reason=reason)
    names = request.files.names()
    shown = ", ".join(names[:5]) or "nothing"
    raise DataError(
        f"{request.files.label}: its layout was not recognised; it holds {len(names)} files: {shown}"
        + (" …" if len(names) > 5 else ""),
        hint="write format: and one of " + ", ".join(known.value for known in _MODULES),
    )


def folder_of(name: str) -> str:
    """The folder of a file in its source, empty for the root."""
    return name.rpartition("/")[0]
