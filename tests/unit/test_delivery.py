"""The way of an export to where it is wanted: whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from typing import ClassVar

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from ocr_finetune_api.exit_codes import ConfigurationError, OutputError, StorageError
from ocr_finetune_trainer.export.archive import ATTEMPTS, pack, push
from ocr_finetune_trainer.export.oci import write_oci


class Flaky(MemoryFileSystem):
    """A server whose connection breaks in the middle of a file, and keeps what it has got."""

    protocol = "flaky"
    store: ClassVar[dict] = {}
    pseudo_dirs: ClassVar[list] = [""]
    failures = 0

    def put_file(self, local, remote, **options):
        super().put_file(local, remote, **options)
        if Flaky.failures:
            Flaky.failures -= 1
            self.pipe(remote, self.cat(remote)[:100])
            raise ConnectionError("connection reset by peer")


@pytest.fixture
def store():
    fsspec.register_implementation("flaky", Flaky, clobber=True)
    Flaky.store.clear()
    Flaky.failures = 0
    return Flaky


@pytest.fixture
def packed(tmp_path):
    folder = tmp_path / "export"
    (folder / "paddle").mkdir(parents=True)
    (folder / "paddle" / "inference.json").write_bytes(os.urandom(5000))
    (folder / "model-card.md").write_text("# card")
    archive = tmp_path / "plates.tar.gz"
    return [archive, pack(folder, archive, name="plates")]


def names(store):
    return sorted(path.rsplit("/", 1)[1] for path in store.store)


def test_a_broken_connection_is_tried_again_until_all_is_there(store, packed):
    store.failures = 3
    waited = []

    addresses = push(packed, "flaky://models/plates", sleep=waited.append)

    assert names(store) == ["plates.tar.gz", "plates.tar.gz.sha256"]
    assert addresses[0] == "flaky://models/plates/plates.tar.gz"
    assert fsspec.filesystem("flaky").cat(addresses[0]) == packed[0].read_bytes()
    assert waited == [1.0, 2.0, 4.0]


def test_when_it_never_works_nothing_half_written_is_left(store, packed):
    store.failures = 100
    waited = []

    with pytest.raises(StorageError, match=f"gave up after {ATTEMPTS} attempts"):
        push(packed, "flaky://models/plates", sleep=waited.append)

    assert names(store) == []
    assert len(waited) == ATTEMPTS - 1


def test_a_folder_that_cannot_be_written_is_said_at_once(tmp_path, packed):
    (tmp_path / "file").write_text("")
    waited = []

    with pytest.raises(OutputError, match=r"export\.destination: .*cannot be written"):
        push(packed, str(tmp_path / "file" / "models"), sleep=waited.append)

    assert waited == []


def test_a_local_copy_replaces_the_old_one_only_when_it_is_whole(tmp_path, packed, monkeypatch):
    folder = tmp_path / "models"
    push(packed, str(folder), sleep=lambda _: None)
    before = (folder / "plates.tar.gz").read_bytes()
    packed[0].write_bytes(os.urandom(100_000))
    local = type(fsspec.filesystem("file"))
    put = local.put_file

    def put_half(self, source, target, **options):
        put(self, source, target, **options)
        os.truncate(target, 100)
        raise OSError("the disk was pulled out")

    monkeypatch.setattr(local, "put_file", put_half)
    with pytest.raises(StorageError):
        push(packed, str(folder), sleep=lambda _: None)

    assert (folder / "plates.tar.gz").read_bytes() == before
    assert sorted(path.name for path in folder.iterdir()) == ["plates.tar.gz", "plates.tar.gz.sha256"]


def test_an_unknown_file_system_is_a_mistake_in_the_manifest(packed):
    with pytest.raises(ConfigurationError, match="destination"):
        push(packed, "gopher://models", sleep=lambda _: None)


def test_the_same_content_gives_the_same_archive(tmp_path, packed):
    again = tmp_path / "again.tar.gz"
    pack(tmp_path / "export", again, name="plates")

    assert again.read_bytes() == packed[0].read_bytes()
    assert again.read_bytes()[4:8] == bytes(4)  # gzip's time of writing


def test_an_oci_layout_holds_the_archive_under_its_digest(tmp_path, packed):
    target = tmp_path / "plates.oci.tar"
    write_oci(packed[0], target, annotations={"a": "b"})

    with tarfile.open(target) as layout:
        content = {member.name: layout.extractfile(member).read() for member in layout.getmembers()}
    index = json.loads(content["index.json"])
    manifest_name = index["manifests"][0]["digest"].removeprefix("sha256:")
    manifest = json.loads(content[f"blobs/sha256/{manifest_name}"])
    layer = manifest["layers"][0]["digest"].removeprefix("sha256:")
    assert content[f"blobs/sha256/{layer}"] == packed[0].read_bytes()
    for name, blob in content.items():
        if name.startswith("blobs/"):
            assert hashlib.sha256(blob).hexdigest() == name.rsplit("/", 1)[1]
    assert json.loads(content["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    assert manifest["annotations"] == {"a": "b"}
