"""Whether the new model may pass: every condition of the gate and the guards, with its reason."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ocr_finetune_trainer.metrics.recognition import higher_is_better

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ocr_finetune_api.spec import GateSpec, GuardSpec
    from ocr_finetune_trainer.evaluation.statistics import Interval

__all__ = ["GateInput", "GuardInput", "Verdict", "judge"]


@dataclass(frozen=True, kw_only=True)
class GuardInput:
    """What was measured on one guard set.

    Attributes:
        spec: Its limit.
        new: The metric of the new model.
        base: The metric of the base model, None if there is none.
    """

    spec: GuardSpec
    new: float
    base: float | None


@dataclass(frozen=True, kw_only=True)
class GateInput:
    """What the gate decides on.

    Attributes:
        metric: Name of the metric.
        new: The new model's value with its interval.
        improvement: The paired difference to the base model (new less base), None without a base model.
        regressed: Part of the set that the base model read and the new one does not; None without a base model.
        sources: The new model's value by source.
        guards: The guard sets.
    """

    metric: str
    new: Interval
    improvement: Interval | None = None
    regressed: float | None = None
    sources: Mapping[str, float] = field(default_factory=dict)
    guards: Sequence[GuardInput] = ()


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the gate says.

    Attributes:
        failures: Why the model does not pass; empty if it does.
        notes: What a person should know although it passes.
    """

    failures: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether the model passes."""
        return not self.failures


def judge(gate: GateSpec, measured: GateInput) -> Verdict:
    """Decides.

    `min` and `maxRegression` are judged by the measured value, as people read them, `min` with `proven` by the worse end
    of its 95 % interval; `minImprovement` by the worse end of the paired interval, because a difference within the noise
    is no improvement.
    """
    failures: list[str] = []
    notes: list[str] = []
    _least(gate, measured, failures, notes)
    _improvement(gate, measured, failures, notes)
    if gate.max_regression is not None:
        if measured.regressed is None:
            notes.append("maxRegression is not judged: there is no base model to compare with")
        elif measured.regressed > gate.max_regression:
            failures.append(
                f"regression: the base model reads {measured.regressed:.2%} of the test set that the new one does not; "
                f"at most {gate.max_regression:.2%} is allowed"
            )
    for guard in measured.guards:
        _guard(measured.metric, guard, failures, notes)
    return Verdict(failures=tuple(failures), notes=tuple(notes))


def _least(gate: GateSpec, measured: GateInput, failures: list[str], notes: list[str]) -> None:
    if gate.min is None:
        return
    up = higher_is_better(measured.metric)
    word = "at least" if up else "at most"
    values = {"": measured.new.value} | (dict(measured.sources) if gate.per_source else {})
    for source, value in values.items():
        if value < gate.min if up else value > gate.min:
            where = f" on source {source}" if source else ""
            failures.append(f"{measured.metric} is {value:.4f}{where}; {word} {gate.min:g} is wanted")
    doubtful = measured.new.low < gate.min if up else measured.new.high > gate.min
    if not failures and doubtful and gate.proven:
        failures.append(
            f"{measured.metric} {measured.new.value:.4f} is not proven to reach {gate.min:g}: the 95 % interval is "
            f"{measured.new.low:.4f} to {measured.new.high:.4f}; more test samples make it narrower"
        )
    elif not failures and doubtful:
        notes.append(
            f"{measured.metric} {measured.new.value:.4f} passes the gate of {gate.min:g}, but with so few test samples "
            f"it may be luck: the 95 % interval is {measured.new.low:.4f} to {measured.new.high:.4f}"
        )


def _improvement(gate: GateSpec, measured: GateInput, failures: list[str], notes: list[str]) -> None:
    if gate.min_improvement is None:
        return
    gain = measured.improvement
    if gain is None:
        notes.append("minImprovement is not judged: there is no base model to compare with")
        return
    up = higher_is_better(measured.metric)
    value, worst = (gain.value, gain.low) if up else (-gain.value, -gain.high)
    if worst < gate.min_improvement:
        proven = "" if value < gate.min_improvement else " is not proven: it"
        failures.append(
            f"improvement of {measured.metric} by {value:+.4f}{proven} may be as little as {worst:+.4f} (95 % interval); "
            f"{gate.min_improvement:g} is wanted"
        )


def _guard(metric: str, guard: GuardInput, failures: list[str], notes: list[str]) -> None:
    if guard.base is None:
        notes.append(f"guard {guard.spec.name} is not judged: there is no base model to compare with")
        return
    drop = guard.base - guard.new if higher_is_better(metric) else guard.new - guard.base
    if drop > guard.spec.max_drop:
        failures.append(
            f"guard {guard.spec.name}: {metric} got worse by {drop:.4f} ({guard.base:.4f} → {guard.new:.4f}); "
            f"at most {guard.spec.max_drop:g} is allowed"
        )
