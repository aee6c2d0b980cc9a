"""What counts as the same model."""

from __future__ import annotations

import pytest

from ocr_finetune_trainer.export.checks import FormatCheck, Measured, allowed_differences, compare, problems_of


class Texts:
    metric = "accuracy"

    def same(self, first, second):
        return first == second


def measured(texts, accuracy):
    return Measured(metrics={"accuracy": accuracy}, outputs=texts, seconds=2.0)


def check(different, samples, drop=0.0):
    examples = tuple((i, "a", "b") for i in range(different))
    return FormatCheck(
        name="onnx", metrics={"accuracy": 0.9}, drop=drop, different=different, samples=samples, examples=examples,
        pictures_per_second=1.0, bytes=1,
    )  # fmt: skip


def test_a_format_is_compared_sample_by_sample():
    found = compare("onnx", measured(["a", "b", "x"], 0.6), measured(["a", "b", "c"], 0.9), checker=Texts(), size=7)

    assert (found.different, found.samples, found.bytes) == (1, 3, 7)
    assert found.examples == ((2, "c", "x"),)
    assert found.drop == pytest.approx(0.3)
    assert found.pictures_per_second == 1.5


@pytest.mark.parametrize(
    ("different", "samples", "passes"),
    [(0, 50, True), (1, 50, False), (1, 500, True), (2, 500, False), (5, 5000, True), (6, 5000, False)],
)
def test_rounding_may_turn_one_text_in_a_thousand(different, samples, passes):
    problems = problems_of(check(different, samples), metric="accuracy", max_drop=0.01)

    assert (not problems) == passes
    assert different <= allowed_differences(samples) or "'a' became 'b'" in problems[0]


def test_a_worse_metric_is_a_problem_even_if_no_text_is_counted():
    (problem,) = problems_of(check(0, 500, drop=0.02), metric="accuracy", max_drop=0.01)

    assert "0.0200 worse" in problem
    assert not problems_of(check(0, 500, drop=0.01), metric="accuracy", max_drop=0.01)
