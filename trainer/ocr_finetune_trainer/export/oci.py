"""An export as an OCI artefact: one file that registries take, with `oras cp --from-oci-layout` or `skopeo copy`.

The layout is that of the OCI image specification 1.1 (https://github.com/opencontainers/image-spec): an empty
configuration, and the archive as the only layer.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["EMPTY", "OCI_SUFFIX", "Artefact", "artefact_of", "write_oci"]

OCI_SUFFIX = ".oci.tar"
ARTIFACT_TYPE = "application/vnd.ocrfinetune.model.v1"
_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_EMPTY = "application/vnd.oci.empty.v1+json"
EMPTY = b"{}"


@dataclass(frozen=True, kw_only=True)
class Artefact:
    """An archive as an artefact.

    Attributes:
        manifest: Its manifest, JSON values.
        digest: SHA-256 of the archive, hexadecimal.
    """

    manifest: Mapping[str, Any]
    digest: str


def artefact_of(archive: Path, *, annotations: Mapping[str, str]) -> Artefact:
    """Describes an archive.

    Args:
        archive: The packed export, .tar.gz; it becomes the layer as it is.
        annotations: What the manifest says about the model.
    """
    with archive.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    layer = _descriptor(_LAYER, digest, archive.stat().st_size)
    manifest = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        "artifactType": ARTIFACT_TYPE,
        "config": _descriptor(_EMPTY, hashlib.sha256(EMPTY).hexdigest(), len(EMPTY)),
        "layers": [layer | {"annotations": {"org.opencontainers.image.title": archive.name}}],
        "annotations": dict(annotations),
    }
    return Artefact(manifest=manifest, digest=digest)


def write_oci(archive: Path, target: Path, *, annotations: Mapping[str, str], tag: str = "latest") -> None:
    """Writes an OCI image layout as a tar file.

    Args:
        archive: The packed export, .tar.gz; it becomes the layer as it is.
        target: The file to write.
        annotations: What the manifest says about the model.
        tag: The name in the layout's index.
    """
    artefact = artefact_of(archive, annotations=annotations)
    manifest = _json(artefact.manifest)
    digest = artefact.digest
    described = _descriptor(_MANIFEST, hashlib.sha256(manifest).hexdigest(), len(manifest))
    index = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [
            described | {"artifactType": ARTIFACT_TYPE, "annotations": {"org.opencontainers.image.ref.name": tag}}
        ],
    }
    aside = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
    try:
        with tarfile.open(aside, "w", format=tarfile.PAX_FORMAT) as layout:
            _add(layout, "oci-layout", _json({"imageLayoutVersion": "1.0.0"}))
            _add(layout, "index.json", _json(index))
            for blob in (EMPTY, manifest):
                _add(layout, f"blobs/sha256/{hashlib.sha256(blob).hexdigest()}", blob)
            info = tarfile.TarInfo(f"blobs/sha256/{digest}")
            info.size = archive.stat().st_size
            with archive.open("rb") as content:
                layout.addfile(info, content)
        aside.replace(target)
    finally:
        aside.unlink(missing_ok=True)


def _descriptor(media_type: str, digest: str, size: int) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": size}


def _json(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def _add(layout: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    layout.addfile(info, io.BytesIO(content))
