"""Whatever stands in a label file, a reader gives records and problems with places, and never fails."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import good_data
from ocr_finetune_api.model_table import Kind
from ocr_finetune_api.spec import SourceFormat
from ocr_finetune_trainer.data import formats
from ocr_finetune_trainer.data.files import FolderFiles
from ocr_finetune_trainer.data.records import Problem, Record

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 500) | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                [
                    "points",
                    "point",
                    "transcription",
                    "difficult",
                    "images",
                    "annotations",
                    "id",
                    "image_id",
                    "file_name",
                    "segmentation",
                    "bbox",
                    "text",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
ROUGH = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def read(folder, layout: SourceFormat, kind: Kind, list_file: str) -> None:
    request = formats.Request(files=FolderFiles(folder), kind=kind, list_file=list_file)
    for item in formats.layout(layout).read(request):
        assert isinstance(item, Record | Problem)
        assert item.place
        if isinstance(item, Problem):
            assert item.what


@pytest.mark.parametrize("kind", [Kind.RECOGNITION, Kind.DETECTION])
@ROUGH
@given(label=st.text(max_size=30) | ANYTHING.map(json.dumps), path=st.sampled_from(["a.png", "", "[", '["a.png"]']))
def test_lists_of_lines_and_pages(tmp_path, kind, label, path):
    good_data.save(tmp_path / "a.png", good_data.picture(1))
    (tmp_path / "list.txt").write_bytes(f"{path}\t{label}\na.png {label}".encode("utf-8", "surrogatepass"))
    read(tmp_path, SourceFormat.PPOCR, kind, "list.txt")


@ROUGH
@given(values=ANYTHING)
def test_coco(tmp_path, values):
    (tmp_path / "labels.json").write_text(json.dumps({"images": values, "annotations": values}))
    read(tmp_path, SourceFormat.COCO, Kind.DETECTION, "labels.json")


@ROUGH
@given(content=st.text(max_size=80))
def test_tables(tmp_path, content):
    good_data.save(tmp_path / "a.png", good_data.picture(1))
    (tmp_path / "samples.csv").write_bytes(f"path,text,points\n{content}".encode("utf-8", "surrogatepass"))
    read(tmp_path, SourceFormat.CSV, Kind.DETECTION, "samples.csv")
    read(tmp_path, SourceFormat.CHAR_FOLDERS, Kind.RECOGNITION, "samples.csv")


@ROUGH
@given(content=st.text(max_size=80))
def test_icdar(tmp_path, content):
    (tmp_path / "gt_a.txt").write_bytes(content.encode("utf-8", "surrogatepass"))
    good_data.save(tmp_path / "a.png", good_data.picture(1))
    read(tmp_path, SourceFormat.ICDAR2015, Kind.DETECTION, "")
