"""Files of a source are found and read the same way in folders and archives, whatever their names."""

from __future__ import annotations

import pickle
import unicodedata
import zipfile

import pytest

import good_data
from ocr_finetune_api.exit_codes import InputMissingError
from ocr_finetune_trainer.data.files import FolderFiles, TarFiles, ZipFiles, decode_text, open_files


@pytest.fixture
def sources(tmp_path):
    folder = tmp_path / "data"
    for name in ("a.txt", "图片/紙 1.png", 'quotes/it\'s "here".png'):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    zipped = good_data.zipped(folder, tmp_path / "data.zip")
    tarred = good_data.tarred(folder, tmp_path / "data.tar")
    return [open_files(path)[0] for path in (folder, zipped, tarred)]


def test_all_kinds_of_sources_hold_the_same_files(sources):
    assert [type(source) for source in sources] == [FolderFiles, ZipFiles, TarFiles]
    for source in sources:
        assert source.names() == ["a.txt", 'quotes/it\'s "here".png', "图片/紙 1.png"]
        copy = pickle.loads(pickle.dumps(source))
        for name in source.names():
            member = source.find(name)
            assert member.size == len(name.encode())
            assert copy.read(member) == name.encode()
        assert source.find("b.txt") is None
        assert source.by_file_name("elsewhere/紙 1.PNG") == ["图片/紙 1.png"]


def test_a_name_is_found_in_either_unicode_form(tmp_path):
    composed = unicodedata.normalize("NFC", "é.png")
    (tmp_path / unicodedata.normalize("NFD", "é.png")).write_bytes(b"x")
    assert FolderFiles(tmp_path).find(composed).size == 1


def test_chinese_windows_writes_names_in_gbk(tmp_path):
    info = zipfile.ZipInfo("placeholder")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        info.filename = "图片.png".encode("gb18030").decode("cp437")
        archive.writestr(info, b"x")
    content = (tmp_path / "a.zip").read_bytes()
    # Take the flag that says UTF-8 away, as that program does.
    raw, utf8 = "图片.png".encode("gb18030"), "图片.png".encode("gb18030").decode("cp437").encode()
    assert utf8 in content
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        made = archive.infolist()[0]
    made.flag_bits &= ~0x800
    made.filename = raw.decode("cp437")
    from ocr_finetune_trainer.data.files import _zip_name

    assert _zip_name(made) == "图片.png"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "gb18030"])
def test_label_files_are_read_in_the_encodings_people_use(encoding):
    assert decode_text("图片\t紙\n".encode(encoding)) == "图片\t紙\n"


def test_a_list_names_its_folder(tmp_path):
    good_data.lines(tmp_path)
    files, named = open_files(tmp_path / "train.txt")
    assert (files.root, named) == (tmp_path, "train.txt")


def test_a_missing_source_names_what_is_there(tmp_path):
    good_data.lines(tmp_path)
    with pytest.raises(InputMissingError, match="does not exist") as caught:
        open_files(tmp_path / "nope" / "deeper")
    assert "train.txt" in caught.value.hint


def test_links_that_go_round_end(tmp_path):
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "round").symlink_to(tmp_path)
    (tmp_path / "a.txt").write_text("x")
    assert FolderFiles(tmp_path).names() == ["a.txt"]
