"""Settings of the operator process: environment variables `OCRFT_OPERATOR_*`, overridden by flags of the same names."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from ocr_finetune_api.exit_codes import ConfigurationError
from ocr_finetune_operator import constants

PREFIX = "OCRFT_OPERATOR_"


class Settings(BaseModel):
    """What an installation decides. Durations in seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    namespaces: tuple[str, ...] = Field((), description="Namespaces to work in, by commas; empty: all of them.")
    own_namespace: str = Field("default", description="Namespace of the operator itself, for its Lease.")
    trainer_image: str = Field("ocr-finetune-trainer:0.1.0", description="Trainer image of runs that name none.")
    profiles: str = Field("", description="File with the profiles; empty: there are none.")
    port: int = Field(8080, ge=0, le=65535, description="Port of /healthz, /readyz and /metrics.")
    log_format: Literal["json", "text"] = Field("json", description="json or text.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="debug, info, warning, error.")
    leader_election: bool = Field(default=False, description="Whether replicas agree on one by a Lease.")
    lease_name: str = Field("ocr-finetune-operator", description="Name of the Lease.")
    lease_duration: float = Field(10.0, gt=0, description="After which silence of the leader another may take over.")
    lease_renew: float = Field(2.0, gt=0, description="How often the leader renews, and the others look.")
    workers: int = Field(16, ge=1, le=256, description="Runs that are worked on at the same time.")
    status_writes_per_second: float = Field(20.0, gt=0, description="Status writes of all runs together.")
    progress_interval: float = Field(30.0, gt=0, description="How often the progress of a run is pulled and written.")
    progress_timeout: float = Field(2.0, gt=0, description="How long one pull may take.")
    relist_interval: float = Field(600.0, gt=0, description="How often every run is looked at without a reason.")
    recheck_interval: float = Field(60.0, gt=0, description="How often a run that was not accepted is looked at.")
    request_timeout: float = Field(30.0, gt=0, description="How long one API request may take.")
    backoff_base: float = Field(
        30.0,
        ge=0,
        description="Wait before the first retry; doubles with each failure. A third after one that saved a checkpoint.",
    )
    backoff_limit: float = Field(600.0, ge=0, description="Longest wait before a retry.")
    check_nodes: bool = Field(
        default=True, description="Refuse what no present node can hold; turn off where nodes are made on demand."
    )
    network_policy: bool = Field(default=True, description="Whether each run's pods get a NetworkPolicy.")
    service_account: str = Field("", description="Service account of the trainer's pods; empty: the default one.")
    image_pull_secrets: tuple[str, ...] = Field((), description="Pull secrets of the trainer's image, by commas.")
    run_as_user: int | None = Field(None, description="User id of the trainer's pods; empty: the image's own.")
    fs_group: int | None = Field(65532, description="Group that owns volumes; empty: the volume's own.")
    metrics_port: int = Field(constants.METRICS_PORT, ge=1, le=65535, description="Port of the trainer's metrics.")
    rendezvous_port: int = Field(constants.RENDEZVOUS_PORT, ge=1, le=65535, description="Port of the rendezvous.")
    max_run_metrics: int = Field(1000, ge=0, description="Runs with series of their own in /metrics; more are summed.")

    @field_validator("namespaces", "image_pull_secrets", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("run_as_user", "fs_group", mode="before")
    @classmethod
    def _empty(cls, value: Any) -> Any:
        return None if value == "" else value


def load(arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> Settings:
    """Reads the settings.

    Args:
        arguments: The command line, without the program.
        environment: The environment; that of the process if None.

    Raises:
        ConfigurationError: With every setting that is wrong.
    """
    environment = os.environ if environment is None else environment
    values: dict[str, Any] = {}
    if environment.get("POD_NAMESPACE"):
        values["own_namespace"] = environment["POD_NAMESPACE"]
    for name in Settings.model_fields:
        if (variable := PREFIX + name.upper()) in environment:
            values[name] = environment[variable]
    flags = vars(_parser().parse_args(arguments))
    values |= {name: value for name, value in flags.items() if value is not None}
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        raise ConfigurationError(
            *(f"--{str(item['loc'][0]).replace('_', '-')}: {item['msg']}" for item in error.errors()),
            hint="python -m ocr_finetune_operator --help lists all settings",
        ) from error
    if settings.profiles and not Path(settings.profiles).is_file():
        raise ConfigurationError(f"--profiles: there is no file {settings.profiles}")
    return settings


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ocr_finetune_operator",
        description="Runs OCRFineTune resources on Kubernetes.",
        epilog=f"Each setting is also read from the environment, as {PREFIX}<NAME>.",
    )
    for name, field in Settings.model_fields.items():
        default = "" if field.default in ((), None) else f" [{field.default}]"
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            metavar="VALUE",
            help=f"{field.description}{default}".replace("%", "%%"),
        )
    return parser
