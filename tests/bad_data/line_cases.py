"""Broken pictures, and broken lists of lines."""

from __future__ import annotations

from case import case, change_line

import good_data as good

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
