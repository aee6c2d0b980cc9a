"""Intervals, calibration, and where a model fails."""

from __future__ import annotations

import numpy as np
import pytest

from ocr_finetune_api.spec import GateSpec, GuardSpec
from ocr_finetune_trainer.evaluation import breakdown
from ocr_finetune_trainer.evaluation.gate import GateInput, GuardInput, judge
from ocr_finetune_trainer.evaluation.recognition import RecognitionEvaluation
from ocr_finetune_trainer.evaluation.records import Looks, ReadSample, RecognitionMeasurement
from ocr_finetune_trainer.evaluation.report import recognition_report
from ocr_finetune_trainer.evaluation.statistics import Interval, bootstrap, calibrate, clustered, paired_bootstrap


def mean(sums):
    return sums[0] / max(sums[1], 1)


def hits(values):
    return np.stack([np.asarray(values, float), np.ones(len(values))], axis=1)


def test_the_interval_is_that_of_the_binomial_distribution():
    rng = np.random.default_rng(1)
    interval = bootstrap(hits(rng.random(2000) < 0.9), mean)

    deviation = (0.9 * 0.1 / 2000) ** 0.5
    assert interval.value == pytest.approx(0.9, abs=0.02)
    assert (interval.high - interval.low) / 2 == pytest.approx(1.96 * deviation, rel=0.15)


def test_pairing_narrows_the_interval_of_a_difference():
    rng = np.random.default_rng(2)
    old = rng.random(1000) < 0.5
    new = old | (rng.random(1000) < 0.05)
    paired = paired_bootstrap(hits(new), hits(old), mean)

    assert paired.low > 0
    assert paired.high - paired.low < 0.5 * (bootstrap(hits(new), mean).high - bootstrap(hits(new), mean).low)


def test_lines_of_a_page_are_drawn_together():
    rng = np.random.default_rng(3)
    pages = rng.random(100) < 0.7
    lines = hits(np.repeat(pages, 20))
    names = [f"page{i // 20}" for i in range(2000)]

    alone, together = bootstrap(lines, mean), bootstrap(clustered(lines, names), mean)

    assert together.value == alone.value
    assert clustered(lines, names)[7].tolist() == lines[140:160].sum(axis=0).tolist()
    assert together.high - together.low > 3 * (alone.high - alone.low)
    assert np.array_equal(clustered(lines, [""] * 2000), lines)
    with pytest.raises(ValueError, match="2000 samples but 1 groups"):
        clustered(lines, ["x"])


def test_pairs_must_be_of_the_same_samples():
    with pytest.raises(ValueError, match="same ones"):
        paired_bootstrap(hits([1, 0]), hits([1]), mean)


def test_an_empty_set_has_an_interval_too():
    assert bootstrap(np.zeros((0, 2)), mean) == Interval(value=0.0, low=0.0, high=0.0)


def test_the_threshold_keeps_as_much_as_the_wanted_accuracy_allows():
    scores = [0.99, 0.98, 0.97, 0.6, 0.6, 0.3]
    correct = [True, True, True, True, False, False]

    calibration = calibrate(scores, correct, wanted_accuracy=0.99)

    # one of the two samples at 0.6 is wrong, and a threshold keeps both or none
    assert (calibration.threshold, calibration.threshold_coverage) == (0.97, 0.5)
    assert calibrate(scores, correct, wanted_accuracy=0.8).threshold == 0.6
    assert calibrate([0.9], [False]).threshold is None


def test_perfect_scores_have_no_expected_error():
    scores = [0.75] * 4
    assert calibrate(scores, [True, True, True, False]).expected_error == pytest.approx(0.0)
    assert calibrate(scores, [False] * 4).expected_error == pytest.approx(0.75)


def sample(index, label, prediction, score=0.5, **values):
    return ReadSample(index=index, label=label, prediction=prediction, score=score, **values)


def measured(*samples, readable="abcdefghij 0123456789"):
    return RecognitionMeasurement(samples=samples, readable=frozenset(readable))


def test_confusions_are_counted_by_character():
    pairs = breakdown.confusions([sample(0, "a0b", "aob"), sample(1, "00", "0"), sample(2, "0", "o")])

    assert [(pair.label, pair.prediction, count) for pair, count in pairs] == [("0", "o", 2), ("0", "", 1)]


def test_each_character_has_recall_and_precision_worst_first():
    rows = breakdown.by_character(measured(sample(0, "ab", "ab"), sample(1, "ab", "bb"), sample(2, "€", "")))

    assert list(rows) == ["€", "a", "b"]
    assert rows["a"]["recall"] == 0.5
    assert rows["b"]["precision"] == pytest.approx(2 / 3)
    assert not rows["€"]["readable"]


