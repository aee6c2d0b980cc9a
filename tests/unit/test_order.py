"""The order of samples is a pure function of seed, epoch and step, and draws as often as the manifest says."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocr_finetune_trainer.data.order import Order, generator, rarity


def epoch_of(order: Order, epoch: int) -> list[np.ndarray]:
    return [order.step(epoch, step) for step in range(order.steps_per_epoch)]


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(1, 300), batch_size=st.integers(1, 64), seed=st.integers(0, 2**31 - 1), buckets=st.integers(1, 5)
)
def test_every_sample_is_seen_once_an_epoch(count, batch_size, seed, buckets):
    kinds = np.random.default_rng(seed).integers(buckets, size=count)
    order = Order(count, batch_size=batch_size, seed=seed, buckets=kinds)
    steps = epoch_of(order, 3)
    assert sorted(np.concatenate(steps)) == list(range(count))
    assert len(steps) == -(-count // batch_size)
    assert max(map(len, steps)) <= batch_size
    if count >= batch_size:
        assert min(map(len, steps)) >= batch_size // 2
    mixed = sum(len(set(kinds[step])) > 1 for step in steps)
    assert mixed <= buckets + 1


def test_it_is_the_same_whenever_and_wherever_it_is_asked():
    first = Order(100, batch_size=8, seed=7)
    second = pickle.loads(pickle.dumps(first))
    for epoch, step in ((5, 3), (0, 0), (5, 3), (2, 12)):
        assert np.array_equal(first.step(epoch, step), second.step(epoch, step))
    assert not np.array_equal(first.step(0, 0), first.step(1, 0))
    assert not np.array_equal(first.step(0, 0), Order(100, batch_size=8, seed=8).step(0, 0))


def test_weights_draw_the_others_in_proportion_without_repeats():
    sources = np.array([0] * 40 + [1] * 1000 + [2] * 7)
    order = Order(1047, batch_size=16, seed=1, sources=sources, weights=[1.0, 2.0, 0.5])
    seen: list[int] = []
    for epoch in range(25):
        drawn = np.concatenate(epoch_of(order, epoch))
        counts = np.bincount(sources[drawn])
        assert counts.tolist() == [40, 80, 20]
        assert sorted(drawn[sources[drawn] == 0]) == list(range(40))
        seen += [int(i) for i in drawn if sources[i] == 1]
    # 25 epochs of 80 are two whole passes over the thousand.
    assert sorted(seen) == sorted(list(range(40, 1040)) * 2)
    small = [int(i) for epoch in range(7) for i in np.concatenate(epoch_of(order, epoch)) if sources[i] == 2]
    assert sorted(small) == sorted(list(range(1040, 1047)) * 20)


def test_a_weighted_source_without_samples_is_an_error():
    with pytest.raises(ValueError, match=r"sources \[1\] have a weight but no sample"):
        Order(3, batch_size=1, seed=0, sources=np.zeros(3, dtype=int), weights=[1, 1])


def test_rare_characters_are_drawn_more_often_in_exact_numbers():
    texts = ["common"] * 990 + ["rarely seen: 龘"] * 10
    copies = rarity(texts, threshold=0.1)
    assert copies[0] == 1.0
    assert copies[-1] == pytest.approx(10**0.5)
    order = Order(1000, batch_size=32, seed=0, copies=copies)
    drawn = [np.concatenate(epoch_of(order, epoch)) for epoch in range(50)]
    assert {len(epoch) for epoch in drawn} == {order.samples_per_epoch} == {round(float(copies.sum()))}
    assert all(len(set(epoch)) == 1000 for epoch in drawn), "nobody is left out"
    mean = np.mean([np.sum(epoch >= 990) / 10 for epoch in drawn])
    assert mean == pytest.approx(10**0.5, rel=0.05)


def test_without_shuffling_neighbours_stay_together():
    order = Order(10, batch_size=4, seed=0, buckets=np.array([1, 0] * 5), shuffle=False)
    assert [step.tolist() for step in epoch_of(order, 0)] == [[1, 3, 5, 7], [9, 0, 2, 4], [6, 8]]


def test_there_is_no_step_after_the_last():
    with pytest.raises(IndexError):
        Order(10, batch_size=4, seed=0).step(0, 3)
    with pytest.raises(ValueError, match="make no epoch"):
        Order(0, batch_size=4, seed=0)


def test_random_numbers_of_samples_are_independent():
    draws = {generator(s, e, i, step=p).random() for s in (0, 1) for e in (0, 1) for i in (0, 1) for p in (0, 1)}
    assert len(draws) == 16
    assert generator(1, 2, 3).random() == generator(1, 2, 3).random()
