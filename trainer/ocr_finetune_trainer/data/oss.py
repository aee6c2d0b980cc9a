"""How Alibaba's OSS is opened: in the S3 protocol, which it speaks beside its own and for which every image has a package.

OSS asks for more than S3 does: the bucket in the host's name, bodies in one piece (newer clients cut them into chunks
with a checksum behind the last, unless they are told not to), and the region's own endpoint. Sources: "Compatibility
with Amazon S3", "Access OSS using an AWS SDK" and error 0017-00000804 in Alibaba's documentation; rclone's provider
`Alibaba`, which signs in the same way.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from ocr_finetune_api.exit_codes import ConfigurationError

__all__ = ["SECRET_KEYS", "s3_options"]

# Names that Alibaba's own tools read, in a secret or in the environment, and the options of fsspec they stand for.
SECRET_KEYS = {"OSS_ACCESS_KEY_ID": "key", "OSS_ACCESS_KEY_SECRET": "secret", "OSS_SESSION_TOKEN": "token"}
_EXAMPLE = "https://oss-cn-hangzhou.aliyuncs.com"
# The domains of acceleration serve all regions.
_REGIONAL = re.compile(r"(?:s3\.)?oss-(?!accelerate)(?P<region>[a-z0-9-]+?)(?:-internal)?\.aliyuncs\.com(?::\d+)?")
_SHARED = re.compile(r"(?:s3\.)?oss-[a-z0-9-]+\.aliyuncs\.com(?::\d+)?")
# Clients have to sign with one; Alibaba's examples take this where the endpoint says none.
_NO_REGION = "us-east-1"


def s3_options(uri: str, *, keys: Mapping[str, str], endpoint: str, region: str) -> dict[str, Any]:
    """What fsspec opens the file system `s3` with, so that it speaks to OSS.

    Args:
        uri: An address such as `oss://bucket/key`.
        keys: Values by the names of `SECRET_KEYS`. Without any, only what everybody may read can be read.
        endpoint: As people write it: with or without a scheme, public or `-internal`, or a bucket's own domain; empty:
            the public one of `region`.
        region: Such as `cn-hangzhou`; empty: the endpoint's.

    Returns:
        Options of `s3fs`.

    Raises:
        ConfigurationError: Nothing says where the bucket is, or half of the keys are missing.
    """
    region = region.removeprefix("oss-")
    if not endpoint and not region:
        raise ConfigurationError(
            f"{uri}: an oss:// address does not say in which region its bucket is",
            hint=f"give spec.credentials with this prefix and an endpoint such as {_EXAMPLE}, or set OSS_ENDPOINT",
        )
    scheme, place = _place(uri, endpoint or f"oss-{region}.aliyuncs.com")
    regional = _REGIONAL.fullmatch(place)
    return {
        **_login(uri, keys),
        "endpoint_url": f"{scheme}://{place}",
        "client_kwargs": {"region_name": region or (regional["region"] if regional else _NO_REGION)},
        "config_kwargs": {
            # Names below an IP address or localhost lead nowhere; OSS itself is at neither.
            "s3": {"addressing_style": "path" if _is_bare(place) else "virtual"},
            "request_checksum_calculation": "when_required",
            "response_checksum_validation": "when_required",
        },
    }


def _login(uri: str, keys: Mapping[str, str]) -> dict[str, Any]:
    found = {option: keys[name] for name, option in SECRET_KEYS.items() if keys.get(name)}
    for name, other in (("KEY_ID", "KEY_SECRET"), ("KEY_SECRET", "KEY_ID")):
        if keys.get(f"OSS_ACCESS_{name}") and not keys.get(f"OSS_ACCESS_{other}"):
            raise ConfigurationError(
                f"{uri}: there is OSS_ACCESS_{name} without OSS_ACCESS_{other}", hint="give both in one place"
            )
    # Otherwise the client would look for keys of Amazon's, in places that have nothing to do with OSS.
    return found if "key" in found else {"anon": True}


def _place(uri: str, endpoint: str) -> tuple[str, str]:
    """Scheme, and host with port, of an endpoint; the bucket in front, as consoles show it, is taken off."""
    try:
        parts = urlsplit(endpoint if "://" in endpoint else f"https://{endpoint}")
        fits = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # no port, or half an IPv6 address
        fits = False
    if not fits or parts.path.strip("/") or parts.query or parts.fragment or parts.username is not None:
        raise ConfigurationError(f"{uri}: {endpoint} is no endpoint of OSS", hint=f"give one such as {_EXAMPLE}")
    place = parts.netloc.lower()
    without = place.removeprefix(f"{urlsplit(uri).netloc}.")
    return parts.scheme, without if _SHARED.fullmatch(without) else place


def _is_bare(place: str) -> bool:
    host = urlsplit(f"//{place}").hostname
    try:
        ipaddress.ip_address(host or "")
    except ValueError:
        return host == "localhost"
    return True
