"""How good a read table is: exact structure, tree edit distance similarity, and cell boxes.

TEDS (https://arxiv.org/abs/1911.10683) is 1 - distance / nodes between two tables as trees of rows and cells, where a
cell's text costs its normalised edit distance; without text it compares the structure alone. The tree edit distance is
that of libraries: `apted` for the one with text, and for the structure `docling-metrics-table`, the same in C++ without
the cost of texts. NumPy and these only, so that it runs in worker processes without Paddle.
"""

from __future__ import annotations

import html
import math
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any

import numpy as np
from apted import APTED, Config
from docling_metrics_table import TableMetric, TableMetricBracketInputSample
from docling_metrics_table.docling_metrics_table import TableMetricKind
from lxml import etree
from lxml import html as lxml_html
from rapidfuzz.distance import Levenshtein
from rapidfuzz.process import cdist

from ocr_finetune_trainer.metrics.detection import DetectionCounts, DetectionScores, match_page

__all__ = ["TableCounts", "TableScores", "box_counts", "box_polygon", "same_structure", "teds", "teds_of_many"]

_SECTIONS = ("<thead>", "</thead>", "<tbody>", "</tbody>")
# A pool of processes costs about a second to start; below this many tables one process is faster.
_LEAST_FOR_POOL = 100


def same_structure(predicted: Sequence[str], true: Sequence[str], *, without_sections: bool = False) -> bool:
    """Whether two structures are equal as strings.

    Args:
        predicted: Tokens.
        true: Tokens, with cells merged just like the predicted ones.
        without_sections: Whether `<thead>` and `<tbody>` don't matter.
    """
    first, second = "".join(predicted), "".join(true)
    if without_sections:
        for section in _SECTIONS:
            first, second = first.replace(section, ""), second.replace(section, "")
    return first == second


@dataclass(frozen=True, slots=True)
class _Node:
    """A node of a table's tree; `number` is its place in pre-order."""

    number: int
    label: tuple[str, int, int]
    tokens: tuple[str, ...]
    children: list[_Node]


@dataclass(frozen=True, slots=True)
class _Tree:
    root: _Node
    nodes: list[_Node]
    elements: int
    """Elements below `<table>`, inline tags in cells included: what the distance is divided by."""


def _span(element: Any, name: str) -> int:
    text = element.get(name, "1").strip()
    return int(text) if text.isdecimal() else 1


def _content(element: Any) -> Iterator[str]:
    """Characters and inline tags of a cell."""
    yield from element.text or ""
    for child in element:
        if isinstance(child.tag, str):
            yield f"<{child.tag}>"
            yield from _content(child)
            yield f"</{child.tag}>"
        yield from child.tail or ""


def _tree(markup: str, *, structure_only: bool) -> _Tree | None:
    """The first table in some HTML, however broken; None if there is none."""
    if not markup.strip():
        return None
    try:
        document = lxml_html.fromstring(markup)
    except (etree.ParserError, ValueError):
        return None
    tables = [document] if document.tag == "table" else document.xpath(".//table")
    if not tables:
        return None
    nodes: list[_Node] = []

    def grow(element: Any) -> _Node:
        cell = element.tag in {"td", "th"}
        # As in the paper's code a header cell is a cell; spans matter for cells alone.
        label = ("td", _span(element, "colspan"), _span(element, "rowspan")) if cell else (str(element.tag), 1, 1)
        tokens = tuple(_content(element)) if cell and not structure_only else ()
        node = _Node(len(nodes), label, tokens, [])
        nodes.append(node)
        if not cell:
            node.children.extend(grow(child) for child in element if isinstance(child.tag, str))
        return node

    root = grow(tables[0])
    elements = sum(1 for _ in tables[0].iterdescendants(etree.Element))
    return _Tree(root, nodes, elements)


class _Costs(Config):  # type: ignore[misc]  # apted has no types
    """What apted asks: the cost of making one node of another, looked up."""

    valuecls = float

    def __init__(self, costs: list[list[float]]) -> None:
        self._costs = costs

    def rename(self, node1: _Node, node2: _Node) -> float:
        return self._costs[node1.number][node2.number]

    def children(self, node: _Node) -> list[_Node]:
        return node.children


def _distance_with_text(first: _Tree, second: _Tree) -> float:
    same_shape = [node.label for node in first.nodes] == [node.label for node in second.nodes] and [
        len(node.children) for node in first.nodes
    ] == [len(node.children) for node in second.nodes]
    if same_shape:
        texts = sum(
            Levenshtein.normalized_distance(a.tokens, b.tokens)
            for a, b in zip(first.nodes, second.nodes, strict=True)
            if a.tokens != b.tokens
        )
        # Any other way to map one tree to the other deletes a node and inserts one, which costs 2.
        if texts <= 2.0:
            return float(texts)
    cells = [[node.tokens for node in tree.nodes] for tree in (first, second)]
    matrix = cdist(cells[0], cells[1], scorer=Levenshtein.normalized_distance, dtype=np.float64).tolist()
    for row, a in zip(matrix, first.nodes, strict=True):
        for column, b in enumerate(second.nodes):
            if a.label != b.label:
                row[column] = 1.0
    return float(APTED(first.root, second.root, _Costs(matrix)).compute_edit_distance())


def _bracket(node: _Node) -> str:
    return "{" + " ".join(map(str, node.label)) + "".join(map(_bracket, node.children)) + "}"


