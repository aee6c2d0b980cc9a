"""The data set gives back what was put in, from any process, and never trusts a damaged file."""

from __future__ import annotations

import json
import pickle
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocr_finetune_api.exit_codes import DataError, InputMissingError
from ocr_finetune_trainer.data.store import OPEN_SHARDS, ROWS_A_BATCH, DataSet, Shard, ViewRow, write_shard, write_view

INDEX = {
    "text": "", "width": 1, "height": 1, "boxes": -1, "group": "", "split": "", "path": "p", "place": "l:1",
    "converted": "", "cells": b"", "bytes": 1, "contrast": 9, "brightness": 9,
    "digest": 3,
}  # fmt: skip


def shard_of(folder, name, contents, *, points=None) -> Shard:
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {
            "image": content,
            "points": points,
            "texts": None if points is None else [f"t{i}" for i in range(len(points))],
            "ignored": None if points is None else [bool(i % 2) for i in range(len(points))],
        }
        for content in contents
    ]
    return write_shard(folder, name, pictures=rows, index=[INDEX] * len(rows), about={"rows": len(rows)})


def row(shard=0, number=0, **more) -> ViewRow:
    values = {"text": "a", "width": 7, "height": 5, "source": 0, "group": "g", "origin": "list:1", "digest": 1}
    return ViewRow(shard=shard, row=number, **{**values, **more})


def view(tmp_path, rows, shards, sources=("one",)) -> DataSet:
    write_view(tmp_path / "run/data/train", cache=tmp_path / ".cache/shards", shards=shards, sources=sources,
               rows=iter(rows))  # fmt: skip
    return DataSet.open(tmp_path / "run/data/train")


def test_samples_come_back_in_any_order(tmp_path):
    cache = tmp_path / ".cache/shards"
    many = 2 * ROWS_A_BATCH + 3
    first = shard_of(cache, "first", [f"a{i}".encode() for i in range(many)])
    second = shard_of(cache, "second", [b"b0", b"b1"])
    rows = [row(1, 1, text="字 ", source=1), row(0, many - 1, width=9), row(0, 0)]
    data = view(tmp_path, rows, [first, second], sources=("one", "two"))
    assert len(data) == 3
    assert [data[i].image for i in range(3)] == [b"b1", f"a{many - 1}".encode(), b"a0"]
    assert data[0].text == "字 "
    assert list(data.texts) == ["字 ", "a", "a"]
    assert data.texts[-1] == "a"
    assert data.frames.tolist() == [2, 1, 1]
    assert data.sizes.tolist() == [[7, 5], [9, 5], [7, 5]]
    assert data.sources.tolist() == [1, 0, 0]
    assert (data[0].id, data[0].source, data[0].group, data[0].origin, data[0].polygons) == (0, 1, "g", "list:1", None)
    with pytest.raises(IndexError):
        data[3]


