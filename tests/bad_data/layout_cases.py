"""Broken pages, tables of characters, and other layouts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from case import DETECTION, case, change_line

import good_data as good

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