def _distance_of_structure(first: _Tree, second: _Tree) -> float:
    pair = TableMetricBracketInputSample(id="pair", bracket_a=_bracket(first.root), bracket_b=_bracket(second.root))
    result = TableMetric(metrics=[TableMetricKind.TEDS]).evaluate_sample(pair).teds
    if result is None:
        raise ArithmeticError("the tree edit distance library gave no result")
    # Its score counts the root too; its distance, of unit costs, is a whole number.
    return float(round((1.0 - result.teds) * max(len(first.nodes), len(second.nodes))))


def teds(predicted: str, true: str, *, structure_only: bool = False) -> float:
    """Tree edit distance similarity of two HTML tables.

    Args:
        predicted: HTML with a `<table>`; anything else scores 0.
        true: HTML with a `<table>`.
        structure_only: Whether the texts of cells don't matter.

    Returns:
        In [0, 1]; 1 if they are equal. Two tables without any row are equal.

    Raises:
        ValueError: `true` holds no table.
    """
    second = _tree(true, structure_only=structure_only)
    if second is None:
        raise ValueError(f"there is no <table> in {true[:60]!r}")
    first = _tree(predicted, structure_only=structure_only)
    if first is None:
        return 0.0
    nodes = max(first.elements, second.elements)
    if nodes == 0:
        return 1.0
    distance = (_distance_of_structure if structure_only else _distance_with_text)(first, second)
    return max(0.0, 1.0 - distance / nodes)


def _teds_of_pair(pair: tuple[str, str], *, structure_only: bool) -> float:
    return teds(*pair, structure_only=structure_only)


def teds_of_many(
    pairs: Sequence[tuple[str, str]], *, structure_only: bool = False, processes: int = 1
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """TEDS of many pairs of (predicted, true) tables.

    Args:
        pairs: HTML tables.
        structure_only: As for `teds`.
        processes: How many may work at once.

    Returns:
        float64 (N,).
    """
    score = partial(_teds_of_pair, structure_only=structure_only)
    if processes <= 1 or len(pairs) < _LEAST_FOR_POOL:
        return np.asarray([score(pair) for pair in pairs], dtype=np.float64)
    # Never by fork: the caller may have Paddle's threads.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        scores = list(pool.map(score, pairs, chunksize=max(1, min(16, len(pairs) // (4 * processes)))))
    return np.asarray(scores, dtype=np.float64)


def plain_text(tokens: Sequence[str]) -> str:
    """A cell's tokens as HTML: characters escaped, inline tags as they are."""
    return "".join(
        token if len(token) > 1 and token.startswith("<") else html.escape(token, quote=False) for token in tokens
    )


def box_counts(predicted: Sequence[Sequence[float]], true: Sequence[Sequence[float]]) -> DetectionCounts:
    """Counts found and true cells, paired at intersection over union 0.5.

    Args:
        predicted: Boxes of 4 or 8 numbers each.
        true: Boxes of 4 or 8 numbers each.
    """
    truths, found = [box_polygon(box) for box in true], [box_polygon(box) for box in predicted]
    return match_page(truths, [False] * len(truths), found).counts


def box_polygon(box: Sequence[float]) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """A box of 4 or 8 numbers as its outline, float64 (4, 2)."""
    numbers = [float(number) for number in box]
    if len(numbers) == 4:
        left, top, right, bottom = numbers
        numbers = [left, top, right, top, right, bottom, left, bottom]
    return np.asarray(numbers, dtype=np.float64).reshape(-1, 2)


@dataclass(frozen=True, kw_only=True)
class TableScores:
    """The metrics of a table model.

    Attributes:
        structure_accuracy: Share of tables whose structure is exactly right.
        structure_accuracy_without_sections: The same without regard to `<thead>` and `<tbody>`.
        teds: Mean similarity with text; NaN where no texts were read.
        teds_structure: Mean similarity of the structure.
        boxes: Precision, recall and their mean of the cells' boxes.
    """

    structure_accuracy: float
    structure_accuracy_without_sections: float
    teds: float
    teds_structure: float
    boxes: DetectionScores


@dataclass(frozen=True, kw_only=True)
class TableCounts:
    """What was counted on one table or many; add them up, also those of other processes.

    Attributes:
        tables: How many tables.
        right: How many structures are exactly right.
        right_without_sections: How many are without regard to sections.
        teds_sum: Sum of the similarities with text; NaN where no texts were read.
        teds_structure_sum: Sum of the similarities of the structure.
        boxes: Counts of the cells' boxes.
    """

    tables: int = 0
    right: int = 0
    right_without_sections: int = 0
    teds_sum: float = 0.0
    teds_structure_sum: float = 0.0
    boxes: DetectionCounts = field(default_factory=DetectionCounts)

    def __add__(self, other: TableCounts) -> TableCounts:
        names = [entry.name for entry in fields(self)]
        return TableCounts(**{name: getattr(self, name) + getattr(other, name) for name in names})

    def scores(self) -> TableScores:
        """The metrics; 0 where there is nothing to count."""

        def share(value: float) -> float:
            if math.isnan(value):
                return value
            return value / self.tables if self.tables else 0.0

        return TableScores(
            structure_accuracy=share(self.right),
            structure_accuracy_without_sections=share(self.right_without_sections),
            teds=share(self.teds_sum),
            teds_structure=share(self.teds_structure_sum),
            boxes=self.boxes.scores(),
        )