def test_more_shards_than_may_be_open_are_read(tmp_path):
    """A set of large pages has thousands of shards, and many systems let a process open 1,024 files."""
    count = OPEN_SHARDS + 20
    cache = tmp_path / ".cache/shards"
    shard = shard_of(cache, "s0", [b"x"])
    for number in range(1, count):
        for suffix in (".arrow", ".index.arrow"):
            (cache / f"s{number}{suffix}").hardlink_to(cache / f"s0{suffix}")
    shards = [Shard(name=f"s{number}", size=shard.size) for number in range(count)]
    data = view(tmp_path, [row(number) for number in range(count)], shards)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(list(Path("/proc/self/fd").iterdir())) + OPEN_SHARDS + 4, hard))
    try:
        for _ in range(2):
            assert all(data.image(index) == b"x" for index in range(count))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_pages_keep_outlines_of_any_number_of_points(tmp_path):
    points = [[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [0.0] * 8]
    shard = shard_of(tmp_path / ".cache/shards", "s", [b"page"], points=points)
    sample = view(tmp_path, [row()], [shard])[0]
    assert [polygon.tolist() for polygon in sample.polygons] == [[[1, 2], [3, 4], [5, 6]], [[0, 0]] * 4]
    assert sample.polygons[0].dtype == np.float32
    assert (sample.texts, sample.ignored) == (("t0", "t1"), (False, True))


def test_it_travels_to_other_processes_and_places(tmp_path):
    shard = shard_of(tmp_path / ".cache/shards", "s", [b"x"])
    data = view(tmp_path, [row()], [shard])
    assert pickle.loads(pickle.dumps(data))[0].image == b"x"
    moved = tmp_path.with_name(tmp_path.name + "-moved")
    tmp_path.rename(moved)
    code = (
        "from pathlib import Path; from ocr_finetune_trainer.data.store import DataSet; "
        f"print(DataSet.open(Path({str(moved / 'run/data/train')!r}))[0].image)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "b'x'"


def test_the_hash_stands_for_pictures_labels_and_order(tmp_path):
    shard = shard_of(tmp_path / ".cache/shards", "s", [b"x", b"y"])
    rows = [row(0, 0), row(0, 1, digest=2)]
    hashes = {
        view(tmp_path, changed, [shard]).content_hash
        for changed in (rows, rows[::-1], [rows[0]], [row(0, 0, text="b"), rows[1]], [row(0, 0, digest=9), rows[1]])
    }
    assert len(hashes) == 5
    assert view(tmp_path, rows, [shard]).content_hash == view(tmp_path, rows, [shard]).content_hash


def test_damage_is_named(tmp_path):
    cache = tmp_path / ".cache/shards"
    shard = shard_of(cache, "s", [b"x" * 1000])
    data = view(tmp_path, [row()], [shard])
    path = cache / "s.arrow"
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with pytest.raises(InputMissingError, match=r"s\.arrow: has \d+ bytes instead of"):
        DataSet.open(data.path)
    path.unlink()
    with pytest.raises(InputMissingError, match=r"s\.arrow: is gone"):
        DataSet.open(data.path)
    path.write_bytes(whole)
    (data.path / "names.arrow").write_bytes(b"nonsense")
    with pytest.raises(DataError, match=r"names\.arrow: is damaged"):
        DataSet.open(data.path).origin(0)
    (data.path / "index.arrow").write_bytes(b"nonsense")
    with pytest.raises(DataError, match="damaged"):
        DataSet.open(data.path)
    (data.path / "dataset.json").write_text("{")
    with pytest.raises(DataError, match="can't be read"):
        DataSet.open(data.path)
    with pytest.raises(InputMissingError, match="no prepared data set") as caught:
        DataSet.open(tmp_path)
    assert "run prepare first" in caught.value.hint


def test_another_format_is_refused(tmp_path):
    shard = shard_of(tmp_path / ".cache/shards", "s", [b"x"])
    data = view(tmp_path, [row()], [shard])
    description = json.loads((data.path / "dataset.json").read_text())
    (data.path / "dataset.json").write_text(json.dumps({**description, "format": 99}))
    with pytest.raises(DataError, match="format 99"):
        DataSet.open(data.path)


def test_names_of_any_sample_are_found_in_any_order(tmp_path):
    shard = shard_of(tmp_path / ".cache/shards", "s", [b"x"])
    data = view(tmp_path, [row(group=f"page {i // 3}", origin=f"list:{i}") for i in range(9000)], [shard])
    for index in (8999, 0, 4095, 4096, 5000, 17):
        assert (data[index].group, data.origin(index)) == (f"page {index // 3}", f"list:{index}")


@settings(max_examples=25, deadline=None)
@given(
    texts=st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=0, max_size=8), min_size=1, max_size=9)
)
def test_any_label_comes_back(tmp_path_factory, texts):
    folder = tmp_path_factory.mktemp("labels")
    shard = shard_of(folder / ".cache/shards", "s", [b"x"] * len(texts))
    data = view(folder, [row(0, i, text=text) for i, text in enumerate(texts)], [shard])
    assert list(data.texts) == texts
