"""Training that goes wrong is noticed, and what does not go wrong is left alone."""

import math

from ocr_finetune_trainer.training.guards import Guard, Limits, Verdict
from ocr_finetune_trainer.training.scaling import LossScale

LIMITS = Limits(unusable=3, within=10, window=5, rise=3.0)


def watch(guard, losses, *, finite=True, start=0):
    return [guard.watch(step=start + i, loss=loss, finite=finite, samples=[i]) for i, loss in enumerate(losses)]


def test_a_loss_that_falls_and_jumps_now_and_then_is_left_alone():
    losses = [10 / (1 + step / 10) + (20 if step % 17 == 5 else 0) for step in range(200)]
    assert set(watch(Guard(limits=Limits()), losses)) == {Verdict.GO_ON}


def test_a_few_unusable_steps_are_skipped():
    guard = Guard(limits=LIMITS)
    assert watch(guard, [math.nan, math.inf], finite=False) == [Verdict.GO_ON] * 2
    assert watch(guard, [math.nan], start=20) == [Verdict.GO_ON], "the first ones are long past"


def test_too_many_unusable_steps_go_back_and_name_their_samples():
    guard = Guard(limits=LIMITS)
    assert watch(guard, [math.nan] * 3)[-1] is Verdict.GO_BACK
    assert "3 of the last 10 steps" in guard.reason
    assert list(guard.suspects) == [0, 1, 2]


def test_a_loss_that_runs_away_goes_back():
    guard = Guard(limits=LIMITS)
    verdicts = watch(guard, [5.0] * 5 + [1.0] * 10 + [20.0] * 6)
    assert Verdict.GO_BACK in verdicts
    assert "over 3 times its lowest" in guard.reason


def test_a_loss_below_where_it_began_has_not_run_away():
    assert set(watch(Guard(limits=LIMITS), [5.0] * 5 + [0.1] * 10 + [1.0] * 10)) == {Verdict.GO_ON}


def test_loss_scaling_halves_after_an_overflow_and_doubles_after_a_while():
    scale = LossScale(enabled=True)
    first = scale.value
    scale.update(finite=False)
    assert scale.value == first / 2
    for _ in range(2000):
        scale.update(finite=True)
    assert scale.value == first


def test_without_loss_scaling_nothing_is_scaled():
    scale = LossScale(enabled=False)
    scale.update(finite=False)
    assert scale.value == scale.value_before == 1.0
