"""Official weights over a real HTTP server: whole, slow, broken off, wrong; packed, carried over, checked."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ocr_finetune_api.exit_codes import ConfigurationError, DataError, ExitCode, InputMissingError, OutputError
from ocr_finetune_api.model_table import OFFICIAL_SITE, TABLE
from ocr_finetune_trainer.models.download import download
from ocr_finetune_trainer.models.library import HOME_VARIABLE, MIRROR_VARIABLE, Library
from weights_site import Site, archive, serving

NAME = "PP-OCRv4_mobile_rec"
INFO = TABLE[NAME]
WEIGHTS = INFO.weights_url.removeprefix(OFFICIAL_SITE)
ARCHIVE = INFO.inference_url.removeprefix(OFFICIAL_SITE)
DETECTOR = "PP-OCRv4_mobile_det"


@pytest.fixture
def site() -> Iterator[Site]:
    with serving() as made:
        config = json.dumps({"PostProcess": {"character_dict": ["a", "b", "1"]}}).encode()
        made.files = {
            WEIGHTS: pickle.dumps({"head.ctc_head.fc.bias": np.zeros(5, dtype=np.float32), "x": np.ones(3000)}),
            ARCHIVE: archive({f"{NAME}_infer/inference.pdiparams": b"0" * 10, f"{NAME}_infer/inference.yml": config}),
            TABLE[DETECTOR].weights_url.removeprefix(OFFICIAL_SITE): pickle.dumps({"x": np.ones(3)}),
        }
        yield made


def test_a_model_is_fetched_once_and_found_after(site: Site, tmp_path: Path) -> None:
    library = Library([tmp_path], mirror=site.url)
    assert library.find(NAME) is None
    seen: list[tuple[str, int, int]] = []
    files = library.pull(NAME, progress=lambda *state: seen.append(state))
    assert files.weights.read_bytes() == site.files[WEIGHTS]
    assert b"character_dict" in files.config.read_bytes()
    assert seen[-1][1] == seen[-1][2] > 0
    asked = len(site.requests)
    assert library.pull(NAME) == files == library.find(NAME)
    assert len(site.requests) == asked == 2
    assert library.verify() == {NAME: []}
    assert [p.name for p in tmp_path.rglob("*.part*")] == []


def test_characters_come_without_weights(site: Site, tmp_path: Path) -> None:
    library = Library([tmp_path], mirror=site.url)
    config = library.pull_config(NAME)
    assert b"character_dict" in config.read_bytes()
    assert library.pull_config(NAME) == config
    assert [path for path, _ in site.requests] == [ARCHIVE]
    assert library.find(NAME) is None
    assert library.pull(NAME).config == config
    assert len(site.requests) == 2
    config.write_bytes(b"another")
    with pytest.raises(DataError):
        library.pull_config(NAME)
    with pytest.raises(ConfigurationError, match="reads no text"):
        library.pull_config(DETECTOR)


def test_a_model_without_a_dictionary_is_one_file(site: Site, tmp_path: Path) -> None:
    assert Library([tmp_path], mirror=site.url).pull(DETECTOR).config is None


def test_a_slow_server_is_waited_for_as_long_as_bytes_come(site: Site, tmp_path: Path) -> None:
    site.slow = 0.1
    download(site.url + WEIGHTS, tmp_path / "w", timeout=2.0, attempts=1)  # in all it takes 2.5 s
    assert (tmp_path / "w").read_bytes() == site.files[WEIGHTS]


def test_a_broken_download_goes_on_where_it_stopped(site: Site, tmp_path: Path) -> None:
    site.breaks_after = 10_000
    download(site.url + WEIGHTS, tmp_path / "w", attempts=2, pause=0.01)
    assert (tmp_path / "w").read_bytes() == site.files[WEIGHTS]
    assert [asked for _, asked in site.requests] == ["", "bytes=10000-", "bytes=20000-"]


def test_a_later_call_goes_on_too(site: Site, tmp_path: Path) -> None:
    site.files[WEIGHTS], whole = site.files[WEIGHTS], site.files[WEIGHTS]
    site.breaks_after = 10_000
    site.files = {WEIGHTS: whole}
    with pytest.raises(InputMissingError):
        _pull_until_the_server_dies(site, tmp_path)
    assert (tmp_path / "w.part").stat().st_size == 10_000
    site.breaks_after = site.errors = 0
    download(site.url + WEIGHTS, tmp_path / "w", attempts=1)
    assert site.requests[-1][1] == "bytes=10000-"
    assert (tmp_path / "w").read_bytes() == whole


def _pull_until_the_server_dies(site: Site, tmp_path: Path) -> None:
    def die(at: int, _: int) -> None:
        if at >= 10_000:
            site.errors = 99

    download(site.url + WEIGHTS, tmp_path / "w", attempts=2, pause=0.01, progress=die)


@pytest.mark.parametrize("how", ["changed", "changed without a sign", "no ranges"])
def test_bytes_of_two_files_are_never_joined(site: Site, tmp_path: Path, how: str) -> None:
    site.breaks_after = 10_000
    if how == "changed without a sign":
        site.etag = ""
    with pytest.raises(InputMissingError):
        _pull_until_the_server_dies(site, tmp_path)
    site.breaks_after = site.errors = 0
    if how == "no ranges":
        site.ranges = False
    else:
        site.etag = '"two"' if site.etag else ""
        site.files[WEIGHTS] = b"x" * 20_000
    download(site.url + WEIGHTS, tmp_path / "w", attempts=1)
    assert (tmp_path / "w").read_bytes() == site.files[WEIGHTS]


def test_a_busy_server_is_asked_again(site: Site, tmp_path: Path) -> None:
    site.errors = 2
    download(site.url + WEIGHTS, tmp_path / "w", attempts=3, pause=0.01)
    assert len(site.requests) == 3


def test_what_is_not_there_says_so(site: Site, tmp_path: Path) -> None:
    site.files = {}
    with pytest.raises(InputMissingError, match="the server answers 404") as caught:
        Library([tmp_path], mirror=site.url).pull(NAME)
    assert caught.value.exit_code == ExitCode.INPUT_MISSING
    with pytest.raises(InputMissingError, match=r"download failed 2 times in a row: the server can't be reached"):
        download("http://127.0.0.1:9/w", tmp_path / "w", attempts=2, pause=0.01)


def test_a_changed_file_is_refused(site: Site, tmp_path: Path) -> None:
    library = Library([tmp_path], mirror=site.url)
    files = library.pull(NAME)
    files.weights.write_bytes(b"something else")
    with pytest.raises(DataError, match="wrong checksum") as caught:
        library.find(NAME)
    assert caught.value.exit_code == ExitCode.BAD_DATA
    assert "wrong checksum" in library.verify([NAME])[NAME][0]
    assert library.verify([DETECTOR])[DETECTOR][0].endswith("ocrft models pull PP-OCRv4_mobile_det fetches it")


def test_a_mirror_with_other_content_is_refused(site: Site, tmp_path: Path) -> None:
    library = Library([tmp_path], mirror=site.url)
    files = library.pull(NAME)
    files.weights.unlink()
    site.files[WEIGHTS] = pickle.dumps({"head.ctc_head.fc.bias": np.ones(5, dtype=np.float32)})
    with pytest.raises(DataError, match="wrong checksum"):
        library.pull(NAME)
    assert not files.weights.exists()


def test_an_archive_without_a_dictionary_is_refused(site: Site, tmp_path: Path) -> None:
    site.files[ARCHIVE] = archive({"x/other.yml": b""})
    with pytest.raises(DataError, match=r"there is no inference\.yml in it"):
        Library([tmp_path], mirror=site.url).pull(NAME)
    site.files[ARCHIVE] = b"<html>"
    with pytest.raises(DataError, match="not a readable archive"):
        Library([tmp_path / "b"], mirror=site.url).pull(NAME)


def test_models_are_carried_to_where_there_is_no_network(site: Site, tmp_path: Path) -> None:
    packed = Library([tmp_path / "a"], mirror=site.url).pack([NAME, DETECTOR], tmp_path / "models.tar")
    assert f"{NAME}/inference.yml" in packed
    other = Library([tmp_path / "b"], mirror="http://127.0.0.1:9")
    assert other.unpack(tmp_path / "models.tar") == [DETECTOR, NAME]
    assert other.find(NAME).weights.read_bytes() == site.files[WEIGHTS]
    assert other.present() == [name for name in TABLE if name in (NAME, DETECTOR)]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"../evil": b""}, r"'\.\./evil' is no file of a known model"),
        ({f"{NAME}/run.sh": b""}, "is no file of a known model"),
        ({f"{NAME}/{NAME}_pretrained.pdparams": b"1"}, r"lacks inference\.yml"),
    ],
)
def test_an_archive_with_anything_else_is_refused(files: dict[str, bytes], message: str, tmp_path: Path) -> None:
    (tmp_path / "models.tar").write_bytes(archive(files))
    with pytest.raises(DataError, match=message):
        Library([tmp_path / "home"]).unpack(tmp_path / "models.tar")
    assert list((tmp_path / "home").iterdir()) == []


def test_a_damaged_archive_is_refused(site: Site, tmp_path: Path) -> None:
    Library([tmp_path / "a"], mirror=site.url).pack([NAME], tmp_path / "models.tar")
    content = bytearray((tmp_path / "models.tar").read_bytes())
    place = content.index(b"head.ctc_head")
    content[place : place + 4] = b"HEAD"
    (tmp_path / "models.tar").write_bytes(bytes(content))
    with pytest.raises(DataError, match="wrong checksum"):
        Library([tmp_path / "b"]).unpack(tmp_path / "models.tar")
    with pytest.raises(InputMissingError, match="no such archive"):
        Library([tmp_path / "b"]).unpack(tmp_path / "none.tar")
    (tmp_path / "models.tar").write_bytes(b"no archive")
    with pytest.raises(DataError, match="not a readable archive"):
        Library([tmp_path / "b"]).unpack(tmp_path / "models.tar")


def test_models_without_official_weights_say_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no official weights are published"):
        Library([tmp_path]).pull("MobileNetV3_small_ctc")
    with pytest.raises(ConfigurationError, match="did you mean 'PP-OCRv4_mobile_rec'"):
        Library([tmp_path]).pull("PP-OCRv4_mobil_rec")


def test_a_place_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="can't be written"):
        Library([tmp_path / "file" / "home"]).pull(NAME)


def test_the_environment_says_where(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "home"))
    monkeypatch.setenv(MIRROR_VARIABLE, "http://mirror/x/")
    library = Library.from_environment(cache=tmp_path / "cache")
    assert library.homes == (tmp_path / "home", tmp_path / "cache")
    assert library.site == "http://mirror/x"
    monkeypatch.delenv(HOME_VARIABLE)
    monkeypatch.delenv(MIRROR_VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    library = Library.from_environment()
    assert (library.homes, library.site) == ((tmp_path / "ocrft" / "models",), OFFICIAL_SITE)
