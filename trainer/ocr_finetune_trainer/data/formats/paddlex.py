"""PaddleX's data sets for text detection and recognition: `images/`, `train.txt`, `val.txt`, and perhaps `dict.txt`."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator

from ocr_finetune_trainer.data.formats import Request, folder_of
from ocr_finetune_trainer.data.formats.ppocr import read_list, split_of
from ocr_finetune_trainer.data.records import Problem, Record

__all__ = ["LAYOUT"]

_LISTS = ("train.txt", "val.txt", "test.txt")


class _PaddleX:
    """See the module."""

    def recognise(self, request: Request) -> str:
        """`train.txt` and `val.txt` beside `images/`."""
        lists = _lists(request)
        folders = {folder_of(name) for name in lists}
        for folder in sorted(folders):
            here = {posixpath.basename(name) for name in lists if folder_of(name) == folder}
            images = f"{folder}/images/" if folder else "images/"
            if {"train.txt", "val.txt"} <= here and any(n.startswith(images) for n in request.files.names()):
                return f"train.txt and val.txt beside {images}"
        return ""

    def read(self, request: Request) -> Iterator[Record | Problem]:
        """All lists, each as the split that its name says."""
        lists = [request.list_file] if request.list_file else _lists(request)
        for name in lists:
            yield from read_list(request, name, split=split_of(name) if len(lists) > 1 else "")
        if not lists:
            yield Problem(
                kind="no-list",
                place=request.files.label,
                what="holds no train.txt",
                hint="write <picture><tab><label>, one a line",
                fatal=True,
                missing=True,
                samples=0,
            )


def _lists(request: Request) -> list[str]:
    return [name for name in request.files.others() if posixpath.basename(name) in _LISTS]


LAYOUT = _PaddleX()
