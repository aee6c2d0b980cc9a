"""Sources in object stores, read over HTTP from servers that speak S3, Google's dialect, or S3 as Alibaba wants it."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import boto3
import pytest
import requests
import s3fs
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from moto.server import DomainDispatcherApplication, MotoRequestHandler, ThreadedMotoServer, create_backend_app
from werkzeug.serving import make_server, make_ssl_devcert

import good_data
from ocr_finetune_api.exit_codes import ConfigurationError, InputMissingError
from ocr_finetune_api.spec import CredentialSpec, Source
from ocr_finetune_trainer.data import oss
from ocr_finetune_trainer.data.sources import Opener, open_store
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


@dataclass(frozen=True, kw_only=True)
class Request:
    method: str
    url: str
    headers: dict[str, str]
    body: bytes

    @property
    def host(self) -> str:
        return urlsplit(self.url).netloc


class Alibaba:
    """OSS's own rules in front of a server that speaks S3, which has everything in one bucket.

    It is reached as a proxy is, so that clients ask it under OSS's real names, none of which is ever looked up.
    """

    def __init__(self) -> None:
        self.store = DomainDispatcherApplication(create_backend_app)
        self.asked: list[Request] = []
        self.refused: dict[str, tuple[int, str]] = {}  # status and code, by the end of an object's name
        self.token = ""

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        headers = {
            name.removeprefix("HTTP_").replace("_", "-").lower(): value
            for name, value in environ.items()
            if name.startswith("HTTP_") or name in {"CONTENT_TYPE", "CONTENT_LENGTH"}
        }
        url = environ["REQUEST_URI"]
        url = url if url.startswith("http") else f"http://{headers['host']}{url}"
        body = environ["wsgi.input"].read(int(headers.get("content-length") or 0))
        request = Request(method=environ["REQUEST_METHOD"], url=url, headers=headers, body=body)
        self.asked.append(request)
        if (refusal := self.refusal(request)) is not None:
            status, code = refusal
            start(f"{status} No", [("Content-Type", "application/xml")])
            return [
                b""
                if request.method == "HEAD"
                else f"<Error><Code>{code}</Code><Message>{code}.</Message></Error>".encode()
            ]
        if request.host.endswith(".aliyuncs.com"):
            bucket, parts = request.host.partition(".")[0], urlsplit(url)
            environ["PATH_INFO"] = f"/{bucket}{environ['PATH_INFO']}"
            environ["REQUEST_URI"] = environ["RAW_URI"] = f"/{bucket}{parts.path}?{parts.query}"
        environ["HTTP_HOST"] = "127.0.0.1"
        environ["wsgi.input"] = io.BytesIO(body)
        return self.store(environ, start)  # type: ignore[no-any-return]

    def refusal(self, request: Request) -> tuple[int, str] | None:
        if request.url.endswith("/moto-api/reset"):
            return None
        for end, refusal in self.refused.items():
            if urlsplit(request.url).path.endswith(end):
                return refusal
        if request.host.startswith(("oss-", "s3.oss-")):
            return 403, "SecondLevelDomainForbidden"
        if "aws-chunked" in request.headers.get("content-encoding", ""):
            return 400, "InvalidArgument"
        if request.headers.get("x-amz-security-token", "") != self.token:
            return 403, "InvalidSecurityToken"
        if not is_signed(request):
            return 403, "SignatureDoesNotMatch"
        return None

    def read(self) -> list[str]:
        return [unquote(urlsplit(one.url).path) for one in self.asked if one.method == "GET" and "?" not in one.url]


def is_signed(request: Request, *, region: str = "cn-hangzhou") -> bool:
    """Whether a request carries a signature of version 4, with the secret `mine`, of all that it has to be of."""
    fields = dict(re.findall(r"(Credential|SignedHeaders|Signature)=([^,]+)", request.headers.get("authorization", "")))
    if not fields.get("Credential", "").endswith(f"/{region}/s3/aws4_request"):
        return False
    if request.headers["x-amz-content-sha256"] != sha256(request.body).hexdigest():
        return False
    signed = {name: request.headers[name] for name in fields["SignedHeaders"].split(";")}
    again = AWSRequest(method=request.method, url=request.url, headers=signed, data=request.body)
    again.context["timestamp"] = request.headers["x-amz-date"]
    by = S3SigV4Auth(Credentials("me", "mine"), "s3", region)
    return by.signature(by.string_to_sign(again, by.canonical_request(again)), again) == fields["Signature"]


@contextmanager
def serving(app: Any, **how: Any) -> Iterator[int]:
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=Quiet, **how)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield server.server_port
    server.shutdown()
    server.server_close()
    thread.join()


class Quiet(MotoRequestHandler):
    def log(self, *_: object, **__: object) -> None:
        pass


@pytest.fixture
def alibaba(data: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Alibaba]:
    gate = Alibaba()
    with serving(gate) as port:
        keys = {"aws_access_key_id": "me", "aws_secret_access_key": "mine", "region_name": "cn-hangzhou"}
        client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}", **keys)
        client.create_bucket(Bucket="general", CreateBucketConfiguration={"LocationConstraint": "cn-hangzhou"})
        for name, content in files_of(data).items():
            client.put_object(Bucket="general", Key=f"sets/lines/{name}", Body=content)
        gate.asked.clear()
        for name in (
            "no_proxy",
            "NO_PROXY",
            "HTTP_PROXY",
            "https_proxy",
            "HTTPS_PROXY",
            "OSS_ENDPOINT",
            *oss.SECRET_KEYS,
        ):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{port}")
        # Clients are kept for as long as their options are the same; these are another server's.
        s3fs.S3FileSystem.clear_instance_cache()
        yield gate
        monkeypatch.undo()
        requests.post(f"http://127.0.0.1:{port}/moto-api/reset", timeout=10)


PUBLIC = "http://oss-cn-hangzhou.aliyuncs.com"
LINES = Source(uri="oss://general/sets/lines")


def oss_opener(tmp_path: Path, *, endpoint: str = PUBLIC, key: str = "mine\n", **more: str) -> Opener:
    secrets = secret(tmp_path, OSS_ACCESS_KEY_ID="me\n", OSS_ACCESS_KEY_SECRET=key, **more)
    given = CredentialSpec(prefix="oss://general", secret_name="store", endpoint=endpoint)
    return Opener(cache=tmp_path / "cache", credentials=[given], secrets=secrets)


def test_a_folder_in_oss_is_copied_once(tmp_path: Path, alibaba: Alibaba, data: Path) -> None:
    told: list[tuple[int, int]] = []
    opener = replace(oss_opener(tmp_path), progress=lambda done, total: told.append((done, total)))
    opened = opener.open(LINES)
    assert {name: opened.files.read(opened.files.find(name)) for name in opened.files.names()} == files_of(data)
    assert sorted(alibaba.read()) == sorted(f"/sets/lines/{name}" for name in files_of(data))
    assert told[-1] == (sum(map(len, files_of(data).values())),) * 2
    opener.open(LINES)
    assert len(alibaba.read()) == 5
    assert opener.open(Source(uri="oss://general/sets/lines/train.txt")).list_file == "train.txt"


def test_what_has_come_from_oss_is_not_fetched_again(tmp_path: Path, alibaba: Alibaba, data: Path) -> None:
    alibaba.refused["/train.txt"] = (403, "AccessDenied")
    with pytest.raises(InputMissingError, match="oss://general/sets/lines: access is refused .AccessDenied"):
        oss_opener(tmp_path).open(LINES)
    came = len(alibaba.read()) - 1
    alibaba.refused.clear()
    opened = oss_opener(tmp_path).open(LINES)
    assert {name: opened.files.read(opened.files.find(name)) for name in opened.files.names()} == files_of(data)
    assert 1 <= came <= 4
    assert len(alibaba.read()) == came + 1 + (5 - came)


@pytest.mark.usefixtures("alibaba")
def test_what_oss_refuses_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputMissingError, match="oss://general/nothing: does not exist"):
        oss_opener(tmp_path).open(Source(uri="oss://general/nothing"))
    with pytest.raises(InputMissingError, match="oss://general/sets/lines: access is refused .SignatureDoesNotMatch"):
        oss_opener(tmp_path, key="theirs").open(LINES)
    everywhere = CredentialSpec(prefix="oss://", secret_name="store", endpoint=PUBLIC)
    with pytest.raises(InputMissingError, match="oss://general-2/x: does not exist"):
        replace(oss_opener(tmp_path), credentials=[everywhere]).open(Source(uri="oss://general-2/x"))
    with pytest.raises(
        InputMissingError, match="oss://general/sets/lines: can't be read .InvalidSecurityToken: Invalid"
    ):
        oss_opener(tmp_path, OSS_SESSION_TOKEN="old").open(LINES)


def test_oss_is_asked_as_it_wants_to_be(tmp_path: Path, alibaba: Alibaba) -> None:
    opener = oss_opener(tmp_path, endpoint="http://general.oss-cn-hangzhou-internal.aliyuncs.com/")
    archive = tmp_path / "plates.tar.gz"
    archive.write_bytes(os.urandom(11 * 2**20))
    where = "oss://general/models"
    assert push([archive], where, options=opener.options(where)) == [f"{where}/plates.tar.gz"]
    system, _ = open_store(where, opener.options(where))
    system.put_file(str(archive), "general/models/parts", chunksize=5 * 2**20)
    for name in ("plates.tar.gz", "parts"):
        assert opener.fetch(f"{where}/{name}").read_bytes() == archive.read_bytes()
    assert {one.host for one in alibaba.asked} == {"general.oss-cn-hangzhou-internal.aliyuncs.com"}
    assert sum("partNumber=" in one.url for one in alibaba.asked) == 3
    sent = {name for one in alibaba.asked for name in one.headers}
    assert {"authorization", "x-amz-content-sha256"} < sent
    assert not [name for name in sent if "checksum" in name or "trailer" in name or name == "content-encoding"]


def test_a_body_goes_to_oss_in_one_piece_over_tls(
    tmp_path: Path, alibaba: Alibaba, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = make_ssl_devcert(str(tmp_path / "server"), host="localhost")
    monkeypatch.setenv("AWS_CA_BUNDLE", files[0])
    archive = tmp_path / "plates.tar.gz"
    archive.write_bytes(b"the model")
    with serving(alibaba, ssl_context=files) as port:
        opener = oss_opener(tmp_path, endpoint=f"https://localhost:{port}")
        # Not a region's own endpoint, and so nothing says which region to sign for.
        opener = replace(opener, credentials=[opener.credentials[0].model_copy(update={"region": "oss-cn-hangzhou"})])
        push([archive], "oss://general/models", options=opener.options("oss://general/models"), sleep=pytest.fail)
    put = next(one for one in alibaba.asked if one.method == "PUT")
    assert (put.body, put.host) == (b"the model", f"localhost:{port}")


def test_keys_of_oss_come_from_the_environment_where_no_secret_is_named(
    tmp_path: Path, alibaba: Alibaba, monkeypatch: pytest.MonkeyPatch
) -> None:
    alibaba.token = "passing"
    values = {"OSS_ACCESS_KEY_ID": "me", "OSS_ACCESS_KEY_SECRET": "mine", "OSS_SESSION_TOKEN": "passing"}
    for name, value in {**values, "OSS_ENDPOINT": PUBLIC}.items():
        monkeypatch.setenv(name, value)
    assert len(list(Opener(cache=tmp_path).open(LINES).files.names())) == 5


def test_what_everybody_may_read_in_oss_needs_no_keys(
    tmp_path: Path, alibaba: Alibaba, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OSS_ENDPOINT", PUBLIC)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "for-amazon-only")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "for-amazon-only")
    with pytest.raises(InputMissingError, match="access is refused"):
        Opener(cache=tmp_path).open(LINES)
    assert not [one for one in alibaba.asked if "authorization" in one.headers]


@pytest.mark.parametrize(
    ("endpoint", "place", "region", "style"),
    [
        ("https://oss-cn-hangzhou.aliyuncs.com", "https://oss-cn-hangzhou.aliyuncs.com", "cn-hangzhou", "virtual"),
        ("oss-cn-hangzhou.aliyuncs.com/", "https://oss-cn-hangzhou.aliyuncs.com", "cn-hangzhou", "virtual"),
        ("OSS-eu-central-1-internal.aliyuncs.com",
         "https://oss-eu-central-1-internal.aliyuncs.com", "eu-central-1", "virtual"),
        ("http://s3.oss-us-west-1.aliyuncs.com", "http://s3.oss-us-west-1.aliyuncs.com", "us-west-1", "virtual"),
        ("general.oss-cn-shanghai-finance-1-internal.aliyuncs.com",
         "https://oss-cn-shanghai-finance-1-internal.aliyuncs.com", "cn-shanghai-finance-1", "virtual"),
        ("general.oss-accelerate.aliyuncs.com", "https://oss-accelerate.aliyuncs.com", "us-east-1", "virtual"),
        ("https://store.example:8443", "https://store.example:8443", "us-east-1", "virtual"),
        ("general.example", "https://general.example", "us-east-1", "virtual"),
        ("http://10.0.0.7:9000", "http://10.0.0.7:9000", "us-east-1", "path"),
        ("http://[::1]:9000", "http://[::1]:9000", "us-east-1", "path"),
        ("http://localhost:9000", "http://localhost:9000", "us-east-1", "path"),
    ],
)  # fmt: skip
def test_endpoints_of_oss_are_taken_as_people_write_them(endpoint: str, place: str, region: str, style: str) -> None:
    made = oss.s3_options("oss://general/x", keys={}, endpoint=endpoint, region="")
    assert made["endpoint_url"] == place
    assert made["client_kwargs"] == {"region_name": region}
    assert made["config_kwargs"]["s3"] == {"addressing_style": style}


def test_a_region_of_oss_stands_for_its_endpoint() -> None:
    for region in ("cn-beijing", "oss-cn-beijing"):
        made = oss.s3_options("oss://general/x", keys={}, endpoint="", region=region)
        assert made["endpoint_url"] == "https://oss-cn-beijing.aliyuncs.com"
        assert made["client_kwargs"] == {"region_name": "cn-beijing"}


def test_an_oss_address_without_an_endpoint_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OSS_ENDPOINT", raising=False)
    with pytest.raises(ConfigurationError, match="oss://elsewhere/sets: .*in which region") as raised:
        Opener(cache=tmp_path).open(Source(uri="oss://elsewhere/sets"))
    assert "oss-cn-hangzhou.aliyuncs.com" in raised.value.hint


@pytest.mark.parametrize("endpoint", ["ftp://oss-cn-hangzhou.aliyuncs.com", "https://", "a:port", "host/bucket"])
def test_what_is_no_endpoint_of_oss_is_named(endpoint: str) -> None:
    with pytest.raises(ConfigurationError, match="oss://general/x: .* is no endpoint of OSS"):
        oss.s3_options("oss://general/x", keys={}, endpoint=endpoint, region="")


def test_half_of_the_keys_of_oss_are_named(tmp_path: Path) -> None:
    opener = oss_opener(tmp_path, endpoint="http://127.0.0.1:9")
    (tmp_path / "secrets/store/OSS_ACCESS_KEY_SECRET").unlink()
    with pytest.raises(ConfigurationError, match="OSS_ACCESS_KEY_ID without OSS_ACCESS_KEY_SECRET"):
        opener.open(LINES)
    (tmp_path / "secrets/store/OSS_ACCESS_KEY_ID").rename(tmp_path / "secrets/store/AWS_ACCESS_KEY_ID")
    with pytest.raises(ConfigurationError, match="its secret store has no OSS_ACCESS_KEY_ID"):
        opener.open(LINES)


def test_without_its_package_a_store_says_what_to_install(tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['s3fs'] = None\n"
        "from pathlib import Path; from ocr_finetune_api.spec import Source\n"
        "from ocr_finetune_api.exit_codes import ConfigurationError\n"
        "from ocr_finetune_trainer.data.sources import Opener\n"
        "try: Opener(cache=Path(sys.argv[1])).open(Source(uri='oss://elsewhere/sets'))\n"
        "except ConfigurationError as error: print(error, '|', error.hint)"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    environment = {**os.environ, "OSS_ENDPOINT": "http://127.0.0.1:1"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.startswith("oss://elsewhere/sets: reading oss:// needs the package s3fs")
    assert "| pip install s3fs" in done.stdout
