"""Accuracy, similarity and error rates of texts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ocr_finetune_trainer.metrics.recognition import RecognitionMetric

FIGURES = json.loads((Path(__file__).parent / "figures" / "recognition_metric.json").read_text())["rec_metric"]


@pytest.mark.parametrize("ignore_spaces", [False, True])
def test_the_peers_variant_gives_the_peers_figures(ignore_spaces):
    predictions, labels = zip(*FIGURES["pairs"], strict=True)
    expected = FIGURES[f"ignore_space_{str(ignore_spaces).lower()}"]

    scores = RecognitionMetric.of(predictions, labels, ignore_spaces=ignore_spaces).scores()

    assert scores.peer_accuracy == pytest.approx(expected["acc"], rel=1e-9)
    assert scores.peer_edit_similarity == pytest.approx(expected["norm_edit_dis"], rel=1e-9)


def test_characters_outside_the_dictionary_count_as_wrong_here_and_not_at_the_peer():
    scores = RecognitionMetric.of(["ab", "cd"], ["ab€", "cd"], readable="abcd").scores()

    assert scores.accuracy == 0.5
    assert scores.peer_accuracy == pytest.approx(1.0, abs=1e-4)


def test_the_error_rate_is_a_ratio_of_sums_not_a_mean_of_ratios():
    scores = RecognitionMetric.of(["x", "abcdefghi"], ["y", "abcdefghi"]).scores()

    assert scores.character_error_rate == pytest.approx(1 / 10)
    assert scores.edit_similarity == pytest.approx(1 / 2)


def test_word_errors_are_counted_only_where_labels_have_words():
    assert RecognitionMetric.of(["abc"], ["abd"]).scores().word_error_rate is None
    assert RecognitionMetric.of(["one two tree"], ["one two three"]).scores().word_error_rate == pytest.approx(1 / 3)


def test_ranks_add_up_to_the_whole():
    predictions, labels = zip(*FIGURES["pairs"], strict=True)
    whole = RecognitionMetric.of(predictions, labels)
    parts = [RecognitionMetric.of(predictions[i::3], labels[i::3]) for i in range(3)]

    assert np.allclose(sum((part.sums for part in parts), np.zeros_like(whole.sums)), whole.sums)


def test_unusable_samples_are_wrong():
    scores = (RecognitionMetric.of(["a", "b"], ["a", "b"]) + RecognitionMetric.wrong(2)).scores()

    assert (scores.samples, scores.accuracy, scores.edit_similarity) == (4, 0.5, 0.5)


def test_nothing_measured_is_no_division_by_zero():
    assert RecognitionMetric.empty().scores().accuracy == 0.0


def test_predictions_without_labels_are_refused():
    with pytest.raises(ValueError, match="zip"):
        RecognitionMetric.of(["a"], ["a", "b"])
