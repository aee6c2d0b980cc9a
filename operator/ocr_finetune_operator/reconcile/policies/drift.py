"""What may change when: a run works from the spec that was accepted, and from what may have changed since."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ocr_finetune_api.conditions import Phase
from ocr_finetune_api.plan import Stage, content_hash
from ocr_finetune_api.spec import OCRFineTuneSpec
from ocr_finetune_api.status import OCRFineTuneStatus, StageState
from ocr_finetune_operator.profiles import Profile

_FIXED = ("profile", "model", "dataset", "workspace", "credentials")
_MOVABLE = ("distributed", "queue", "pods")
_JUDGED = {"evaluation": Stage.EVALUATE, "export": Stage.EXPORT}


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """The spec that a run was accepted with.

    Attributes:
        spec: As the user wrote it.
        profile: The administrator's defaults as they were then.
    """

    spec: OCRFineTuneSpec
    profile: Profile | None = None

    def document(self) -> dict[str, Any]:
        """As a JSON document. The policy is not part of it: it may change at any time."""
        spec = self.spec.model_dump(mode="json", by_alias=True)
        del spec["policy"]
        return {"spec": spec, "profile": self.profile.model_dump(mode="json", by_alias=True) if self.profile else None}

    @property
    def hash(self) -> str:
        """Identifies it."""
        return content_hash(self.document())

    @classmethod
    def read(cls, document: Any) -> Accepted:
        """Takes a document apart again.

        Raises:
            ValueError: It is none.
        """
        if not isinstance(document, dict):
            msg = "no document of an accepted spec"
            raise ValueError(msg)  # noqa: TRY004 - a document of the wrong form is a wrong value
        profile = document.get("profile")
        return cls(
            spec=OCRFineTuneSpec.model_validate(document.get("spec")),
            profile=Profile.model_validate(profile) if profile else None,
        )


@dataclass(frozen=True, kw_only=True)
class Effective:
    """What a run works from.

    Attributes:
        accepted: With what may have changed taken over.
        drift: Fields that differ although they may not.
    """

    accepted: Accepted
    drift: tuple[str, ...]


def effective(accepted: Accepted, live: OCRFineTuneSpec, status: OCRFineTuneStatus) -> Effective:
    """Takes over what may have changed, and names the rest."""
    old, new = accepted.spec, live
    taken: dict[str, Any] = {"policy": new.policy}
    drift: list[str] = []
    at_rest = not status.attempts or bool(status.attempts[-1].ended_at)
    may_move = status.phase in (Phase.PENDING, Phase.SUSPENDED) and at_rest
    for part in _MOVABLE:
        if may_move:
            taken[part] = getattr(new, part)
        else:
            drift += _differences(getattr(old, part), getattr(new, part), part)
    for part, stage in _JUDGED.items():
        if status.stage(stage).state is StageState.PENDING:
            taken[part] = getattr(new, part)
        else:
            drift += _differences(getattr(old, part), getattr(new, part), part)
    for part in _FIXED:
        drift += _differences(getattr(old, part), getattr(new, part), part)
    epochs = _epochs(old, new, status)
    taken["training"] = old.training.model_copy(update={"epochs": epochs})
    drift += _differences(taken["training"], new.training, "training")
    return Effective(
        accepted=Accepted(spec=old.model_copy(update=taken), profile=accepted.profile), drift=tuple(sorted(drift))
    )


def _epochs(old: OCRFineTuneSpec, new: OCRFineTuneSpec, status: OCRFineTuneStatus) -> Any:
    before, after = old.training.epochs, new.training.epochs
    may_rise = status.stage(Stage.TRAIN).state in (StageState.PENDING, StageState.RUNNING)
    if may_rise and isinstance(before, int) and isinstance(after, int) and after > before:
        return after
    return before


def _differences(old: Any, new: Any, path: str) -> list[str]:
    if old == new:
        return []
    return list(_walk(_plain(old), _plain(new), path))


def _plain(value: Any) -> Any:
    return value.model_dump(mode="json", by_alias=True) if hasattr(value, "model_dump") else value


def _walk(old: Any, new: Any, path: str) -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in {**old, **new}:
            yield from _walk(old.get(key), new.get(key), f"{path}.{key}")
    elif old != new:
        yield f"spec.{path}"
