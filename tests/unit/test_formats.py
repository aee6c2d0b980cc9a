"""Every layout is recognised by itself, read completely, and comes back from every layout that can hold it."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

import good_data
from ocr_finetune_api.model_table import Kind
from ocr_finetune_api.spec import Columns, Source, SourceFormat
from ocr_finetune_trainer.cli import app
from ocr_finetune_trainer.data import formats
from ocr_finetune_trainer.data.conversion import convert
from ocr_finetune_trainer.data.files import open_files
from ocr_finetune_trainer.data.formats import ccpd
from ocr_finetune_trainer.data.records import Problem, Record
from ocr_finetune_trainer.data.sources import Opener
from ocr_finetune_trainer.data.writers import WRITERS

LAYOUTS = {
    "char-folders": (good_data.char_folders, 12),
    "ppocr": (good_data.lines, 12),
    "ppocrlabel": (good_data.ppocrlabel, 6),
    "paddlex": (good_data.paddlex_lines, 12),
    "paddlex: pages": (good_data.paddlex_pages, 6),
    "icdar2015": (good_data.icdar, 6),
    "coco": (good_data.coco, 6),
    "ccpd": (good_data.ccpd, 6),
    "csv": (good_data.table, 12),
    "lmdb": (good_data.database, 12),
}


def read(path, *, kind=Kind.RECOGNITION, **more) -> tuple[str, list[Record], list[Problem]]:
    files, named = open_files(path)
    request = formats.Request(files=files, kind=kind, **{"list_file": named, **more})
    recognised = formats.recognise(request)
    items = list(formats.layout(recognised.format).read(request))
    problems = [item for item in items if isinstance(item, Problem)]
    return recognised.format.value, [item for item in items if isinstance(item, Record)], problems


def content(records: list[Record]) -> list[tuple]:
    return sorted(
        (r.text, () if r.boxes is None else tuple((b.text, b.points, b.ignored) for b in r.boxes)) for r in records
    )


@pytest.mark.parametrize("name", LAYOUTS)
def test_each_layout_is_recognised_and_read(name, tmp_path):
    make, count = LAYOUTS[name]
    found, records, problems = read(make(tmp_path / "data"))
    assert (found, len(records), problems) == (name.partition(":")[0], count, [])


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("pack", [good_data.zipped, good_data.tarred])
def test_archives_are_read_in_place(name, pack, tmp_path):
    if name == "lmdb":
        pytest.skip("a database is one file already, and needs to be mapped")
    make, count = LAYOUTS[name]
    found, records, problems = read(pack(make(tmp_path / "data"), tmp_path / f"packed.{pack.__name__[:3]}"))
    assert (found, len(records), problems) == (name.partition(":")[0], count, [])


@pytest.mark.parametrize("target", [format_.value for format_ in WRITERS])
@pytest.mark.parametrize("name", LAYOUTS)
def test_round_trip(name, target, tmp_path):
    make, count = LAYOUTS[name]
    source = Source(uri=str(make(tmp_path / "data")))
    _, before, _ = read(tmp_path / "data")
    pages = before[0].boxes is not None
    holds = {"lmdb": not pages, "coco": pages, "char-folders": name == "char-folders", "ccpd": name == "ccpd"}
    if not holds.get(target, True):
        done = CliRunner().invoke(app, ["convert", source.uri, str(tmp_path / "out"), "--to", target])
        assert done.exit_code != 0
        assert not (tmp_path / "out").exists()
        return
    result = convert(source, tmp_path / "out", to=SourceFormat(target), opener=Opener())
    assert (result.written, result.problems) == (count, [])
    found, after, problems = read(tmp_path / "out", kind=Kind.DETECTION if pages else Kind.RECOGNITION)
    assert problems == []
    assert content(after) == content(before)
    assert found == target or (found, target) == ("ppocr", "ppocrlabel")
    files, _ = open_files(tmp_path / "out")
    original, _ = open_files(tmp_path / "data")
    assert {files.read(r.member) for r in after} == {original.read(r.member) for r in before}


def test_equal_names_overwrite_nothing(tmp_path):
    for part in ("a", "b"):
        good_data.save(tmp_path / "data" / part / "same.png", good_data.picture(ord(part)))
    (tmp_path / "data" / "train.txt").write_text("a/same.png\tone\nb/same.png\ttwo\n")
    result = convert(Source(uri=str(tmp_path / "data")), tmp_path / "out", to=SourceFormat.PPOCR, opener=Opener())
    assert result.written == 2
    assert len(list((tmp_path / "out" / "images").iterdir())) == 2


def test_a_target_that_holds_something_is_left_alone(tmp_path):
    good_data.lines(tmp_path / "data")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious").write_text("x")
    done = CliRunner().invoke(app, ["convert", str(tmp_path / "data"), str(tmp_path / "out"), "--to", "csv"])
    assert done.exit_code == 1
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["precious"]
    assert not list(tmp_path.glob(".out*"))


# PaddleOCR's lists


def test_both_spellings_of_points_and_all_kinds_of_ignored(tmp_path):
    boxes = [
        {"transcription": "a", "points": good_data.SQUARE, "difficult": False},
        {"transcription": "b", "point": good_data.SQUARE},
        {"transcription": "###", "points": good_data.SQUARE},
        {"transcription": "*", "points": good_data.SQUARE},
        {"transcription": "c", "points": good_data.SQUARE, "difficult": True},
    ]
    good_data.pages(tmp_path, count=1)
    (tmp_path / "label.txt").write_text(f"pages/0.png\t{json.dumps(boxes)}\n")
    _, records, problems = read(tmp_path, kind=Kind.DETECTION)
    assert problems == []
    assert [(box.text, box.ignored) for box in records[0].boxes] == [
        ("a", False), ("b", False), ("###", True), ("*", True), ("c", True),
    ]  # fmt: skip


def test_a_line_may_name_several_pictures_of_one_text(tmp_path):
    good_data.lines(tmp_path, count=3)
    (tmp_path / "train.txt").write_text('["images/0.png", "images/1.png"]\tsame\nimages/2.png\tother\n')
    _, records, _ = read(tmp_path)
    assert [(r.member.name, r.text) for r in records] == [
        ("images/0.png", "same"), ("images/1.png", "same"), ("images/2.png", "other"),
    ]  # fmt: skip
    assert records[0].group == records[1].group != records[2].group


def test_names_of_lists_say_the_split(tmp_path):
    for name in ("rec_gt_train.txt", "rec_gt_test.txt", "val_list.txt"):
        good_data.lines(tmp_path, count=2, name=name)
    _, records, _ = read(tmp_path)
    assert sorted({(r.place.split(":")[0], r.split) for r in records}) == [
        ("rec_gt_test.txt", "test"), ("rec_gt_train.txt", "train"), ("val_list.txt", "validation"),
    ]  # fmt: skip


@pytest.mark.parametrize("make", [good_data.paddlex_lines, good_data.paddlex_pages])
def test_the_lists_of_paddlex_say_the_split(make, tmp_path):
    pages = make is good_data.paddlex_pages
    _, records, _ = read(make(tmp_path), kind=Kind.DETECTION if pages else Kind.RECOGNITION)
    splits = [r.split for r in records]
    assert (splits.count("train"), splits.count("validation")) == ((4, 2) if pages else (9, 3))


def test_crops_of_one_page_belong_together(tmp_path):
    for name in ("page_1_crop_0.png", "page_1_crop_1.png", "page_2_crop_0.png"):
        good_data.save(tmp_path / name, good_data.picture(hash(name) % 1000))
    (tmp_path / "list.txt").write_text("".join(f"{p.name}\ta\n" for p in sorted(tmp_path.glob("*.png"))))
    _, records, _ = read(tmp_path)
    assert [r.group for r in records] == ["page_1", "page_1", "page_2"]


# paths from elsewhere


@pytest.mark.parametrize(
    ("written", "prefix"),
    [
        ("images/{n}.png", None),
        ("./images/{n}.png", None),
        ("train_data/images/{n}.png", None),
        ("/home/someone/data/images/{n}.png", None),
        ("C:\\Users\\x\\images\\{n}.png", None),
        ("/mnt/other/{n}.png", ("/mnt/other", "images")),
        ("renamed/{n}.png", None),
    ],
)
def test_paths_of_other_machines_are_found(tmp_path, written, prefix):
    good_data.lines(tmp_path, count=3)
    (tmp_path / "train.txt").write_text("".join(f"{written.format(n=n)}\tw{n}\n" for n in range(3)))
    _, records, problems = read(tmp_path, prefix=prefix)
    assert problems == []
    assert [r.member.name for r in records] == [f"images/{n}.png" for n in range(3)]


def test_pictures_may_lie_beside_the_folder_of_the_list(tmp_path):
    good_data.lines(tmp_path / "set", count=2)
    (tmp_path / "set" / "train_data").mkdir()
    (tmp_path / "set" / "train.txt").rename(tmp_path / "set" / "train_data" / "train_list.txt")
    _, records, problems = read(tmp_path / "set" / "train_data" / "train_list.txt")
    assert (len(records), problems) == (2, [])


def test_names_with_spaces_quotes_and_chinese(tmp_path):
    name = '图片 "1" it\'s & co.png'
    good_data.save(tmp_path / "图 片" / "x.png", good_data.picture(1)).rename(tmp_path / "图 片" / name)
    (tmp_path / "train.txt").write_text(f"图 片/{name}\t紙\n", encoding="utf-8")
    _, records, problems = read(tmp_path)
    assert (len(records), problems) == (1, [])


# others


def test_ppocrlabel_takes_confirmed_pages_only(tmp_path):
    good_data.ppocrlabel(tmp_path / "data")
    states = (tmp_path / "data/fileState.txt").read_text().splitlines()
    (tmp_path / "data/fileState.txt").write_text("\n".join([states[0], states[1].replace("\t1", "\t0")]))
    _, records, problems = read(tmp_path / "data", kind=Kind.DETECTION)
    assert [r.member.name for r in records] == ["0.png"]
    assert "5 pages that nobody has confirmed" in str(problems[0])
    _, records, problems = read(tmp_path / "data", kind=Kind.DETECTION, include_unconfirmed=True)
    assert (len(records), problems) == (6, [])


def test_ccpd_names_are_plates():
    name = "025-95_113-154&383_386&473-386&473_177&454_154&383_363&402-0_0_22_27_27_33_16-37-15.jpg"
    plate = ccpd.parse(name)
    assert plate.text == "皖AY339S"
    assert plate.points == ((154, 383), (363, 402), (386, 473), (177, 454))
    green = ccpd.parse(name.replace("0_0_22_27_27_33_16", "0_0_3_24_24_28_30_33"))
    assert green.text == "皖AD004690"[:2] + "D00469"
    assert ccpd.plate_indices(plate.text) == "0_0_22_27_27_33_16"


def test_icdar_words_may_hold_commas_and_quotes(tmp_path):
    good_data.save(tmp_path / "word_1.png", good_data.picture(1))
    (tmp_path / "gt.txt").write_text('word_1.png, "a, "quoted" word"\n', encoding="utf-8-sig")
    _, records, problems = read(tmp_path)
    assert (records[0].text, problems) == ('a, "quoted" word', [])


def test_coco_text_of_2017(tmp_path):
    good_data.save(tmp_path / "a.png", good_data.picture(1, height=80, width=80))
    values = {
        "imgs": {"5": {"id": 5, "file_name": "a.png", "set": "val"}},
        "anns": {
            "1": {"id": 1, "image_id": 5, "mask": [1, 1, 9, 1, 9, 9], "utf8_string": "x", "legibility": "legible"},
            "2": {"id": 2, "image_id": 5, "bbox": [2, 3, 10, 20], "legibility": "illegible"},
        },
    }
    (tmp_path / "cocotext.json").write_text(json.dumps(values))
    _, records, problems = read(tmp_path, kind=Kind.DETECTION)
    assert problems == []
    assert records[0].split == "validation"
    assert [(box.points, box.ignored) for box in records[0].boxes] == [
        (((1, 1), (9, 1), (9, 9)), False), (((2, 3), (12, 3), (12, 23), (2, 23)), True),
    ]  # fmt: skip


def test_a_csv_of_boxes_makes_pages(tmp_path):
    good_data.save(tmp_path / "a.png", good_data.picture(1, height=80, width=80))
    (tmp_path / "labels.tsv").write_text("bild\twort\tecken\na.png\tx\t1,2,11,22\na.png\ty\t[[1,1],[9,1],[9,9]]\n")
    columns = Columns(path="bild", text="wort", points="ecken")
    _, records, problems = read(tmp_path, kind=Kind.DETECTION, columns=columns)
    assert problems == []
    assert [(box.text, len(box.points)) for box in records[0].boxes] == [("x", 4), ("y", 3)]


def test_every_layout_of_the_manifest_has_a_reader():
    for name in SourceFormat:
        if name is not SourceFormat.AUTO:
            formats.layout(name)
