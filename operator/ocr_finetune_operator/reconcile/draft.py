"""The status that a decision is about to write, and what goes with it: actions, events, when to look again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from ocr_finetune_api.conditions import Phase
from ocr_finetune_api.exit_codes import FailureClass
from ocr_finetune_api.plan import Stage
from ocr_finetune_api.status import (
    MAX_ATTEMPTS,
    Attempt,
    Condition,
    OCRFineTuneStatus,
    Outcome,
    StageState,
    StageStatus,
)
from ocr_finetune_operator.reconcile.views import Manifest, PodView, iso, timestamp

MAX_MESSAGE = 1024


@dataclass(frozen=True, kw_only=True)
class Create:
    """Creates an object once; one that is there already must be ours.

    Attributes:
        apply: Puts right what others changed in it.
        repair: It should be there; looks whether it still is.
    """

    manifest: Manifest
    apply: bool = False
    repair: bool = False

    @property
    def kind(self) -> str:
        """Of what kind it is."""
        return str(self.manifest["kind"])

    @property
    def name(self) -> str:
        """Its name."""
        return str(self.manifest["metadata"]["name"])


@dataclass(frozen=True, kw_only=True)
class Delete:
    """Deletes an object if it is still the one that was meant."""

    kind: str
    name: str
    uid: str = ""
    propagation: Literal["Foreground", "Background", ""] = ""
    force: bool = False


Action = Create | Delete


@dataclass(frozen=True, kw_only=True)
class Note:
    """A Kubernetes Event."""

    reason: str
    message: str
    warning: bool = False


@dataclass(frozen=True, kw_only=True)
class Ended:
    """An attempt that has just ended, for the metrics."""

    stage: Stage
    outcome: Outcome
    failure_class: FailureClass | None
    seconds: float | None = None


@dataclass(kw_only=True)
class Draft:
    """What one decision changes.

    Attributes:
        status: The status as it will be.
        before: What is done before the status is written.
        after: What is done after it, and only if that succeeded.
        notes: Events to send after it.
        ended: Attempts that ended.
        look_again: Seconds until the next look; None if an event will bring it.
        cosmetic: Whether the change only informs people: it may wait, nothing depends on it.
    """

    status: OCRFineTuneStatus
    now: float
    generation: int
    before: list[Action] = field(default_factory=list)
    after: list[Action] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    ended: list[Ended] = field(default_factory=list)
    look_again: float | None = None
    cosmetic: bool = True

    def set(self, **fields: Any) -> None:
        """Changes fields of the status."""
        self.status = self.status.model_copy(update=fields)

    def decisive(self) -> None:
        """Says that something depends on this change."""
        self.cosmetic = False

    def within(self, seconds: float) -> None:
        """Asks for another look in so many seconds at the latest."""
        seconds = max(seconds, 0.0)
        self.look_again = seconds if self.look_again is None else min(self.look_again, seconds)

    def phase(self, phase: Phase) -> None:
        """Sets the phase."""
        if self.status.phase is not phase:
            self.set(phase=phase)

    def note(self, reason: str, message: str, *, warning: bool = False) -> None:
        """Adds an event."""
        self.notes.append(Note(reason=reason, message=message[:MAX_MESSAGE], warning=warning))

    def also(self, reason: str, message: str) -> None:
        """Adds to the event of what led to this, or makes one of its own: each costs a request."""
        if self.notes and not self.notes[-1].warning and self.notes[-1].reason == "StageSucceeded":
            last = self.notes.pop()
            self.note(last.reason, f"{last.message}; {message} starts")
        else:
            self.note(reason, message)

    def condition(self, kind: str, status: bool | None, reason: str, message: str = "") -> bool:
        """Sets a condition; the time of its transition changes only with its status.

        Returns:
            Whether its status or reason changed.
        """
        word = "Unknown" if status is None else str(status)
        message = message[:MAX_MESSAGE]
        old = self.status.condition(kind)
        since = old.last_transition_time if old and old.status == word else iso(self.now)
        new = Condition(
            type=kind,
            status=word,
            reason=reason,
            message=message,
            last_transition_time=since,
            observed_generation=self.generation,
        )
        if old is not None and (old.status, old.reason, old.message) == (word, reason, message):
            return False
        others = [one for one in self.status.conditions if one.type != kind]
        position = next((i for i, one in enumerate(self.status.conditions) if one.type == kind), len(others))
        self.set(conditions=[*others[:position], new, *others[position:]])
        return old is None or (old.status, old.reason) != (word, reason)

    def stage(self, stage: Stage, **fields: Any) -> None:
        """Changes what is known of a stage."""
        stages = [
            self.status.stage(name).model_copy(update=fields if name is stage else {})
            for name in Stage
            if name is stage or any(known.name is name for known in self.status.stages)
        ]
        self.set(stages=stages)

    def attempt(self, **fields: Any) -> Attempt:
        """Changes the newest attempt."""
        *earlier, newest = self.status.attempts
        changed = newest.model_copy(update=fields)
        self.set(attempts=[*earlier, changed])
        return changed

    def add_attempt(self, attempt: Attempt) -> None:
        """Adds an attempt; the oldest are dropped."""
        self.set(attempts=[*self.status.attempts, attempt][-MAX_ATTEMPTS:])

    def end_attempt(
        self,
        outcome: Outcome,
        *,
        reason: str,
        failure_class: FailureClass | None = None,
        node: str = "",
    ) -> None:
        """Ends the newest attempt."""
        attempt = self.status.attempts[-1]
        active = attempt.active_seconds
        if attempt.active_since:
            active += int(self.now - (timestamp(attempt.active_since) or self.now))
        self.attempt(
            outcome=outcome,
            reason=reason,
            failure_class=failure_class,
            node=node,
            ended_at=iso(self.now),
            active_seconds=active,
            active_since="",
            admitted_since="",
            lost_steps=max(attempt.last_step - attempt.checkpoint_step, 0) if outcome is not Outcome.SUCCEEDED else 0,
        )
        self.set(active_seconds=self.status.active_seconds + active)
        started = timestamp(self.status.stage(attempt.stage).started_at)
        self.ended.append(
            Ended(
                stage=attempt.stage,
                outcome=outcome,
                failure_class=failure_class,
                seconds=self.now - started if outcome is Outcome.SUCCEEDED and started else None,
            )
        )
        self.decisive()

    def give_up(self, pods: Iterable[PodView]) -> None:
        """Deletes pods by force: their node is dead and will not say that they ended."""
        self.after += [Delete(kind="Pod", name=one.name, uid=one.uid, force=True) for one in pods]

    @property
    def repairs(self) -> bool:
        """Whether it looks after what should be there."""
        return any(isinstance(one, Create) and one.repair for one in self.after)

    @property
    def active(self) -> Attempt | None:
        """The attempt that goes on."""
        newest = self.status.attempts[-1] if self.status.attempts else None
        return newest if newest is not None and not newest.ended_at else None


def stage_status(status: OCRFineTuneStatus, stage: Stage, state: StageState) -> bool:
    """Whether a stage is in a state."""
    known: StageStatus = status.stage(stage)
    return known.state is state
