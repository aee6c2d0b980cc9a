"""Sources that lie elsewhere are copied once, gone on with where they broke, and checked; paths are read in place."""

from __future__ import annotations

import gzip
import hashlib
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import fsspec
import pytest

import good_data
from ocr_finetune_api.exit_codes import ConfigurationError, DataError, InputMissingError
from ocr_finetune_api.spec import CredentialSpec, Source
from ocr_finetune_trainer.data.sources import Opener, local_path
from ocr_finetune_trainer.models.download import download


class Server(SimpleHTTPRequestHandler):
    """Serves a folder with ranges, breaks off the first download of a file, and counts what it sends."""

    log: list[tuple[str, str, str]]
    broken: set[str]

    def do_GET(self):
        content = open(self.translate_path(self.path), "rb").read()  # noqa: PTH123, SIM115
        given = self.headers.get("Range", "")
        start = int(given.removeprefix("bytes=").rstrip("-")) if given else 0
        self.log.append(("GET", self.path, given))
        self.send_response(206 if given else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.send_header("ETag", '"one"')
        self.end_headers()
        if self.path not in self.broken:
            self.broken.add(self.path)
            self.wfile.write(content[start : start + len(content) // 2])
            self.close_connection = True
            return
        self.wfile.write(content[start:])

    def do_HEAD(self):
        self.log.append(("HEAD", self.path, ""))
        self.send_response(200)
        self.send_header("ETag", '"one"')
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def served(tmp_path):
    folder = tmp_path / "served"
    folder.mkdir()
    handler = type("Handler", (Server,), {"log": [], "broken": set()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}", handler
    server.shutdown()
    server.server_close()
    thread.join()


def opener(tmp_path, **more) -> Opener:
    return Opener(cache=tmp_path / "cache", download=partial(download, pause=0.01), **more)


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_download_that_broke_goes_on_and_is_not_made_again(tmp_path, served):
    folder, address, handler = served
    packed = good_data.zipped(good_data.lines(tmp_path / "data"), folder / "data.zip")
    source = Source(uri=f"{address}/data.zip")
    told: list[tuple[int, int]] = []
    opened = opener(tmp_path, progress=lambda done, total: told.append((done, total))).open(source)
    assert told[-1] == (packed.stat().st_size, packed.stat().st_size)
    assert "train.txt" in opened.files.names()
    ranges = [given for kind, _, given in handler.log if kind == "GET"]
    assert ranges == ["", f"bytes={packed.stat().st_size // 2}-"]
    handler.log.clear()
    opener(tmp_path).open(source)
    assert [kind for kind, _, _ in handler.log] == ["HEAD"]


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_checksum_in_the_address_is_held_to(tmp_path, served):
    folder, address, handler = served
    packed = good_data.zipped(good_data.lines(tmp_path / "data"), folder / "data.zip")
    handler.broken.add("/data.zip")
    right = hashlib.sha256(packed.read_bytes()).hexdigest()
    assert opener(tmp_path).fetch(f"{address}/data.zip#sha256={right}").read_bytes() == packed.read_bytes()
    with pytest.raises(DataError, match="SHA-256"):
        opener(tmp_path).fetch(f"{address}/data.zip#sha256={'0' * 64}")


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_the_copy_serves_when_the_server_is_gone(tmp_path, served):
    folder, address, handler = served
    good_data.zipped(good_data.lines(tmp_path / "data"), folder / "data.zip")
    handler.broken.add("/data.zip")
    first = opener(tmp_path).fetch(f"{address}/data.zip")
    dead = f"{address.rsplit(':', 1)[0]}:9/data.zip"
    with pytest.raises(InputMissingError, match="can't be reached"):
        opener(tmp_path).fetch(dead)
    assert first.stat().st_size > 0


def test_an_object_store_is_mirrored_and_kept_up(tmp_path):
    store = fsspec.filesystem("memory")
    store.store.clear()
    good_data.lines(tmp_path / "data", count=4)
    for path in sorted((tmp_path / "data").rglob("*.*")):
        if path.is_file():
            store.pipe(f"/bucket/set/{path.relative_to(tmp_path / 'data')}", path.read_bytes())
    source = Source(uri="memory://bucket/set")
    opened = opener(tmp_path).open(source)
    assert opened.files.names() == ["images/0.png", "images/1.png", "images/2.png", "images/3.png", "train.txt"]
    before = {name: opened.files.find(name).stamp for name in opened.files.names()}
    store.rm("/bucket/set/images/3.png")
    store.pipe("/bucket/set/train.txt", b"images/0.png\tchanged\n")
    again = opener(tmp_path).open(source)
    assert again.files.names() == ["images/0.png", "images/1.png", "images/2.png", "train.txt"]
    assert again.files.read_text("train.txt") == "images/0.png\tchanged\n"
    same = [name for name in again.files.names() if again.files.find(name).stamp == before[name]]
    assert same == ["images/0.png", "images/1.png", "images/2.png"]
    assert opener(tmp_path).open(Source(uri="memory://bucket/set/train.txt")).list_file == "train.txt"
    with pytest.raises(InputMissingError, match="does not exist"):
        opener(tmp_path).fetch("memory://bucket/nothing")


@pytest.mark.parametrize("name", ["data.tar.gz", "data.tar.bz2", "data.tar.xz", "renamed.gz"])
def test_a_compressed_archive_is_unpacked_once(tmp_path, name):
    folder = good_data.lines(tmp_path / "data", count=4)
    packed = good_data.tarred(folder, tmp_path / name)
    opened = opener(tmp_path).open(Source(uri=str(packed)))
    assert opened.files.read_text("train.txt") == (folder / "train.txt").read_text()
    assert opened.files.place("train.txt", 3) == f"{name}!train.txt:3"
    plain = list((tmp_path / "cache/downloads").glob("*/content.tar"))
    before = plain[0].stat().st_mtime_ns
    assert opener(tmp_path).open(Source(uri=str(packed))).files.names() == opened.files.names()
    assert plain[0].stat().st_mtime_ns == before
    assert sorted(path.name for path in plain[0].parent.iterdir()) == ["content.tar", "source.json"]


def test_a_compressed_archive_that_is_damaged_leaves_nothing(tmp_path):
    packed = good_data.tarred(good_data.lines(tmp_path / "data"), tmp_path / "data.tar.gz")
    packed.write_bytes(packed.read_bytes()[:-400])
    with pytest.raises(DataError, match="data.tar.gz: is cut off or damaged"):
        opener(tmp_path).open(Source(uri=str(packed)))
    assert not list((tmp_path / "cache").rglob("*content.tar*"))
    packed.write_bytes(gzip.compress(b"images/0.png\tword\n"))
    with pytest.raises(DataError, match="no tar archive inside"):
        opener(tmp_path).open(Source(uri=str(packed)))


def test_a_copy_of_a_store_that_broke_goes_on(tmp_path, monkeypatch):
    """Of 600 files 400 come before the network goes; the next run fetches the others only."""
    store = fsspec.filesystem("memory")
    store.store.clear()
    for number in range(600):
        store.pipe(f"/bucket/many/{number:03}.txt", f"{number}\ta".encode())
    get_file, fetched = type(store).get_file, []

    def breaks(self, name, target, **more):
        if len(fetched) >= 400:
            raise OSError("the network is gone")
        fetched.append(name)
        get_file(self, name, target, **more)

    monkeypatch.setattr(type(store), "get_file", breaks)
    with pytest.raises(InputMissingError, match="the network is gone"):
        opener(tmp_path).fetch("memory://bucket/many")
    first = set(fetched)
    fetched.clear()

    def counts(self, name, target, **more):
        fetched.append(name)
        get_file(self, name, target, **more)

    monkeypatch.setattr(type(store), "get_file", counts)
    folder = opener(tmp_path).fetch("memory://bucket/many")
    assert len(list(folder.iterdir())) == 600
    assert len(first) == 400
    assert not first & set(fetched), "what had come was fetched again"


def test_a_file_that_comes_cut_off_is_not_taken(tmp_path, monkeypatch):
    store = fsspec.filesystem("memory")
    store.store.clear()
    store.pipe("/bucket/one/a.txt", b"a.png\tword")

    def cut_off(_, __, target, **_more):
        with open(target, "wb") as file:  # noqa: PTH123
            file.write(b"a.p")

    monkeypatch.setattr(type(store), "get_file", cut_off)
    with pytest.raises(InputMissingError, match=r"a.txt came with 3 of 10 bytes"):
        opener(tmp_path).fetch("memory://bucket/one")
    monkeypatch.undo()
    assert (opener(tmp_path).fetch("memory://bucket/one") / "a.txt").read_bytes() == b"a.png\tword"


def test_credentials_of_the_longest_prefix_are_used(tmp_path):
    for name, key in (("wide", "WIDE"), ("narrow", "NARROW")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "AWS_ACCESS_KEY_ID").write_text(f"{key}\n")
        (tmp_path / name / "AWS_SECRET_ACCESS_KEY").write_text("secret\n")
    given = [
        CredentialSpec(prefix="s3://", secret_name="wide"),
        CredentialSpec(prefix="s3://general", secret_name="narrow", endpoint="http://minio:9000", region="eu"),
    ]
    made = opener(tmp_path, credentials=given, secrets=tmp_path)
    assert made._options("s3://other/x", "s3") == {"key": "WIDE", "secret": "secret"}
    assert made._options("s3://general/x", "s3") == {
        "key": "NARROW", "secret": "secret", "endpoint_url": "http://minio:9000", "client_kwargs": {"region_name": "eu"},
    }  # fmt: skip


def test_what_an_address_means():
    assert str(local_path("file:///a/b%20c")) == "/a/b c"
    assert str(local_path("relative/x")) == "relative/x"
    assert str(local_path("pvc://claim/x")) == "/claims/claim/x"
    assert str(local_path("C:/data")) == "C:/data"
    assert local_path("s3://bucket/x") is None


def test_a_kind_of_address_that_nobody_knows_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match="weird://"):
        opener(tmp_path).fetch("weird://x/y")
    with pytest.raises(ConfigurationError, match="only paths"):
        Opener().fetch("http://x/y")
