"""Broken archives and addresses, and broken sets beside the training set."""

from __future__ import annotations

import gzip
import os

from case import case, change_line

import good_data as good

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
