"""TEDS equals the definition of its paper, and the shortcuts give what the long way gives."""

from __future__ import annotations

import numpy as np
import pytest
from docling_metrics_table.utils.teds import TEDScorer
from lxml import html

from ocr_finetune_trainer.data.synthetic_tables import Drawing, draw_table
from ocr_finetune_trainer.evaluation.table_decode import to_html
from ocr_finetune_trainer.metrics.table import TableCounts, box_counts, plain_text, same_structure, teds, teds_of_many

WORDS = ("total", "price", "order", "a<b", "x{y}\\")


def drawn(number: int, *, rows: int = 4) -> str:
    look = Drawing(rows=(1, rows), columns=(2, 4), span=0.8)
    _, label = draw_table(WORDS, rng=np.random.default_rng(number), look=look)
    return to_html(label.structure, [plain_text(cell.tokens) for cell in label.cells])


@pytest.mark.parametrize("structure_only", [True, False])
def test_equals_another_implementation(structure_only: bool) -> None:
    """The other one follows the paper's code; it walks the trees with apted alone, without any shortcut."""
    peer = TEDScorer()
    for number in range(12):
        predicted, true = drawn(number), drawn(number + 100 * (number % 3))
        expected = peer.teds(html.fromstring(true), html.fromstring(predicted), structure_only)
        assert teds(predicted, true, structure_only=structure_only) == pytest.approx(expected, abs=1e-6)


def test_few_wrong_letters_cost_their_share() -> None:
    true = "<table><tbody><tr><td>abcd</td><td>x</td></tr></tbody></table>"
    predicted = true.replace("abcd", "abce")
    # Four elements below the table; one of four letters is wrong.
    assert teds(predicted, true) == pytest.approx(1 - 0.25 / 4)
    assert teds(predicted, true, structure_only=True) == 1.0


def test_many_wrong_texts_go_the_long_way() -> None:
    """Shifting all rows by one is cheaper than rewriting every cell."""
    rows = ["".join(f"<td>{letter * 5}{column}</td>" for column in range(3)) for letter in "abcdefgh"]
    true = "<table>" + "".join(f"<tr>{row}</tr>" for row in rows) + "</table>"
    shifted = "<table>" + "".join(f"<tr>{row}</tr>" for row in [*rows[1:], rows[0]]) + "</table>"
    expected = TEDScorer().teds(html.fromstring(true), html.fromstring(shifted), structure_only=False)
    assert teds(shifted, true) == pytest.approx(expected)
    assert teds(shifted, true) == pytest.approx(1 - 8 / 32)


@pytest.mark.parametrize("broken", ["", "  ", "no table", "<p>text</p>", "<!-- -->"])
def test_what_is_no_table_scores_nothing(broken: str) -> None:
    assert teds(broken, "<table><tr><td>a</td></tr></table>") == 0.0
    with pytest.raises(ValueError, match="no <table>"):
        teds("<table></table>", broken)


def test_broken_structures_are_read_as_browsers_do() -> None:
    true = "<table><tr><td>a</td><td>b</td></tr></table>"
    assert teds("<table><tr><td>a</td><td>b", true) == 1.0
    assert 0.0 < teds("<table><tr><td>a</td><td", true) < 1.0
    assert teds("<table></table>", true) == 0.0
    assert teds("<table></table>", "<table></table>") == 1.0


def test_many_in_processes_equal_one_by_one() -> None:
    pairs = [(drawn(number), drawn(number + number % 2)) for number in range(120)]
    alone = teds_of_many(pairs, processes=1)
    np.testing.assert_array_equal(teds_of_many(pairs, processes=2), alone)
    assert alone[::2].min() == 1.0
    assert alone[1::2].max() < 1.0


def test_counts_add_up() -> None:
    boxes = box_counts([[0, 0, 10, 10]], [[0, 0, 10, 0, 10, 10, 0, 10], [20, 20, 30, 30]])
    first = TableCounts(tables=1, right=1, right_without_sections=1, teds_sum=1.0, teds_structure_sum=1.0, boxes=boxes)
    scores = (first + TableCounts(tables=1, teds_sum=0.5, teds_structure_sum=0.5)).scores()
    assert (scores.structure_accuracy, scores.teds, scores.boxes.recall) == (0.5, 0.75, 0.5)
    assert TableCounts().scores().structure_accuracy == 0.0
    assert (
        same_structure(["<tr>", "<td></td>", "</tr>"], ["<tbody>", "<tr>", "<td></td>", "</tr>", "</tbody>"]) is False
    )
