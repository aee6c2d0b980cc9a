"""An export in an OCI registry: `oci://registry.example/models/plates:v1`, through the client `oras`.

A registry shows an artefact when its manifest arrives, and that is sent last: nobody ever pulls half of one. What is
there already, after an interrupted attempt for example, is not sent again.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ocr_finetune_api.exit_codes import ConfigurationError, OutputError
from ocr_finetune_trainer.export.archive import with_retries
from ocr_finetune_trainer.export.oci import EMPTY, artefact_of

if TYPE_CHECKING:
    from ocr_finetune_api.spec import CredentialSpec

__all__ = ["Login", "login_for", "push_to_registry"]

SCHEME = "oci://"
_ADDRESS = re.compile(r"oci://(?P<host>[^/@]+)/(?P<name>[a-z0-9._/-]+?)(?::(?P<tag>[\w.-]{1,128}))?")
_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
_TIMEOUTS_SECONDS = (10, 300)
_REFUSED = {401: "wants a login", 403: "does not allow that", 404: "has no such place", 405: "takes no artefacts"}

Login = tuple[str, str]


def login_for(credential: CredentialSpec | None, *, secrets: Path | None, host: str) -> Login | None:
    """User and password for a registry, from a mounted secret; None where there is none.

    Args:
        credential: Which secret is for this address.
        secrets: The folder that holds a folder for each secret.
        host: The registry.

    Raises:
        ConfigurationError: The secret holds neither `username` and `password` nor a `.dockerconfigjson` with this host.
    """
    if credential is None or secrets is None or not (secrets / credential.secret_name).is_dir():
        return None
    folder = secrets / credential.secret_name
    if (folder / "username").is_file() and (folder / "password").is_file():
        user, password = ((folder / name).read_text(encoding="utf-8").strip() for name in ("username", "password"))
        return user, password
    try:
        known = json.loads((folder / ".dockerconfigjson").read_text(encoding="utf-8"))["auths"]
        user, _, password = base64.b64decode(known[host]["auth"], validate=True).decode().partition(":")
    except (OSError, KeyError, TypeError, ValueError, binascii.Error) as error:
        raise ConfigurationError(
            f"credentials: secret {credential.secret_name} has no login for {host}",
            hint="give username and password, or a .dockerconfigjson that names this registry",
        ) from error
    return user, password


def push_to_registry(
    archive: Path,
    destination: str,
    *,
    annotations: Mapping[str, str],
    login: Callable[[str], Login | None] = lambda _: None,
    plain_http: bool = False,
    sleep: Callable[[float], None] = time.sleep,
) -> str:
    """Pushes an archive as the only layer of an artefact.

    Args:
        archive: The packed export, .tar.gz.
        destination: `oci://HOST/NAME:TAG`; without a tag it is `latest`.
        annotations: What the manifest says about the model.
        login: User and password for a host; None takes what `docker login` or `oras login` has left.
        plain_http: Whether the registry speaks HTTP without TLS; one on this machine always may.
        sleep: Waits between attempts.

    Returns:
        The address with the manifest's digest, which nobody can replace.

    Raises:
        ConfigurationError: The address is none, or there is no `oras`.
        OutputError: The registry refuses.
        StorageError: It failed again and again.
    """
    parts = _ADDRESS.fullmatch(destination)
    if parts is None:
        raise ConfigurationError(
            f"export.destination: {destination} is no address in a registry",
            hint="write oci://registry.example/models/plates:v1, all but the tag in lower case",
        )
    host, name, tag = parts["host"], parts["name"], parts["tag"] or "latest"
    insecure = plain_http or host.rpartition(":")[0] in _LOOPBACK or host in _LOOPBACK
    try:
        from oras.auth import AuthenticationException
    except ImportError as error:
        raise ConfigurationError(
            "export.destination: oci:// needs the package oras", hint="pip install ocr-finetune[storage]"
        ) from error
    client = _client(host, insecure=insecure, login=login(host))
    artefact = artefact_of(archive, annotations=annotations)
    digest = ""

    def attempt() -> None:
        nonlocal digest
        try:
            digest = _push(client, f"{host}/{name}:{tag}", archive, artefact.manifest)
        except (ValueError, AuthenticationException) as error:
            if "uthentication" not in f"{type(error).__name__}{error}":
                raise
            raise _refusal(f"{host}/{name}:{tag}", 401, str(error)) from error

    with_retries(attempt, destination, sleep=sleep)
    return f"{SCHEME}{host}/{name}@{digest}" if digest else f"{SCHEME}{host}/{name}:{tag}"


def _client(host: str, *, insecure: bool, login: Login | None) -> Any:
    from oras.client import OrasClient
    from requests.adapters import HTTPAdapter

    class Patient(HTTPAdapter):
        """Waits for an answer, but not for ever."""

        def send(self, *args: Any, **options: Any) -> Any:
            return super().send(*args, **(options | {"timeout": options.get("timeout") or _TIMEOUTS_SECONDS}))

    client = OrasClient(hostname=host, insecure=insecure)
    # Its own attempts wait for minutes, and try refusals again, too.
    client.do_request = OrasClient.do_request.__wrapped__.__get__(client)
    for scheme in ("http://", "https://"):
        client.session.mount(scheme, Patient())
    if login is None:
        client.auth.load_configs(client.get_container(f"{host}/any"))
    else:
        client.auth.set_basic_auth(*login)
    return client


def _push(client: Any, target: str, archive: Path, manifest: Mapping[str, Any]) -> str:
    container = client.get_container(target)
    with tempfile.TemporaryDirectory(prefix="ocrft-oci-") as aside:
        empty = Path(aside) / "config.json"
        empty.write_bytes(EMPTY)
        for file, layer in ((archive, manifest["layers"][0]), (empty, manifest["config"])):
            if not client.blob_exists(layer, container):
                _check(client.put_upload(str(file), container, dict(layer)), target)
    answer = client.upload_manifest(dict(manifest), container)
    _check(answer, target)
    return str(answer.headers.get("Docker-Content-Digest", ""))


def _refusal(target: str, code: int, said: str) -> OutputError:
    return OutputError(
        f"export.destination: {target}: the registry {_REFUSED[code]} ({said})",
        hint="the export itself is kept; correct destination or credentials and run again",
    )


def _check(answer: Any, target: str) -> None:
    """Refusals end at once; everything else is worth another attempt."""
    if answer.status_code < 300:
        return
    said = f"{answer.status_code} {answer.reason}: {answer.text[:200].strip()}"
    if answer.status_code in _REFUSED:
        raise _refusal(target, answer.status_code, said)
    raise OSError(f"the registry answered {said}")
