"""The lines that use an export, which run as they are: with `paddleocr`, as a PaddleX pipeline, with onnxruntime alone."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from ocr_finetune_api.model_table import Kind

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ocr_finetune_api.model_table import ModelInfo

__all__ = ["Snippet", "as_markdown", "snippets_for"]

_CLASS = {
    Kind.RECOGNITION: "TextRecognition",
    Kind.DETECTION: "TextDetection",
    Kind.TABLE: "TableStructureRecognition",
    Kind.ORIENTATION: "TextLineOrientationClassification",
}

_OPEN = """\
import json, math
import cv2, numpy as np, onnxruntime
session = onnxruntime.InferenceSession("{onnx}")
about = session.get_modelmeta().custom_metadata_map
norm = json.loads(about["normalization"])
picture = cv2.imread("{picture}")
"""

_LINES = """\
_, height, least = json.loads(about["shape"])
width = min(math.ceil(height * picture.shape[1] / picture.shape[0]), int(about["max_width"]))
x = np.zeros((1, 3, height, max(width, least)), np.float32)
x[0, :, :, :width] = ((cv2.resize(picture, (width, height)) / 255 - norm["mean"]) / norm["std"]).transpose(2, 0, 1)
best = session.run(None, {"x": x})[0][0].argmax(axis=1)
characters = ["", *about["character"].split("\\n"), " "]
print("".join(characters[c] for n, c in enumerate(best) if c and (n == 0 or c != best[n - 1])))
"""

_PAGES = """\
post = json.loads(about["postprocess"])
rows, columns = (max(round(side / 32), 1) * 32 for side in picture.shape[:2])
x = (cv2.resize(picture, (columns, rows)) / 255 - norm["mean"]) / norm["std"]
map_ = session.run(None, {"x": x.transpose(2, 0, 1)[None].astype(np.float32)})[0][0, 0]
contours, _ = cv2.findContours((map_ > post["thresh"]).astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
for contour in contours:
    center, (w, h), angle = cv2.minAreaRect(contour)
    inside = cv2.drawContours(np.zeros(map_.shape, np.uint8), [contour], 0, 1, -1)
    if min(w, h) >= 3 and cv2.mean(map_, inside)[0] >= post["box_thresh"]:
        grow = post["unclip_ratio"] * w * h / (w + h)
        box = cv2.boxPoints((center, (w + grow, h + grow), angle))
        print((box * (picture.shape[1] / columns, picture.shape[0] / rows)).round().tolist())
"""

_TABLES = """\
_, side, _ = json.loads(about["shape"])
rows, columns = (max(round(n * side / max(picture.shape[:2])), 1) for n in picture.shape[:2])
x = np.zeros((1, 3, side, side), np.float32)
small = (cv2.resize(picture, (columns, rows)) / 255 - norm["mean"]) / norm["std"]
x[0, :, :rows, :columns] = small.transpose(2, 0, 1)
boxes, structure = (output[0] for output in session.run(None, {"x": x}))
tokens = about["structure"].split("\\n")
tokens = ["sos", *(t for t in tokens if t not in ("<td>", "<td></td>")), "<td></td>", "eos"]
named = [tokens[c] for c in structure.argmax(axis=1)]
named = named[: named.index("eos", 1)] if "eos" in named[1:] else named
print("".join(["<table>", *(token for token in named if token not in ("sos", "eos")), "</table>"]))
"""

_TURNED = """\
_, height, width = json.loads(about["shape"])
x = (cv2.resize(picture, (width, height))[:, :, ::-1] / 255 - norm["mean"]) / norm["std"]
upright, turned = session.run(None, {"x": x.transpose(2, 0, 1)[None].astype(np.float32)})[0][0]
print("180_degree" if turned > upright else "0_degree")
"""

_ONNX = {Kind.RECOGNITION: _LINES, Kind.DETECTION: _PAGES, Kind.TABLE: _TABLES, Kind.ORIENTATION: _TURNED}


@dataclass(frozen=True, kw_only=True)
class Snippet:
    """One way to use an export.

    Attributes:
        title: What it is for.
        language: `python` or `shell`.
        code: The lines.
    """

    title: str
    language: str
    code: str

    def as_dict(self) -> dict[str, str]:
        """As JSON values."""
        return asdict(self)


def snippets_for(
    info: ModelInfo, *, paddle: str = "paddle", onnx: str = "", folder: str = ".", others: str = "official models"
) -> list[Snippet]:
    """All ways to use an export; each runs as it is, beside a picture of its name.

    Args:
        info: The model.
        paddle: Folder of Paddle's format; empty if there is none.
        onnx: The ONNX file; empty if there is none.
        folder: Where `pipeline.yml` lies.
        others: What the pipeline uses for its other half, in words.
    """
    name = _CLASS[info.kind]
    found: list[Snippet] = []
    picture = "page.png" if info.kind is Kind.DETECTION else "picture.png"
    if paddle:
        code = (
            f"from paddleocr import {name}\n"
            f'model = {name}(model_name="{info.serving_name}", model_dir="{paddle}")\n'
            f'print(model.predict("{picture}")[0].json)\n'
        )
        found.append(Snippet(title="With paddleocr 3.x", language="python", code=code))
        if info.kind in (Kind.DETECTION, Kind.RECOGNITION):
            code = f'cd "{folder}" && paddlex --pipeline pipeline.yml --input page.png\n'
            title = f"Whole pages with PaddleX (pipeline.yml: this model and {others})"
            found.append(Snippet(title=title, language="shell", code=code))
    if onnx:
        code = _OPEN.replace("{onnx}", onnx).replace("{picture}", picture) + _ONNX[info.kind]
        found.append(Snippet(title="With onnxruntime, without anything of Paddle", language="python", code=code))
    return found


def as_markdown(snippets: Iterable[Snippet]) -> str:
    """The snippets as a part of a Markdown page."""
    return "\n\n".join(f"{item.title}:\n\n```{item.language}\n{item.code}```" for item in snippets)
