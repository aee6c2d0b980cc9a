"""Profiles: defaults that an administrator defines for many runs (image, pods, queue, environment)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError

from ocr_finetune_api.exit_codes import ConfigurationError
from ocr_finetune_api.spec import ApiModel, DistributedSpec, OCRFineTuneSpec, PodsSpec, PolicySpec, QueueSpec

DEFAULT = "default"


class Profile(ApiModel):
    """Defaults for the runs that name the profile.

    Attributes:
        description: For people.
        pods: As `spec.pods`.
        queue: As `spec.queue`.
        distributed: As `spec.distributed`; the shape of the nodes, not how many.
        policy: As `spec.policy`.
        env: Environment of all stages, such as the address of a mirror of weights.
    """

    description: str = ""
    pods: dict[str, Any] = Field(default_factory=dict)
    queue: dict[str, Any] = Field(default_factory=dict)
    distributed: dict[str, Any] = Field(default_factory=dict)
    policy: dict[str, Any] = Field(default_factory=dict)
    env: dict[str, str] = Field(default_factory=dict)


_MODELS: Mapping[str, type[ApiModel]] = {
    "pods": PodsSpec,
    "queue": QueueSpec,
    "distributed": DistributedSpec,
    "policy": PolicySpec,
}


def load(path: str) -> dict[str, Profile]:
    """Reads the profiles of a file, a mapping from names to profiles.

    Raises:
        ConfigurationError: With every mistake in it.
    """
    if not path:
        return {}
    try:
        document = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
    except (OSError, yaml.YAMLError) as error:
        raise ConfigurationError(f"{path}: cannot be read: {error}") from error
    if not isinstance(document, dict):
        raise ConfigurationError(f"{path}: should map names to profiles")
    found: dict[str, Profile] = {}
    problems: list[str] = []
    for name, values in document.items():
        try:
            profile = Profile.model_validate(values or {})
        except ValidationError as error:
            problems += _problems(error, f"{path}: {name}")
            continue
        for part, model in _MODELS.items():
            try:
                model.model_validate(getattr(profile, part))
            except ValidationError as error:
                problems += _problems(error, f"{path}: {name}.{part}")
        found[str(name)] = profile
    if problems:
        raise ConfigurationError(*problems)
    return found


def _problems(error: ValidationError, where: str) -> list[str]:
    return [f"{where}.{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()]


def apply(spec: OCRFineTuneSpec, profile: Profile | None) -> OCRFineTuneSpec:
    """The spec with a profile's values where the spec has only defaults: what a run says itself wins."""
    if profile is None:
        return spec
    values = spec.model_dump(mode="json", by_alias=True)
    for part, model in _MODELS.items():
        own = values[part]
        defaults = model.model_validate({}).model_dump(mode="json", by_alias=True)
        for key, value in getattr(profile, part).items():
            if own.get(key) == defaults.get(key):
                own[key] = value
    taken = {entry.get("name") for entry in values["pods"]["env"]}
    values["pods"]["env"] += [{"name": k, "value": v} for k, v in profile.env.items() if k not in taken]
    return OCRFineTuneSpec.model_validate(values)
