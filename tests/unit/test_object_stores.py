"""Sources in object stores, read over HTTP from servers that speak S3, Google's dialect, and that of Alibaba's OSS."""

from __future__ import annotations

import base64
import hmac
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha1
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

import boto3
import pytest
import requests
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from moto.server import ThreadedMotoServer

import good_data
from ocr_finetune_api.exit_codes import ConfigurationError, InputMissingError
from ocr_finetune_api.spec import CredentialSpec, Source
from ocr_finetune_trainer.data.sources import Opener
from ocr_finetune_trainer.export.archive import push

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Four lines, one of them under a name that has to be escaped."""
    folder = good_data.lines(tmp_path / "data", count=4)
    (folder / "images/0.png").rename(folder / "images/第 零+1.png")
    labels = (folder / "train.txt").read_text(encoding="utf-8")
    (folder / "train.txt").write_text(labels.replace("images/0.png", "images/第 零+1.png"), encoding="utf-8")
    return folder


def secret(tmp_path: Path, **values: str) -> Path:
    folder = tmp_path / "secrets" / "store"
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in values.items():
        (folder / name.replace("__", ".")).write_text(value)
    return folder.parent


# S3


@pytest.fixture
def s3(tmp_path: Path, data: Path) -> Iterator[Opener]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    keys = {"aws_access_key_id": "me", "aws_secret_access_key": "mine", "region_name": "eu-west-1"}
    client = boto3.client("s3", endpoint_url=address, **keys)
    client.create_bucket(Bucket="general", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    for name, content in files_of(data).items():
        client.put_object(Bucket="general", Key=f"sets/lines/{name}", Body=content)
    packed = good_data.zipped(data, tmp_path / "data.zip")
    client.put_object(Bucket="general", Key="sets/data.zip", Body=packed.read_bytes())
    secrets = secret(tmp_path, AWS_ACCESS_KEY_ID="me\n", AWS_SECRET_ACCESS_KEY="mine\n")
    given = CredentialSpec(prefix="s3://general", secret_name="store", endpoint=address, region="eu-west-1")
    yield Opener(cache=tmp_path / "cache", credentials=[given], secrets=secrets)
    requests.post(f"{address}/moto-api/reset", timeout=10)
    server.stop()


def test_a_folder_in_s3_is_copied_once(s3: Opener, data: Path) -> None:
    source = Source(uri="s3://general/sets/lines")
    opened = s3.open(source)
    assert {name: opened.files.read(opened.files.find(name)) for name in opened.files.names()} == files_of(data)
    stamps = [opened.files.find(name).stamp for name in opened.files.names()]
    again = s3.open(source)
    assert [again.files.find(name).stamp for name in again.files.names()] == stamps


def test_copying_is_told_byte_by_byte(s3: Opener, data: Path) -> None:
    told: list[tuple[int, int]] = []
    replace(s3, progress=lambda done, total: told.append((done, total))).open(Source(uri="s3://general/sets/lines"))
    whole = sum(map(len, files_of(data).values()))
    assert told[-1] == (whole, whole)
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_an_archive_and_a_list_in_s3(s3: Opener, data: Path) -> None:
    packed = s3.open(Source(uri="s3://general/sets/data.zip"))
    assert set(packed.files.names()) == set(files_of(data))
    assert s3.open(Source(uri="s3://general/sets/lines/train.txt")).list_file == "train.txt"


def test_what_s3_does_not_have_is_named(s3: Opener) -> None:
    with pytest.raises(InputMissingError, match="s3://general/nothing: does not exist"):
        s3.open(Source(uri="s3://general/nothing"))
    with pytest.raises(InputMissingError, match="s3://general-2/x"):
        s3.open(Source(uri="s3://general-2/x"))


# Google Cloud Storage


class Google(BaseHTTPRequestHandler):
    """As much of Google's JSON API as reading needs: a token, a bucket's objects, and their content."""

    objects: dict[str, bytes]
    asked: list[str]

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.answer({"access_token": "given", "expires_in": 3600, "token_type": "Bearer"})

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        if self.headers.get("Authorization") != "Bearer given":
            self.answer({"error": {"code": 401, "message": "no token"}}, status=401)
            return
        _, _, name = parts.path.partition("/b/general/o/")
        if "/b/general/o" not in parts.path:
            self.answer({"error": {"code": 404, "message": "no bucket"}}, status=404)
        elif not name:
            found = [key for key in self.objects if key.startswith(query.get("prefix", ""))]
            self.answer({"kind": "storage#objects", "items": [self.about(key) for key in sorted(found)]})
        elif unquote(name) not in self.objects:
            self.answer({"error": {"code": 404, "message": "no object"}}, status=404)
        elif query.get("alt") == "media" or parts.path.startswith("/download"):
            self.asked.append(unquote(name))
            self.answer(self.objects[unquote(name)])
        else:
            self.answer(self.about(unquote(name)))

    def about(self, key: str) -> dict[str, str]:
        size = str(len(self.objects[key]))
        return {"kind": "storage#object", "bucket": "general", "name": key, "size": size, "etag": "1", "generation": "1",
                "updated": "2026-01-01T00:00:00.000Z", "timeCreated": "2026-01-01T00:00:00.000Z"}  # fmt: skip

    def answer(self, content: object, *, status: int = 200) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header(
            "Content-Type", "application/octet-stream" if isinstance(content, bytes) else "application/json"
        )
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def google(tmp_path: Path, data: Path) -> Iterator[tuple[Opener, type[Google]]]:
    objects = {f"sets/lines/{name}": content for name, content in files_of(data).items()}
    handler = type("Handler", (Google,), {"objects": objects, "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    key = {"type": "service_account", "project_id": "p", "private_key_id": "1", "private_key": private.decode(),
           "client_email": "a@p.iam.gserviceaccount.com", "client_id": "1", "token_uri": f"{address}/token"}  # fmt: skip
    given = CredentialSpec(prefix="gs://general", secret_name="store", endpoint=address)
    secrets = secret(tmp_path, key__json=json.dumps(key))
    yield Opener(cache=tmp_path / "cache", credentials=[given], secrets=secrets), handler
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_folder_in_google_storage_is_copied_once(google: tuple[Opener, type[Google]], data: Path) -> None:
    opener, handler = google
    told: list[tuple[int, int]] = []
    opener = replace(opener, progress=lambda done, total: told.append((done, total)))
    opened = opener.open(Source(uri="gs://general/sets/lines"))
    assert {name: opened.files.read(opened.files.find(name)) for name in opened.files.names()} == files_of(data)
    assert len(handler.asked) == 5
    assert told[-1] == (sum(map(len, files_of(data).values())),) * 2
    opener.open(Source(uri="gs://general/sets/lines"))
    assert len(handler.asked) == 5
    with pytest.raises(InputMissingError, match="gs://general/nothing"):
        opener.open(Source(uri="gs://general/nothing"))


# Alibaba's OSS


class Alibaba(BaseHTTPRequestHandler):
    """As much of OSS's API as copying needs, for requests that are signed with the right secret."""

    objects: dict[str, bytes]
    asked: list[str]

    def do_HEAD(self) -> None:
        self.serve()

    def do_GET(self) -> None:
        self.serve()

    def do_PUT(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        if self.is_allowed():
            self.objects[unquote(urlsplit(self.path).path).removeprefix("/general/")] = content
            self.answer(b"")

    def serve(self) -> None:
        parts = urlsplit(self.path)
        _, bucket, key = unquote(parts.path).split("/", 2)
        query = {name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
        if not self.is_allowed():
            return
        if bucket != "general":
            self.refuse(404, "NoSuchBucket")
        elif key in self.objects:
            self.asked.append(f"{self.command} {key}")
            self.answer(self.objects[key])
        elif key:
            self.refuse(404, "NoSuchKey")
        else:
            self.answer(self.listed(query))

    def is_allowed(self) -> bool:
        """Checks the signature of version 1: the method, the date, and the resource without its query."""
        lines = [self.command, *(self.headers.get(name, "") for name in ("Content-MD5", "Content-Type", "Date"))]
        lines += [
            f"{name.lower()}:{value}" for name, value in sorted(self.headers.items()) if name.startswith("x-oss-")
        ]
        text = "\n".join([*lines, unquote(urlsplit(self.path).path)])
        signature = base64.b64encode(hmac.new(b"mine", text.encode(), sha1).digest()).decode()
        if self.headers.get("Authorization") == f"OSS me:{signature}":
            return True
        self.refuse(403, "SignatureDoesNotMatch")
        return False

    def listed(self, query: dict[str, str]) -> bytes:
        prefix, end = query.get("prefix", ""), query.get("delimiter", "")
        entries, folders = "", set()
        for key in sorted(name for name in self.objects if name.startswith(prefix)):
            if end and end in key[len(prefix) :]:
                folders.add(prefix + key[len(prefix) :].split(end)[0] + end)
                continue
            entries += (
                f"<Contents><Key>{escape(key)}</Key><Size>{len(self.objects[key])}</Size><ETag>1</ETag><Type>Normal"
                "</Type><LastModified>2026-01-01T00:00:00.000Z</LastModified><StorageClass>Standard</StorageClass></Contents>"
            )
        entries += "".join(f"<CommonPrefixes><Prefix>{escape(name)}</Prefix></CommonPrefixes>" for name in folders)
        return f"<ListBucketResult><IsTruncated>false</IsTruncated>{entries}</ListBucketResult>".encode()

    def refuse(self, status: int, code: str) -> None:
        self.answer(f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode(), status=status)

    def answer(self, body: bytes, *, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
        self.send_header("ETag", '"1"')
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def alibaba(tmp_path: Path, data: Path) -> Iterator[tuple[str, type[Alibaba]]]:
    objects = {f"sets/lines/{name}": content for name, content in files_of(data).items()}
    handler = type("Handler", (Alibaba,), {"objects": objects, "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", handler
    server.shutdown()
    server.server_close()
    thread.join()


def oss_opener(tmp_path: Path, address: str, *, key: str = "mine\n") -> Opener:
    secrets = secret(tmp_path, OSS_ACCESS_KEY_ID="me\n", OSS_ACCESS_KEY_SECRET=key)
    given = CredentialSpec(prefix="oss://general", secret_name="store", endpoint=address)
    return Opener(cache=tmp_path / "cache", credentials=[given], secrets=secrets)


def test_a_folder_in_oss_is_copied_once(tmp_path: Path, alibaba: tuple[str, type[Alibaba]], data: Path) -> None:
    address, handler = alibaba
    told: list[tuple[int, int]] = []
    opener = replace(oss_opener(tmp_path, address), progress=lambda done, total: told.append((done, total)))
    opened = opener.open(Source(uri="oss://general/sets/lines"))
    assert {name: opened.files.read(opened.files.find(name)) for name in opened.files.names()} == files_of(data)
    assert sum(asked.startswith("GET") for asked in handler.asked) == 5
    assert told[-1] == (sum(map(len, files_of(data).values())),) * 2
    opener.open(Source(uri="oss://general/sets/lines"))
    assert sum(asked.startswith("GET") for asked in handler.asked) == 5
    assert opener.open(Source(uri="oss://general/sets/lines/train.txt")).list_file == "train.txt"


def test_what_oss_refuses_is_named(tmp_path: Path, alibaba: tuple[str, type[Alibaba]]) -> None:
    address, _ = alibaba
    with pytest.raises(InputMissingError, match="oss://general/nothing: does not exist"):
        oss_opener(tmp_path, address).open(Source(uri="oss://general/nothing"))
    with pytest.raises(InputMissingError, match="oss://general/sets/lines: can't be read .SignatureDoesNotMatch"):
        oss_opener(tmp_path, address, key="theirs").open(Source(uri="oss://general/sets/lines"))


def test_an_export_reaches_oss(tmp_path: Path, alibaba: tuple[str, type[Alibaba]]) -> None:
    address, handler = alibaba
    archive = tmp_path / "plates.tar.gz"
    archive.write_bytes(b"the model")
    opener = oss_opener(tmp_path, address)
    push([archive], "oss://general/models", options=opener.options("oss://general/models"))
    assert handler.objects["models/plates.tar.gz"] == b"the model"


def test_an_oss_address_without_an_endpoint_is_explained(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="oss://elsewhere/sets: .*in which region") as raised:
        Opener(cache=tmp_path).open(Source(uri="oss://elsewhere/sets"))
    assert "oss-cn-hangzhou.aliyuncs.com" in raised.value.hint


def test_without_its_package_a_store_says_what_to_install(tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['ossfs'] = None\n"
        "from pathlib import Path; from ocr_finetune_api.spec import Source\n"
        "from ocr_finetune_api.exit_codes import ConfigurationError\n"
        "from ocr_finetune_trainer.data.sources import Opener\n"
        "try: Opener(cache=Path(sys.argv[1])).open(Source(uri='oss://elsewhere/sets'))\n"
        "except ConfigurationError as error: print(error, '|', error.hint)"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    environment = {**os.environ, "OSS_ENDPOINT": "http://127.0.0.1:1"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.startswith("oss://elsewhere/sets: reading oss:// needs the package ossfs")
    assert "| pip install 'ocr-finetune[oss]'; the image does not bring it" in done.stdout