def test_errors_of_a_kind_stand_together():
    groups = breakdown.clusters(
        [
            sample(0, "ab c", "abc"),
            sample(1, "ab", "AB"),
            sample(2, "abc", ""),
            sample(3, "abcdef", "abc"),
            sample(4, "a0", "ao"),
            sample(5, "b0", "bo"),
            sample(6, "ab", "ab"),
        ]
    )

    assert {group["kind"]: group["indices"] for group in groups} == {
        "confused: 0→o": [4, 5],
        "spaces only": [0],
        "upper and lower case only": [1],
        "nothing read": [2],
        "end of the text missing": [3],
    }


def test_a_label_is_suspected_when_the_model_is_sure_and_the_confusion_is_rare():
    often = [sample(i, "a0", "ao", 0.99) for i in range(3)]
    doubtful = [sample(10, "abc", "abd", 0.98), sample(11, "abc", "abe", 0.2), sample(12, "a€", "a", 0.99)]
    right = [sample(i, "ab", "ab", 0.95) for i in range(20, 65)]

    assert [s.index for s in breakdown.likely_wrong_labels(measured(*doubtful, *often, *right))] == [10]
    # A model that errs as often as not where it is sure gives no reason to doubt labels.
    assert breakdown.likely_wrong_labels(measured(*doubtful, *often, *right[:5])) == []


def test_regressions_are_told_picture_by_picture():
    new = measured(sample(0, "a", "a"), sample(1, "b", "x"), sample(2, "c", "c"))
    base = measured(sample(0, "a", "x"), sample(1, "b", "b"), sample(2, "c", "c"))

    worse, better = breakdown.regressions(new, base)

    assert [after.index for after, _ in worse] == [1]
    assert [after.index for after, _ in better] == [0]


def test_difficulty_is_seen_in_the_picture_and_the_label():
    small = Looks(height=10, width=50, contrast=20, sharpness=10)
    fine = Looks(height=48, width=200, contrast=200, sharpness=900)

    assert breakdown.difficulties(sample(0, "a" * 30, "", looks=small), readable=frozenset("a")) == [
        "under 16 pixels high",
        "low contrast",
        "blurred",
        "over 25 characters",
    ]
    assert breakdown.difficulties(sample(0, "a", "", looks=fine), readable=frozenset("a")) == ["plain"]


def test_figures_are_told_by_source_length_and_difficulty():
    hard = Looks(height=10, width=50, contrast=200, sharpness=900)
    measurement = measured(
        sample(0, "a", "a", source="scans"),
        sample(1, "abcd", "abcx", source="scans"),
        sample(2, "abcdef", "abcdef", source="photos", looks=hard),
        sample(3, "abcdefgh", "abcdef", source="photos", looks=hard),
        sample(4, "a€", "a", source="photos"),
    )

    def told(groups):
        return {name: (row["samples"], row["accuracy"], row["characterErrorRate"]) for name, row in groups.items()}

    assert told(breakdown.by_source(measurement)) == {
        "photos": (3, pytest.approx(1 / 3), pytest.approx(3 / 16)),
        "scans": (2, 0.5, pytest.approx(1 / 5)),
    }
    assert told(breakdown.by_length(measurement)) == {
        "1": (1, 1.0, 0.0),
        "2-5": (2, 0.0, pytest.approx(2 / 6)),
        "6-10": (2, 0.5, pytest.approx(2 / 14)),
    }
    assert told(breakdown.by_difficulty(measurement)) == {
        "characters outside the dictionary": (1, 0.0, 0.5),
        "plain": (2, 0.5, pytest.approx(1 / 5)),
        "under 16 pixels high": (2, 0.5, pytest.approx(2 / 14)),
    }


