"""The run configuration: the one file that tells a trainer process what to do.

The operator writes it into a ConfigMap, the local engine into the run's folder. The trainer reads the current schema
version and the one before it, so operator and trainer image can be upgraded one after the other.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError

from ocr_finetune_api.exit_codes import ConfigurationError
from ocr_finetune_api.spec import ApiModel, OCRFineTuneSpec

SCHEMA_VERSION = 1


class RunIdentity(ApiModel):
    """Which run this is."""

    name: str
    uid: str
    namespace: str = ""


class Rendezvous(ApiModel):
    """Where the ranks of a gang meet.

    Rank 0 serves at its own address and `port`; the others reach it as `host`. The ports above it are for the launcher.
    """

    host: str = "127.0.0.1"
    port: int = 29500
    timeout_seconds: int = 600


class RunConfig(ApiModel):
    """What a stage needs to know. It holds no secrets."""

    schema_version: int = Field(SCHEMA_VERSION, ge=1)
    run: RunIdentity
    spec: OCRFineTuneSpec
    attempt: int = Field(1, ge=1)
    nodes: int = Field(1, ge=1)
    devices_per_node: int = Field(1, ge=1)
    device: Literal["auto", "gpu", "cpu"] = "auto"
    rendezvous: Rendezvous = Field(default_factory=Rendezvous)
    metrics_port: int = Field(9464, ge=0, le=65535, description="0: any free port")
    grace_period_seconds: int = 120
    stall_timeout_seconds: int = 1800

    def to_yaml(self) -> str:
        """The file's text."""
        return yaml.safe_dump(self.model_dump(mode="json", by_alias=True), sort_keys=False, allow_unicode=True)


def read(path: Path) -> RunConfig:
    """Reads a run configuration.

    Raises:
        ConfigurationError: It is missing, broken, or of a version this program does not know.
    """
    try:
        document: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{path}: is not YAML: {error}") from error
    version = document.get("schemaVersion") if isinstance(document, dict) else None
    if version not in (SCHEMA_VERSION, SCHEMA_VERSION - 1):
        raise ConfigurationError(
            f"{path}: schemaVersion {version!r} is not known here; this trainer reads {SCHEMA_VERSION}",
            hint="use a trainer image of the operator's version or the one after it",
        )
    try:
        return RunConfig.model_validate(document)
    except ValidationError as error:
        raise ConfigurationError(*(f"{path}: {e['loc']}: {e['msg']}" for e in error.errors())) from error
