"""Addresses of a manifest as a pod sees them: a claim is a mounted folder, a plain path lies in the workspace."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from dataclasses import dataclass

from ocr_finetune_api.manifest import rewrite_uris
from ocr_finetune_api.plan import Stage
from ocr_finetune_api.spec import OCRFineTuneSpec
from ocr_finetune_operator.constants import CLAIMS_FOLDER, WORKSPACE_FOLDER

_CLAIM = "pvc://"


@dataclass(frozen=True, kw_only=True)
class ClaimMount:
    """A claim with data, and whether the stage may write to it."""

    claim: str
    read_only: bool

    @property
    def folder(self) -> str:
        """Where it is mounted."""
        return f"{CLAIMS_FOLDER}/{self.claim}"


def in_pod(spec: OCRFineTuneSpec) -> OCRFineTuneSpec:
    """The spec with every address as the trainer can open it."""
    return rewrite_uris(spec, _rewrite)


def claims(spec: OCRFineTuneSpec, stage: Stage) -> tuple[ClaimMount, ...]:
    """The claims that a stage needs: what it reads in prepare and train, where it writes in export."""
    found: list[str] = []

    def note(uri: str) -> str:
        found.append(uri)
        return uri

    rewrite_uris(spec, note)
    target = spec.export.destination
    if stage is Stage.EXPORT:
        return tuple(ClaimMount(claim=name, read_only=False) for name in _names([target]))
    reads = [uri for uri in found if uri != target]
    return tuple(ClaimMount(claim=name, read_only=True) for name in _names(reads))


def all_claims(spec: OCRFineTuneSpec) -> tuple[str, ...]:
    """Every claim that the spec names, the workspace's aside."""
    names = [mount.claim for stage in (Stage.PREPARE, Stage.EXPORT) for mount in claims(spec, stage)]
    return tuple(dict.fromkeys(names))


def _rewrite(uri: str) -> str:
    if uri.startswith(_CLAIM):
        claim, _, path = uri.removeprefix(_CLAIM).partition("/")
        # A path of `..` must not lead out of the claim.
        inside = posixpath.normpath("/" + path).lstrip("/")
        return posixpath.join(CLAIMS_FOLDER, claim, inside).rstrip("/")
    if "://" in uri or uri.startswith("/"):
        return uri
    return posixpath.join(WORKSPACE_FOLDER, uri)


def _names(uris: Sequence[str]) -> list[str]:
    names = (uri.removeprefix(_CLAIM).partition("/")[0] for uri in uris if uri.startswith(_CLAIM))
    return list(dict.fromkeys(name for name in names if name))