def test_the_document_and_the_report_hold_every_figure():
    new = measured(sample(0, "a b", "a b", 0.9), sample(1, "a c", "a", 0.8), sample(2, "b€", "b", 0.3))
    base = measured(sample(0, "a b", "x"), sample(1, "a c", "a c"), sample(2, "b€", ""))
    evaluation = RecognitionEvaluation(best=new, base=base, trained_on={"a": 7})

    document = evaluation.document

    assert document["best"]["accuracy"] == pytest.approx(1 / 3)
    assert document["best"]["wordErrorRate"] == pytest.approx(2 / 5)  # "c" is missing, and "b€" is read as "b"
    assert document["best"]["characterErrorRate"] == pytest.approx(3 / 8)
    assert document["base"]["accuracy"] == pytest.approx(1 / 3)
    assert document["outOfDictionary"] == {"samples": 1, "characters": {"€": 1}}
    assert [row["index"] for row in document["regressions"]["samples"]] == [1]
    assert document["regressions"]["samples"][0]["basePrediction"] == "a c"
    assert document["byCharacter"]["c"] == {"count": 1, "recall": 0.0, "precision": 0.0, "readable": True}
    assert document["calibration"]["threshold"] == 0.9
    assert document["calibration"]["thresholdCoverage"] == pytest.approx(1 / 3)
    assert [point["accuracy"] for point in document["calibration"]["coverage"]] == [1.0, 0.5, pytest.approx(1 / 3)]
    assert document["suggestions"][0].startswith("1 characters of the test set are not in the dictionary: €")
    html = recognition_report(
        evaluation,
        picture_of=lambda _: np.full((20, 40, 3), 200, np.uint8),
        title="t",
        facts={},
        verdict={"passed": False, "failures": ["too bad"], "notes": []},
    )
    for part in ("word error rate", "By length", "By difficulty", "Characters, worst first", "Can its scores be trusted",
                 "0.900", "What got worse", "Errors of a kind", "Characters the model does not know", "bad"):  # fmt: skip
        assert part in html


def interval(value, low=None, high=None):
    return Interval(value=value, low=value if low is None else low, high=value if high is None else high)


def test_a_gate_without_conditions_lets_everything_pass():
    assert judge(GateSpec(), GateInput(metric="accuracy", new=interval(0.0))).passed


def test_the_gate_names_every_condition_that_is_not_met():
    gate = GateSpec(min=0.9, min_improvement=0.05, max_regression=0.01, per_source=True)
    measured_values = GateInput(
        metric="accuracy",
        new=interval(0.85),
        improvement=interval(0.06, 0.02, 0.1),
        regressed=0.02,
        sources={"plates": 0.95, "signs": 0.4},
        guards=[GuardInput(spec=GuardSpec(name="general", uri="x", max_drop=0.02), new=0.7, base=0.8)],
    )

    verdict = judge(gate, measured_values)

    assert len(verdict.failures) == 5
    assert "source signs" in verdict.failures[1]
    assert "not proven" in verdict.failures[2]
    assert "guard general" in verdict.failures[4]


def test_luck_is_told_but_does_not_fail_the_least_value():
    verdict = judge(GateSpec(min=0.9), GateInput(metric="accuracy", new=interval(0.92, 0.88, 0.95)))

    assert verdict.passed
    assert "may be luck" in verdict.notes[0]


def test_an_improvement_within_the_noise_is_none():
    gate = GateSpec(min_improvement=0.0)

    assert not judge(
        gate, GateInput(metric="accuracy", new=interval(0.9), improvement=interval(0.01, -0.01, 0.03))
    ).passed
    assert judge(gate, GateInput(metric="accuracy", new=interval(0.9), improvement=interval(0.03, 0.01, 0.05))).passed


def test_a_gate_that_asks_for_proof_is_not_passed_by_luck():
    lucky = GateInput(metric="accuracy", new=interval(0.92, 0.85, 0.97))

    assert judge(GateSpec(min=0.9), lucky).passed
    (failure,) = judge(GateSpec(min=0.9, proven=True), lucky).failures
    assert failure.startswith("accuracy 0.9200 is not proven to reach 0.9: the 95 % interval is 0.8500 to 0.9700")
    assert judge(GateSpec(min=0.9, proven=True), GateInput(metric="accuracy", new=interval(0.95, 0.91, 0.98))).passed
    low = GateInput(metric="characterErrorRate", new=interval(0.05, 0.02, 0.12))
    assert not judge(GateSpec(metric="characterErrorRate", min=0.1, proven=True), low).passed


def test_error_rates_are_better_when_lower():
    gate = GateSpec(metric="characterErrorRate", min=0.1, min_improvement=0.01)
    good = GateInput(metric="characterErrorRate", new=interval(0.05), improvement=interval(-0.1, -0.12, -0.08))
    bad = GateInput(metric="characterErrorRate", new=interval(0.2), improvement=interval(0.1, 0.08, 0.12))

    assert judge(gate, good).passed
    assert len(judge(gate, bad).failures) == 2


def test_without_a_base_model_comparisons_are_said_to_be_left_out():
    verdict = judge(GateSpec(min_improvement=0.1, max_regression=0.1), GateInput(metric="accuracy", new=interval(0.5)))

    assert verdict.passed
    assert len(verdict.notes) == 2
