"""Splits keep together what belongs together, hold back what was asked for, and don't move when data is added."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocr_finetune_trainer.data.split import TEST, TRAIN, VALIDATION, Fractions, components, fill_empty, leaks, split

NONE = np.zeros((0, 2), dtype=np.int64)


def hashes(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 2**63, size=count).astype(np.uint64)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), count=st.integers(1, 60))
def test_components_are_those_of_the_graph(data, count):
    groups = np.array(data.draw(st.lists(st.integers(0, 8), min_size=count, max_size=count)), dtype=np.uint64)
    pairs = np.array(
        data.draw(st.lists(st.tuples(st.integers(0, count - 1), st.integers(0, count - 1)), max_size=30)),
        dtype=np.int64,
    ).reshape(-1, 2)
    roots = components(count, groups, pairs)
    # The plain way: spread the smallest number until nothing changes.
    expected = np.arange(count)
    changed = True
    while changed:
        before = expected.copy()
        for first, second in pairs:
            expected[[first, second]] = min(expected[first], expected[second])
        for group in set(groups.tolist()) - {0}:
            expected[groups == group] = expected[groups == group].min()
        changed = not np.array_equal(before, expected)
    assert np.array_equal(roots, expected)


def test_parts_are_as_large_as_asked_for():
    count = 20_000
    sides = split(np.arange(count), hashes(count), np.full(count, -1, np.int8), Fractions(validation=0.1, test=0.2))
    parts = np.bincount(sides) / count
    assert abs(parts[VALIDATION] - 0.1) < 0.01
    assert abs(parts[TEST] - 0.2) < 0.01


def test_a_component_lies_on_one_side():
    groups = np.repeat(hashes(200), 5)
    roots = components(1000, groups, NONE)
    sides = split(roots, groups, np.full(1000, -1, np.int8), Fractions(validation=0.3, test=0.3))
    assert all(len(set(sides[groups == group])) == 1 for group in set(groups.tolist()))
    assert set(sides.tolist()) == {TRAIN, VALIDATION, TEST}


def test_added_samples_move_no_old_one():
    keys = hashes(500)
    more = np.concatenate([keys, hashes(300, seed=1)])
    fractions = Fractions(validation=0.2, test=0.1)
    old = split(np.arange(500), keys, np.full(500, -1, np.int8), fractions)
    new = split(np.arange(800), more, np.full(800, -1, np.int8), fractions)
    assert np.array_equal(old, new[:500])


@pytest.mark.parametrize("unusable", [None, 0, 3])
def test_a_small_set_still_gets_every_side(unusable):
    fractions = Fractions(validation=0.1, test=0.1)
    roots, usable = np.arange(8), np.arange(8) != unusable
    for seed in range(30):
        keys = hashes(8, seed)
        sides = split(roots, keys, np.full(8, -1, np.int8), fractions)
        sides[~usable] = -1
        sides = fill_empty(sides, roots, keys, usable, fractions)
        assert sorted(set(sides[usable].tolist())) == [TRAIN, VALIDATION, TEST]


def test_an_empty_side_is_filled_with_whole_components():
    fractions = Fractions(validation=0.1)
    roots = np.array([0, 0, 0, 3])
    for seed in range(10):
        sides = fill_empty(np.zeros(4, np.int8), roots, hashes(4, seed), np.ones(4, bool), fractions)
        assert sides.tolist() in ([VALIDATION] * 3 + [TRAIN], [TRAIN] * 3 + [VALIDATION])


def test_a_given_split_stands_and_leaks_are_told():
    given_sides = np.array([TEST, -1, VALIDATION, -1], dtype=np.int8)
    pairs = np.array([[0, 1], [1, 3]])
    sides = split(components(4, np.zeros(4, np.uint64), pairs), hashes(4), given_sides, Fractions())
    assert sides.tolist() == [TEST, TRAIN, VALIDATION, TRAIN]
    assert leaks(pairs, sides).tolist() == [[0, 1]]
    assert leaks(NONE, sides).shape == (0, 2)
