"""An export on its way into a real S3 server, over a network that breaks: a reader never sees half."""

from __future__ import annotations

import os
import warnings

import pytest
from breaking_proxy import breaking

from ocr_finetune_api.exit_codes import OutputError, StorageError
from ocr_finetune_trainer.export.archive import pack, push

MIB = 2**20
BUCKET = "models"


@pytest.fixture(scope="module")
def server():
    """Host and port of an S3 server with an empty bucket."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from moto.server import ThreadedMotoServer

        server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
        server.start()
    address = "{}:{}".format(*server.get_host_and_port())
    system(address).mkdir(BUCKET)
    yield address
    server.stop()


def options(address):
    return {
        "key": "k",
        "secret": "s",
        "endpoint_url": f"http://{address}",
        "config_kwargs": {"retries": {"max_attempts": 1}},
    }


def system(address):
    import s3fs

    return s3fs.S3FileSystem(**options(address), skip_instance_cache=True, use_listings_cache=False)


@pytest.fixture
def files(tmp_path):
    """An archive that s3fs sends in several parts, and its checksum."""
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "model").write_bytes(os.urandom(60 * MIB))
    archive = tmp_path / "plates.tar.gz"
    return [archive, pack(tmp_path / "export", archive, name="plates")]


def test_a_connection_that_breaks_half_way_is_tried_again_and_nobody_sees_half(server, files):
    seen = []

    def sleep(_):
        """Looks as a reader would. Then the network is whole: how often clients try by themselves is chance."""
        seen.append([path.rpartition("/")[2] for path in system(server).find(f"{BUCKET}/plates")])
        network.breaks = 0

    with breaking(server) as network:
        network.breaks, network.after = 10**6, 20 * MIB
        addresses = push(files, f"s3://{BUCKET}/plates", options=options(network.address), sleep=sleep)

    assert network.cut > 1
    assert seen == [[]]
    assert addresses == [f"s3://{BUCKET}/plates/{path.name}" for path in files]
    assert system(server).cat_file(f"{BUCKET}/plates/plates.tar.gz") == files[0].read_bytes()


def test_the_old_archive_stays_when_the_new_one_never_arrives(server, files):
    target = f"{BUCKET}/kept/plates.tar.gz"
    system(server).pipe_file(target, b"the old one")

    with breaking(server) as network:
        network.breaks, network.after = 10**6, 20 * MIB
        with pytest.raises(StorageError, match="gave up after 5 attempts"):
            push(files, f"s3://{BUCKET}/kept", options=options(network.address), sleep=lambda _: None)

    assert system(server).cat_file(target) == b"the old one"
    assert system(server).find(f"{BUCKET}/kept") == [target]


def test_a_bucket_that_is_not_there_is_said_at_once(server, files):
    with pytest.raises(OutputError, match="s3://nobodys/plates"):
        push(files[1:], "s3://nobodys/plates", options=options(server), sleep=pytest.fail)
