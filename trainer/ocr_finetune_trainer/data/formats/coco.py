"""COCO and COCO-Text: one JSON file of pictures and annotations, with polygons or boxes and a text each."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from ocr_finetune_trainer.data.formats import Request, folder_of
from ocr_finetune_trainer.data.formats.ppocr import IGNORED_TEXTS, split_of
from ocr_finetune_trainer.data.records import Box, Problem, Record

__all__ = ["LAYOUT"]

_TEXT_KEYS = ("utf8_string", "text", "transcription", "caption", "rec", "label")


class _Coco:
    """See the module."""

    def recognise(self, request: Request) -> str:
        """A JSON file with pictures and annotations."""
        for name in _candidates(request):
            values = _load(request, name)
            if isinstance(values, dict) and _pictures(values) is not None and _annotations(values) is not None:
                return f"{name} lists pictures and annotations"
        return ""

    def read(self, request: Request) -> Iterator[Record | Problem]:
        """All annotated pictures of all such files."""
        names = [request.list_file] if request.list_file else _candidates(request)
        several = len(names) > 1
        anything = False
        for name in names:
            values = _load(request, name)
            if isinstance(values, Problem):
                yield values
                continue
            if not isinstance(values, dict) or _pictures(values) is None or _annotations(values) is None:
                continue
            anything = True
            yield from _read(request, name, values, split=split_of(name) if several else "")
        if not anything:
            yield Problem(
                kind="no-list",
                place=request.files.label,
                what="holds no JSON file with images and annotations",
                hint="give it in dataset.train[].listFile",
                fatal=True,
                samples=0,
            )


def _candidates(request: Request) -> list[str]:
    return [name for name in request.files.others() if name.lower().endswith(".json") and "id2char" not in name]


def _load(request: Request, name: str) -> Any:
    place = request.files.place(name)
    try:
        return json.loads(request.files.read_text(name))
    except json.JSONDecodeError as error:
        return Problem(
            kind="broken-json",
            place=f"{place}:{error.lineno}",
            what=f"is no JSON ({error.msg})",
            hint=f"look at column {error.colno}",
            fatal=True,
            samples=0,
        )
    except (OSError, UnicodeDecodeError) as error:
        return Problem(
            kind="unreadable-list", place=place, what=f"can't be read ({error})", fatal=True, missing=True, samples=0
        )


def _pictures(values: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    found = values.get("images", values.get("imgs"))
    if isinstance(found, dict):
        return [picture for picture in found.values() if isinstance(picture, dict)]
    return [picture for picture in found if isinstance(picture, dict)] if isinstance(found, list) else None


def _annotations(values: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    found = values.get("annotations", values.get("anns"))
    if isinstance(found, dict):
        found = list(found.values())
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else None


def _read(request: Request, name: str, values: Mapping[str, Any], *, split: str) -> Iterator[Record | Problem]:
    by_picture: dict[str, list[dict[str, Any]]] = {}
    for annotation in _annotations(values) or ():
        by_picture.setdefault(_key(annotation.get("image_id")), []).append(annotation)
    pictures = _pictures(values) or []
    known = {_key(picture.get("id")) for picture in pictures}
    for lost in sorted(set(by_picture) - known):
        yield Problem(
            kind="unknown-id",
            place=f"{request.files.place(name)}: annotations",
            what=f"{len(by_picture[lost])} annotations speak of a picture {lost} that is not listed",
            hint="add it to images",
        )
    for picture in pictures:
        yield _one(request, name, picture, by_picture.get(_key(picture.get("id")), []), split=split)


def _key(number: Any) -> str:
    """An id as text: some write the same id as a number here and as a text there."""
    return str(number)


def _one(
    request: Request, name: str, picture: Mapping[str, Any], annotations: list[dict[str, Any]], *, split: str
) -> Record | Problem:
    place = f"{request.files.place(name)}: image {picture.get('id')}"
    boxes = []
    for annotation in annotations:
        box = _box(annotation)
        if isinstance(box, str):
            return Problem(
                kind="bad-box",
                place=place,
                what=f"annotation {annotation.get('id')} {box}",
                hint="give it a segmentation of at least three points, or a bbox [x, y, width, height]",
            )
        boxes.append(box)
    member = request.resolver.find(str(picture.get("file_name") or ""), base=folder_of(name), place=place)
    if isinstance(member, Problem):
        return member
    part = {"train": "train", "val": "validation", "test": "test"}.get(str(picture.get("set", "")), split)
    return Record(member=member, place=place, boxes=tuple(boxes), split=part)


def _box(annotation: Mapping[str, Any]) -> Box | str:
    flat = annotation.get("segmentation") or annotation.get("mask") or annotation.get("polygon")
    if isinstance(flat, list) and flat and isinstance(flat[0], list):
        flat = max(flat, key=len)
    try:
        if isinstance(flat, list) and len(flat) >= 6:
            points = tuple((float(x), float(y)) for x, y in zip(flat[0::2], flat[1::2], strict=True))
        else:
            left, top, width, height = (float(value) for value in annotation["bbox"])
            if width <= 0 or height <= 0:
                return f"has a bbox of {width:g}x{height:g}"
            points = ((left, top), (left + width, top), (left + width, top + height), (left, top + height))
    except (KeyError, TypeError, ValueError):
        return "has neither points nor a bbox that can be read"
    attributes = annotation.get("attributes")
    both = {**attributes, **annotation} if isinstance(attributes, dict) else annotation
    text = next((str(both[key]) for key in _TEXT_KEYS if isinstance(both.get(key), str)), "")
    ignored = bool(annotation.get("iscrowd")) or annotation.get("legibility") == "illegible" or text in IGNORED_TEXTS
    return Box(points=points, text=text, ignored=ignored)


LAYOUT = _Coco()
