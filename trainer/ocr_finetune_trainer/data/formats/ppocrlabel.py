"""A folder that PPOCRLabel wrote: `Label.txt`, `fileState.txt`, and after an export `rec_gt.txt` with `crop_img/`.

`Label.txt` holds every page that was opened, with what the machine guessed. Only pages that a person confirmed
(`fileState.txt` says 1) are labels; the others are left out, and counted, unless the manifest asks for them.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator

from ocr_finetune_api.model_table import Kind
from ocr_finetune_trainer.data.formats import Request, folder_of
from ocr_finetune_trainer.data.formats.ppocr import page_group, read_list
from ocr_finetune_trainer.data.records import Problem, Record

__all__ = ["LAYOUT"]

_LABELS = "Label.txt"
_STATES = "filestate.txt"
_CROPS = "rec_gt.txt"


class _PpOcrLabel:
    """See the module."""

    def recognise(self, request: Request) -> str:
        """A `Label.txt`, with its states or its crops beside it."""
        labels = _named(request, _LABELS)
        others = _named(request, _STATES) or _named(request, _CROPS)
        return f"{labels[0]} with {posixpath.basename(others[0])}" if labels and others else ""

    def read(self, request: Request) -> Iterator[Record | Problem]:
        """Pages, or for a recognition model the exported crops; without an export crops are cut from the pages."""
        crops = _named(request, _CROPS) if request.kind is Kind.RECOGNITION else []
        lists = [request.list_file] if request.list_file else crops or _named(request, _LABELS)
        if not lists:
            yield Problem(
                kind="no-list",
                place=request.files.label,
                what="holds no Label.txt",
                hint="give the folder that PPOCRLabel was opened on",
                fatal=True,
                missing=True,
                samples=0,
            )
            return
        for name in lists:
            yield from self._read_one(request, name, are_crops=name in crops)

    def _read_one(self, request: Request, name: str, *, are_crops: bool) -> Iterator[Record | Problem]:
        confirmed = _confirmed(request, folder_of(name))
        left_out = 0
        for item in read_list(request, name):
            if isinstance(item, Record) and confirmed is not None and not request.include_unconfirmed:
                page = page_group(item.member.name) if are_crops else item.member.name
                if _stem(page) not in confirmed:
                    left_out += 1
                    continue
            yield item
        if left_out:
            yield Problem(
                kind="unconfirmed",
                place=request.files.place(name),
                what=f"{left_out} {'crops of ' if are_crops else ''}pages that nobody has confirmed are left out",
                hint="confirm them in PPOCRLabel, or set includeUnconfirmed: true",
                samples=0,
            )


def _named(request: Request, wanted: str) -> list[str]:
    return [name for name in request.files.others() if posixpath.basename(name).lower() == wanted.lower()]


def _stem(name: str) -> str:
    return posixpath.splitext(posixpath.basename(name.replace("\\", "/")))[0]


def _confirmed(request: Request, folder: str) -> frozenset[str] | None:
    """Stems of the confirmed pages of a folder; None if there is no file that says it."""
    states = [name for name in _named(request, _STATES) if folder_of(name) == folder]
    if not states:
        return None
    try:
        lines = request.files.read_text(states[0]).splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    cells = (line.rsplit("\t", 1) for line in lines if "\t" in line)
    return frozenset(_stem(path) for path, state in cells if state.strip() == "1")


LAYOUT = _PpOcrLabel()
