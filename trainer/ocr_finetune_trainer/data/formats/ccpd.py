"""CCPD: number plates whose labels are the file names.

`025-95_113-154&383_386&473-386&473_177&454_154&383_363&402-0_0_22_27_27_33_16-37-15.jpg`: area, tilt, bounding box,
four corners from the bottom right clockwise, plate, brightness, blur. The plate is given by indices into three tables:
province, letter, and letters with digits; new-energy plates have eight characters. Pictures of one plate stay together.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ocr_finetune_trainer.data.formats import Request, folder_of
from ocr_finetune_trainer.data.formats.ppocr import split_of
from ocr_finetune_trainer.data.records import Box, Problem, Record

__all__ = ["LAYOUT", "parse", "plate_indices"]

_PROVINCES = "皖沪津渝冀晋蒙辽吉黑苏浙京闽赣鲁豫鄂湘粤桂琼川贵云藏陕甘青宁新警学O"
_LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZO"
_SERIALS = "ABCDEFGHJKLMNPQRSTUVWXYZ0123456789O"
_FIELDS = 7
_LOOKS = re.compile(r"[^/]*-[^/]*&[^/]*_[^/]*&[^/]*-.*\.(?:jpe?g|png)$", re.IGNORECASE)


class _Ccpd:
    """See the module."""

    def recognise(self, request: Request) -> str:
        """File names of the plates' pattern."""
        pictures = request.files.pictures()
        plates = [name for name in map(_file_name, pictures) if _LOOKS.match(name)]
        if plates and len(plates) * 2 >= len(pictures):
            return f"{len(plates)} file names such as {plates[0]}"
        return ""

    def read(self, request: Request) -> Iterator[Record | Problem]:
        """All plates."""
        for name in request.files.pictures():
            place = request.files.place(name)
            member = request.files.find(name)
            if member is None:
                continue
            label = parse(_file_name(name))
            if isinstance(label, str):
                yield Problem(kind="bad-name", place=place, what=label, hint="restore its name, or take it out")
                continue
            yield Record(member=member, place=place, boxes=(label,), group=label.text, split=split_of(folder_of(name)))


def _file_name(name: str) -> str:
    return name.rpartition("/")[2]


def parse(name: str) -> Box | str:
    """Reads a file name.

    Returns:
        The plate, its corners from the top left clockwise; or what is wrong with the name.
    """
    fields = name.rpartition(".")[0].split("-")
    if len(fields) != _FIELDS:
        return f"its name has {len(fields)} fields instead of {_FIELDS}"
    try:
        corners = [(float(x), float(y)) for x, y in [pair.split("&") for pair in fields[3].split("_")]]
    except ValueError:
        return f"its name has corners that are no numbers: {fields[3]!r}"
    if len(corners) != 4:
        return f"its name has {len(corners)} corners instead of 4"
    indices = fields[4].split("_")
    if len(indices) not in (7, 8):
        return f"its name has {len(indices)} plate characters instead of 7 or 8"
    try:
        province, letter, *serials = map(int, indices)
        text = _PROVINCES[province] + _LETTERS[letter] + "".join([_SERIALS[serial] for serial in serials])
    except (ValueError, IndexError):
        return f"its name has plate characters that no table holds: {fields[4]!r}"
    bottom_right, bottom_left, top_left, top_right = corners
    return Box(points=(top_left, top_right, bottom_right, bottom_left), text=text)


def plate_indices(text: str) -> str:
    """A plate as it stands in a file name; the opposite of `parse`.

    Raises:
        ValueError: It is no plate that the tables hold.
    """
    tables = (_PROVINCES, _LETTERS, *[_SERIALS] * max(len(text) - 2, 0))
    if len(text) not in (7, 8):
        raise ValueError(f"{text!r} has {len(text)} characters; a plate has 7 or 8")
    return "_".join(str(table.index(character)) for table, character in zip(tables, text, strict=True))


LAYOUT = _Ccpd()
