"""Broken data sets, each made by code: what is done to a good one, and what has to be said about it."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import good_data as good

RECOGNITION = "MobileNetV3_small_ctc"
DETECTION = "DB_mv3"


@dataclass(frozen=True, kw_only=True)
class Case:
    """A broken data set.

    Attributes:
        name: What is broken.
        make: Writes it into a folder; may give the address to use instead of the folder.
        says: What must be said: for each problem, texts that one line has to hold.
        model: Which model it is for.
        code: The exit code with the default of `maxRejected`.
        tolerated: The exit code when everything unusable is allowed.
        source: Further fields of the source.
        spec: Further fields of the data set.
        dictionary: `model.dictionary`.
    """

    name: str
    make: Callable[[Path], Any]
    says: list[tuple[str, ...]]
    model: str = RECOGNITION
    code: int = 65
    tolerated: int = 0
    source: dict[str, Any] = field(default_factory=dict)
    spec: dict[str, Any] = field(default_factory=dict)
    model_spec: dict[str, Any] = field(default_factory=dict)


CASES: list[Case] = []


def case(*says: tuple[str, ...], **more: Any) -> Callable[[Callable[[Path], Any]], Callable[[Path], Any]]:
    def add(make: Callable[[Path], Any]) -> Callable[[Path], Any]:
        CASES.append(Case(name=make.__name__, make=make, says=list(says), **more))
        return make

    return add


def change_line(path: Path, number: int, text: str) -> None:
    rows = path.read_text(encoding="utf-8").split("\n")
    rows[number - 1] = text
    path.write_text("\n".join(rows), encoding="utf-8")


def append(path: Path, text: str) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(text)


# pictures


@case(("train.txt:3", "images/2.png", "no picture"))
def missing_picture(folder):
    (good.lines(folder) / "images" / "2.png").unlink()


@case(("train.txt:3", "images/2.pgn", "did you mean 'images/2.png'"))
def misspelt_picture(folder):
    change_line(good.lines(folder) / "train.txt", 3, "images/2.pgn\tcharlie")


@case(("train.txt:1", "empty"), ("train.txt:2", "no picture"), ("train.txt:3", "cut off"))
def three_kinds_at_once(folder):
    good.lines(folder)
    (folder / "images/0.png").write_bytes(b"")
    (folder / "images/1.png").write_bytes(b"hello")
    content = (folder / "images/2.png").read_bytes()
    (folder / "images/2.png").write_bytes(content[: len(content) // 2])


@case(("train.txt:1", "empty"))
def empty_picture(folder):
    (good.lines(folder) / "images/0.png").write_bytes(b"")


@case(("train.txt:1", "no picture"))
def text_as_picture(folder):
    (good.lines(folder) / "images/0.png").write_text("not a picture")


@case(("train.txt:1", "HTML page"))
def html_as_picture(folder):
    (good.lines(folder) / "images/0.png").write_text("<!DOCTYPE html><html>404</html>")


@case(("train.txt:1", "Git LFS"))
def lfs_pointer(folder):
    (good.lines(folder) / "images/0.png").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:12\n")


@case(("train.txt:1", "PDF"))
def pdf_as_picture(folder):
    (good.lines(folder) / "images/0.png").write_bytes(b"%PDF-1.7\n")


@case(("train.txt:1", "SVG"))
def svg_as_picture(folder):
    (good.lines(folder) / "images/0.png").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")


@case(("train.txt:1", "cut off"))
def truncated_jpeg(folder):
    good.lines(folder)
    content = good.jpeg(good.picture(1, height=200, width=200))
    (folder / "images/0.png").write_bytes(content[: len(content) // 2])


@case(("train.txt:1", "images/0.png"))
def damaged_png(folder):
    path = good.lines(folder) / "images/0.png"
    content = bytearray(path.read_bytes())
    content[60:90] = b"\xff" * 30
    path.write_bytes(bytes(content))


@case(("train.txt:1", "million"))
def bomb(folder):
    (good.lines(folder) / "images/0.png").write_bytes(good.png_header(60000, 60000))


@case(("train.txt:1", "images/0.png"))
def zero_size_header(folder):
    (good.lines(folder) / "images/0.png").write_bytes(good.png_header(0, 10))


@case(("train.txt:1", "images/0.png"))
def folder_as_picture(folder):
    (good.lines(folder) / "images/0.png").unlink()
    (folder / "images/0.png").mkdir()


@case(("train.txt:1", "images/0.png"))
def link_to_nothing(folder):
    path = good.lines(folder) / "images/0.png"
    path.unlink()
    path.symlink_to(folder / "gone.png")


@case(("train.txt:2", "2 others have its name", "pathPrefix"))
def ambiguous_name(folder):
    good.lines(folder)
    good.save(folder / "a" / "same.png", good.picture(1))
    good.save(folder / "b" / "same.png", good.picture(2))
    change_line(folder / "train.txt", 2, "/mnt/elsewhere/same.png\tbravo")


# lists of lines


@case(("train.txt:2", "no tab"))
def no_tab(folder):
    change_line(good.lines(folder) / "train.txt", 2, "images/1 bravo")


@case(("train.txt:2", "empty"))
def empty_label(folder):
    change_line(good.lines(folder) / "train.txt", 2, "images/1.png\t")


@case(("train.txt:2", "empty"))
def label_of_spaces(folder):
    change_line(good.lines(folder) / "train.txt", 2, "images/1.png\t   ")


@case(("train.txt:2", "names no picture"))
def label_without_path(folder):
    change_line(good.lines(folder) / "train.txt", 2, "\tbravo")


@case(("train.txt:2", "U+200B"))
def zero_width_space(folder):
    change_line(good.lines(folder) / "train.txt", 2, "images/1.png\tbra\u200bvo")


@case(("train.txt:2", "U+0007"))
def control_character(folder):
    change_line(good.lines(folder) / "train.txt", 2, "images/1.png\tbra\x07vo")


@case(("train.txt:2", "U+202E"))
def right_to_left_override(folder):
    change_line(good.lines(folder) / "train.txt", 2, "images/1.png\tbra\u202evo")


@case(("train.txt:2", "U+FEFF"))
def byte_order_mark_inside(folder):
    change_line(good.lines(folder) / "train.txt", 2, "images/1.png\t\ufeffbravo")


@case(("train.txt", "is empty"), tolerated=65, source={"format": "ppocr", "listFile": "train.txt"})
def empty_list(folder):
    (good.lines(folder) / "train.txt").write_text("")


@case(("train.txt", "can't be read"), tolerated=65, source={"format": "ppocr", "listFile": "train.txt"})
def binary_list(folder):
    (good.lines(folder) / "train.txt").write_bytes(b"images/0.png\t\xff\xfe\x80\x81\xff\n" * 3)


@case(("labels.txt", "no such list", "train.txt"), code=66, tolerated=66, source={"listFile": "labels.txt"})
def missing_list(folder):
    good.lines(folder)


@case(("layout was not recognised", "0 files"), tolerated=65)
def empty_folder(folder):
    folder.mkdir(exist_ok=True)


@case(("layout was not recognised", "notes.md"), tolerated=65)
def unknown_layout(folder):
    (folder / "notes.md").write_text("hello")


@case(("does not exist",), code=66, tolerated=66)
def missing_folder(folder):
    return str(folder / "nowhere")


@case(("does not exist", "holds train.txt"), code=66, tolerated=66)
def missing_folder_beside_others(folder):
    (folder / "train.txt").write_text("")
    return str(folder / "trian")


@case(("no label list",), code=66, tolerated=66, source={"format": "ppocr"})
def pictures_without_list(folder):
    good.save(folder / "a.png", good.picture(1))


@case(("no usable sample is left for validation",), tolerated=65)
def one_sample(folder):
    good.lines(folder, count=1)


@case(("no usable sample is left for training",), tolerated=65)
def nothing_usable(folder):
    good.lines(folder, count=3)
    for number in range(3):
        (folder / f"images/{number}.png").write_bytes(b"x")


@case(("not in the dictionary",), model_spec={"dictionary": {"mode": "replace", "uri": "DICTIONARY"}})
def characters_outside_the_dictionary(folder):
    good.lines(folder)
    (folder / "dictionary.txt").write_text("".join(f"{c}\n" for c in "abcdefghijklmnopqrstuvwxy"), encoding="utf-8")
    change_line(folder / "train.txt", 2, "images/1.png\tzzz")


@case(("over maxTextLength 6",), model_spec={"maxTextLength": 6})
def label_too_long(folder):
    good.lines(folder)


@case(("frames",))
def unalignable_label(folder):
    good.lines(folder)
    change_line(folder / "train.txt", 2, f"images/1.png\t{'x' * 300}")


# pages


@case(("label.txt:2", "no JSON"), model=DETECTION)
def broken_json_of_a_page(folder):
    change_line(good.pages(folder) / "label.txt", 2, 'pages/1.png\t[{"transcription": "a", ')


@case(("label.txt:2", "box 1", "corners"), model=DETECTION)
def box_without_points(folder):
    change_line(good.pages(folder) / "label.txt", 2, 'pages/1.png\t[{"transcription": "a"}]')


@case(("label.txt:2", "2 corners"), model=DETECTION)
def box_of_two_points(folder):
    label = json.dumps([good.box(points=[[1, 1], [2, 2]])])
    change_line(good.pages(folder) / "label.txt", 2, f"pages/1.png\t{label}")


@case(("label.txt:2", "can be read"), model=DETECTION)
def box_of_words(folder):
    label = json.dumps([good.box(points=["left", "top", "right"])])
    change_line(good.pages(folder) / "label.txt", 2, f"pages/1.png\t{label}")


@case(("label.txt:2", "box 1", "outside"), model=DETECTION, code=0)
def box_outside_the_picture(folder):
    label = json.dumps([good.box(points=[[900, 900], [950, 900], [950, 950], [900, 950]])])
    change_line(good.pages(folder) / "label.txt", 2, f"pages/1.png\t{label}")


@case(("label.txt:2", "box 1", "no area"), model=DETECTION, code=0)
def box_without_area(folder):
    label = json.dumps([good.box(points=[[5, 5], [50, 5], [50, 5], [5, 5]])])
    change_line(good.pages(folder) / "label.txt", 2, f"pages/1.png\t{label}")


@case(("label.txt:2", "box 1", "three corners"), model=DETECTION, code=0)
def box_of_three_points(folder):
    label = json.dumps([good.box(points=[[5, 5], [50, 5], [50, 20]]), good.box()])
    change_line(good.pages(folder) / "label.txt", 2, f"pages/1.png\t{label}")


@case(("label.txt:2", "box 2", "crosses itself"), model=DETECTION, code=0)
def box_that_crosses_itself(folder):
    label = json.dumps([good.box(), good.box(points=[[5, 5], [50, 5], [5, 20], [50, 20]])])
    change_line(good.pages(folder) / "label.txt", 2, f"pages/1.png\t{label}")


@case(("label.txt:2", "box 1", "30 pixels beyond the picture"), model=DETECTION, code=0)
def box_partly_outside(folder):
    label = json.dumps([good.box(points=[[-30, 5], [50, 5], [50, 20], [-30, 20]])])
    change_line(good.pages(folder) / "label.txt", 2, f"pages/1.png\t{label}")


@case(("label.txt:2", "finite"), model=DETECTION)
def box_of_not_a_number(folder):
    label = json.dumps([good.box(points=[[float("nan"), 5], [50, 5], [50, 9], [5, 9]])])
    change_line(good.pages(folder) / "label.txt", 2, f"pages/1.png\t{label}")


@case(("label.txt:2", "text instead of boxes"), model=DETECTION)
def line_among_pages(folder):
    change_line(good.pages(folder) / "label.txt", 2, "pages/1.png\tjust a text")


@case(("learns to find text",), model=DETECTION, tolerated=65)
def characters_for_a_detector(folder):
    good.char_folders(folder)


@case(("label.txt:1", "box 1", "no area"), code=0)
def crop_without_area(folder):
    good.pages(folder)
    label = json.dumps([good.box(points=[[5, 5], [5, 5], [5, 5], [5, 5]])])
    change_line(folder / "label.txt", 1, f"pages/0.png\t{label}")


# single characters


@case(("samples.csv:1", "path"), tolerated=65)
def wrong_csv_header(folder):
    good.char_folders(folder)
    rows = good.read_csv(folder / "samples.csv")
    good.write_csv(folder / "samples.csv", [["where", "what", "which"], *rows[1:]])


@case(("samples.csv:1", "'datei'"), tolerated=65, source={"columns": {"path": "datei"}})
def named_column_missing(folder):
    good.char_folders(folder)


@case(("samples.csv:3", "id '99'"))
def unknown_id(folder):
    good.char_folders(folder)
    rows = good.read_csv(folder / "samples.csv")
    rows[2][2] = "99"
    good.write_csv(folder / "samples.csv", rows)


@case(("id2char.json:1", "no JSON"), tolerated=65)
def broken_id_table(folder):
    (good.char_folders(folder) / "id2char.json").write_text('{"1": "a", ')


@case(("id2char.json", "list instead of an object"), tolerated=65)
def id_table_is_a_list(folder):
    (good.char_folders(folder) / "id2char.json").write_text('["a", "b"]')


@case(("samples.csv:2", "says 'b'", "'a'"))
def contradicting_label(folder):
    good.char_folders(folder)
    rows = good.read_csv(folder / "samples.csv")
    rows[1][1] = "b"
    good.write_csv(folder / "samples.csv", rows)


@case(("samples.csv:2", "1 cells"))
def short_row(folder):
    good.char_folders(folder)
    rows = good.read_csv(folder / "samples.csv")
    rows[1] = rows[1][:1]
    good.write_csv(folder / "samples.csv", rows)


@case(("class 4", "no picture"), code=0)
def empty_class(folder):
    good.char_folders(folder)
    (folder / "id2char.json").write_text(json.dumps({"1": "a", "2": "b", "3": "c", "4": "d"}))


@case(("samples.csv", "is empty"), tolerated=65)
def empty_csv(folder):
    (good.char_folders(folder) / "samples.csv").write_text("")


@case(("no character can be read",), source={"format": "char-folders"})
def name_without_character(folder):
    good.char_folders(folder)
    (folder / "samples.csv").unlink()
    (folder / "id2char.json").unlink()
    (folder / "data/1/a_0.png").rename(folder / "data/1/plain.png")


# other layouts


@case(("gt_img_1.txt:1", "no numbers"), model=DETECTION)
def icdar_words_for_numbers(folder):
    (good.icdar(folder) / "gt_img_1.txt").write_text("a,b,c,d,e,f,g,h,text\n")


@case(("gt_img_1.txt:1", "4 coordinates"), model=DETECTION)
def icdar_four_coordinates(folder):
    (good.icdar(folder) / "gt_img_1.txt").write_text("1,2,3,4\n")


@case(("gt_img_1.txt", "no picture named 'img_1'"), model=DETECTION)
def icdar_missing_picture(folder):
    (good.icdar(folder) / "img_1.png").unlink()


@case(("labels.json:1", "no JSON"), model=DETECTION, tolerated=65, source={"format": "coco"})
def coco_broken(folder):
    (good.coco(folder) / "labels.json").write_text('{"images": [')


def _coco(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = good.coco(folder) / "labels.json"
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


@case(("77", "not listed"), model=DETECTION)
def coco_unknown_picture(folder):
    _coco(folder, lambda values: values["annotations"].append({"id": 9, "image_id": 77, "bbox": [1, 1, 2, 2]}))


@case(("image 0", "annotation 0", "neither points nor a bbox"), model=DETECTION)
def coco_without_points(folder):
    _coco(folder, lambda values: values["annotations"][0].pop("segmentation"))


@case(("image 2", "no picture 'images/nope.png'"), model=DETECTION)
def coco_missing_picture(folder):
    _coco(folder, lambda values: values["images"][2].update(file_name="images/nope.png"))


@case(("no JSON file with images",), model=DETECTION, tolerated=65, source={"format": "coco"})
def coco_of_something_else(folder):
    (folder / "labels.json").write_text('{"hello": 1}')


@case(("short.png", "1 fields"), model=DETECTION)
def ccpd_short_name(folder):
    good.save(good.ccpd(folder) / "short.png", good.picture(1))


@case(("plate characters that no table holds",), model=DETECTION)
def ccpd_unknown_character(folder):
    good.save(good.ccpd(folder) / good.CCPD_NAME.format(99), good.picture(1))


@case(("Label.txt", "nobody has confirmed"), model=DETECTION, code=0)
def ppocrlabel_unconfirmed(folder):
    good.ppocrlabel(folder)
    states = (folder / "fileState.txt").read_text().splitlines()
    (folder / "fileState.txt").write_text("\n".join(states[:-1]) + "\n")


@case(("Label.txt:1", "no JSON"), model=DETECTION)
def ppocrlabel_broken(folder):
    good.ppocrlabel(folder)
    change_line(folder / "Label.txt", 1, "x/0.png\t[{broken")


@case(("labels.csv:1", "no column for the text"), tolerated=65, source={"format": "csv"})
def csv_without_text(folder):
    good.table(folder)
    rows = good.read_csv(folder / "labels.csv")
    good.write_csv(folder / "labels.csv", [["file", "colour"], *rows[1:]])


@case(("labels.csv:3", "no picture '1.jpg'"))
def csv_missing_picture(folder):
    good.table(folder)
    rows = good.read_csv(folder / "labels.csv")
    rows[2][0] = "1.jpg"
    good.write_csv(folder / "labels.csv", rows)


@case(("labels.csv:2", "points can't be read"), model=DETECTION, source={"format": "csv"})
def csv_bad_points(folder):
    good.table(folder)
    rows = [["file", "words", "points"]] + [
        [path, text, "[[1,1],[20,1],[20,9],[1,9]]"] for path, text in good.read_csv(folder / "labels.csv")[1:]
    ]
    rows[1][2] = "1,1,?"
    good.write_csv(folder / "labels.csv", rows)


@case(("num-samples",), tolerated=65)
def lmdb_without_count(folder):
    import lmdb

    environment = lmdb.open(str(good.database(folder)), map_size=1 << 24)
    with environment.begin(write=True) as transaction:
        transaction.delete(b"num-samples")
    environment.close()


@case(("label-000000003", "image-000000003"))
def lmdb_missing_picture(folder):
    import lmdb

    environment = lmdb.open(str(good.database(folder)), map_size=1 << 24)
    with environment.begin(write=True) as transaction:
        transaction.delete(b"image-000000003")
    environment.close()


@case(("label-000000002", "UTF-8"))
def lmdb_bad_label(folder):
    import lmdb

    environment = lmdb.open(str(good.database(folder)), map_size=1 << 24)
    with environment.begin(write=True) as transaction:
        transaction.put(b"label-000000002", b"\xff\xfe")
    environment.close()


@case(("data.mdb", "no LMDB"), tolerated=65)
def lmdb_broken(folder):
    (folder / "data.mdb").write_bytes(b"nothing" * 1000)


# archives and addresses


@case(("data.zip", "not a zip"), tolerated=65)
def broken_zip(folder):
    (folder / "data.zip").write_bytes(b"PK\x03\x04 broken")
    return str(folder / "data.zip")


@case(("data.zip!train.txt:2", "no picture"))
def zip_with_missing_picture(folder):
    inside = good.lines(folder / "inside")
    (inside / "images/1.png").unlink()
    return str(good.zipped(inside, folder / "data.zip"))


@case(("data.tar!train.txt:1", "empty"))
def tar_with_empty_picture(folder):
    inside = good.lines(folder / "inside")
    (inside / "images/0.png").write_bytes(b"")
    return str(good.tarred(inside, folder / "data.tar"))


@case(("data.tar", "not a tar archive"), tolerated=65)
def tar_cut_off(folder):
    inside = good.lines(folder / "inside")
    path = good.tarred(inside, folder / "data.tar")
    os.truncate(path, 5000)
    return str(path)


@case(("data.tar.gz", "cut off"), tolerated=65)
def compressed_tar_cut_off(folder):
    inside = good.lines(folder / "inside")
    path = good.tarred(inside, folder / "data.tar.gz")
    os.truncate(path, path.stat().st_size // 2)
    return str(path)


@case(("labels.gz", "no tar archive"), tolerated=65)
def compressed_something_else(folder):
    (folder / "labels.gz").write_bytes(gzip.compress(b"images/0.png\tbravo\n"))
    return str(folder / "labels.gz")


@case(("claims are mounted on a cluster only",), code=66, tolerated=66)
def claim_without_cluster(folder):
    return "pvc://plates/train"


@case(("weird",), code=65, tolerated=65)
def unknown_scheme(folder):
    return "weird://server/data"


@case(("can't be reached",), code=66, tolerated=66)
def unreachable_server(folder):
    return "http://127.0.0.1:9/data.zip"


# sets of their own


@case(("nowhere", "does not exist"), code=66, tolerated=66, spec={"validation": {"uri": "FOLDER/nowhere"}})
def missing_validation(folder):
    good.lines(folder)


@case(("train.txt:1", "counts as wrong"), spec={"test": {"uri": "FOLDER/test"}}, code=0)
def test_set_with_unknown_character(folder):
    good.lines(folder / "data")
    good.lines(folder / "test", count=2)
    change_line(folder / "test/train.txt", 1, "images/0.png\t漢字")
    return str(folder / "data")
