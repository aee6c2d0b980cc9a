"""An export in a real OCI registry: whole or not at all, also where the network breaks."""

from __future__ import annotations

import base64
import hashlib
import json
import os

import pytest
import requests
from breaking_proxy import breaking
from oci_registry import running
from trained_run import context_for, spec_of

from ocr_finetune_api.exit_codes import ConfigurationError, OutputError, StorageError
from ocr_finetune_api.plan import Stage
from ocr_finetune_api.spec import CredentialSpec
from ocr_finetune_trainer.export.archive import ATTEMPTS, pack
from ocr_finetune_trainer.export.registry import login_for, push_to_registry
from ocr_finetune_trainer.stages import export
from ocr_finetune_trainer.stages.prepare import SECRETS

MANIFEST = "application/vnd.oci.image.manifest.v1+json"


@pytest.fixture(scope="module")
def registry():
    with running() as address:
        yield address


@pytest.fixture
def archive(tmp_path):
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "model").write_bytes(os.urandom(300_000))
    path = tmp_path / "plates.tar.gz"
    pack(tmp_path / "export", path, name="plates")
    return path


def pushed(archive, destination, **options):
    return push_to_registry(archive, destination, annotations={"metric": "0.99"}, **options)


def manifest_of(registry, name, reference):
    return requests.get(f"http://{registry}/v2/{name}/manifests/{reference}", headers={"Accept": MANIFEST}, timeout=9)


def test_what_is_pulled_is_the_archive(registry, archive):
    address = pushed(archive, f"oci://{registry}/models/plates:v1")

    answer = manifest_of(registry, "models/plates", "v1")
    manifest = answer.json()
    assert manifest["artifactType"] == "application/vnd.ocrfinetune.model.v1"
    assert manifest["annotations"] == {"metric": "0.99"}
    (layer,) = manifest["layers"]
    assert layer["annotations"] == {"org.opencontainers.image.title": "plates.tar.gz"}
    blob = requests.get(f"http://{registry}/v2/models/plates/blobs/{layer['digest']}", timeout=9)
    assert blob.content == archive.read_bytes()
    assert address == f"oci://{registry}/models/plates@sha256:{hashlib.sha256(answer.content).hexdigest()}"
    config = requests.get(f"http://{registry}/v2/models/plates/blobs/{manifest['config']['digest']}", timeout=9)
    assert config.content == b"{}"


def test_the_stage_delivers_to_where_the_manifest_says(registry, archive, tmp_path, monkeypatch):
    secrets = tmp_path / "secrets"
    (secrets / "registry").mkdir(parents=True)
    (secrets / "registry" / "username").write_text("ann")
    (secrets / "registry" / "password").write_text("secret")
    monkeypatch.setenv(SECRETS, str(secrets))
    spec = spec_of(
        export={"destination": f"oci://{registry}/models/digits:v2"},
        credentials=[{"prefix": f"oci://{registry}", "secretName": "registry"}],
    )

    uri = export._deliver(context_for(tmp_path, Stage.EXPORT, spec=spec), archive)

    manifest = manifest_of(registry, "models/digits", "v2").json()
    assert uri.startswith(f"oci://{registry}/models/digits@sha256:")
    assert manifest["annotations"]["org.opencontainers.image.title"] == "digits"


def test_a_network_that_breaks_half_way_is_tried_again_and_nobody_sees_half(registry, archive):
    waited, seen = [], []

    def sleep(seconds):
        waited.append(seconds)
        seen.append(manifest_of(registry, "broken/plates", "latest").status_code)

    with breaking(registry) as network:
        network.breaks, network.after = 3, 100_000
        pushed(archive, f"oci://{network.address}/broken/plates", sleep=sleep)

    assert network.cut == 3
    assert waited == [1.0, 2.0, 4.0]
    assert seen == [404, 404, 404]
    assert manifest_of(registry, "broken/plates", "latest").status_code == 200


def test_a_network_that_never_works_is_given_up_and_nothing_is_seen(registry, archive):
    with breaking(registry) as network:
        network.breaks, network.after = 10**6, 100_000
        with pytest.raises(StorageError, match=f"gave up after {ATTEMPTS} attempts"):
            pushed(archive, f"oci://{network.address}/never/plates:v1", sleep=lambda _: None)

    assert manifest_of(registry, "never/plates", "v1").status_code == 404


def test_a_registry_that_refuses_is_said_at_once(archive):
    import threading
    from http.server import BaseHTTPRequestHandler, HTTPServer

    class Refusing(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_response(403)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Refusing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with pytest.raises(OutputError, match="the registry wants a login"):
            pushed(archive, f"oci://127.0.0.1:{server.server_port}/models/plates", sleep=pytest.fail)
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("address", ["oci://host", "oci://host/Upper:v1", "oci://host/name:", "oci://user@host/name"])
def test_what_is_no_address_is_said_to_be_none(archive, address):
    with pytest.raises(ConfigurationError, match="is no address in a registry"):
        pushed(archive, address)


def test_the_login_comes_from_the_secret_of_the_address(tmp_path):
    plain, docker = tmp_path / "plain", tmp_path / "docker"
    plain.mkdir()
    docker.mkdir()
    (plain / "username").write_text("ann\n")
    (plain / "password").write_text("secret\n")
    auth = base64.b64encode(b"ben:pass:word").decode()
    (docker / ".dockerconfigjson").write_text(json.dumps({"auths": {"r.example": {"auth": auth}}}))

    def login(secret, host="r.example"):
        return login_for(CredentialSpec(prefix="oci://", secret_name=secret), secrets=tmp_path, host=host)

    assert login("plain") == ("ann", "secret")
    assert login("docker") == ("ben", "pass:word")
    assert login("none") is None
    with pytest.raises(ConfigurationError, match="has no login for other.example"):
        login("docker", "other.example")
