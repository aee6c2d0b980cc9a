"""Batches come in order, once, and the same, whoever makes them; what goes wrong is named with its sample."""

from __future__ import annotations

import os
import signal
import time
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from test_data_store import row, shard_of, view

from ocr_finetune_api.exit_codes import ConfigurationError, DataError, OCRFineTuneError
from ocr_finetune_trainer.data import loader as loader_module
from ocr_finetune_trainer.data.loader import Loader
from ocr_finetune_trainer.data.order import Order


class Numbers:
    """Gives each sample its bytes and a random number."""

    def __call__(self, sample, rng):
        return {"value": np.frombuffer(sample.image, dtype=np.uint8)[:1], "draw": np.array(rng.integers(1 << 60))}


class Fails(Numbers):
    def __call__(self, sample, rng):
        if sample.id == 3:
            raise ValueError("no good")
        return super().__call__(sample, rng)


class Dies(Numbers):
    def __call__(self, sample, rng):
        if sample.id == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(sample, rng)


class Hangs(Numbers):
    def __call__(self, sample, rng):
        if sample.id == 3:
            time.sleep(60)
        return super().__call__(sample, rng)


class Large(Numbers):
    def __call__(self, sample, _rng):
        return {"much": np.full(1 << 20, sample.id, dtype=np.uint8)}


class Grows(Numbers):
    def __call__(self, _sample, _rng, *, progress=0.0):
        return {"progress": np.array(progress)}


@pytest.fixture
def dataset(tmp_path):
    shard = shard_of(tmp_path / ".cache/shards", "s", [bytes([i]) * 4 for i in range(23)])
    return view(tmp_path, [row(0, i, origin=f"list.txt:{i + 1}") for i in range(23)], [shard])


@pytest.fixture(autouse=True)
def _importable(monkeypatch):
    """Workers are programs of their own, which have to find the transforms of this file."""
    here = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1])])
    monkeypatch.setenv("PYTHONPATH", here)


def order(batch_size=4):
    return Order(23, batch_size=batch_size, seed=1)


def same(first, second):
    assert first.keys() == second.keys()
    for name in first:
        assert np.array_equal(first[name], second[name]), name


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_make_the_same_batches_in_the_same_order(dataset, workers):
    with Loader(dataset, order(), Numbers(), workers=workers, seed=5) as several:
        alone = Loader(dataset, order(), Numbers(), seed=5)
        for ours, theirs in zip(islice(alone, 14), islice(several, 14), strict=True):
            same(ours, theirs)


def test_workers_begin_before_the_first_batch_is_asked_for(dataset):
    with Loader(dataset, order(), Numbers(), workers=1) as loader:
        batches = iter(loader)
        [worker] = loader._workers
        deadline = time.monotonic() + 60
        while worker._sample() == "its start":
            assert time.monotonic() < deadline, "nothing was made ahead"
            time.sleep(0.01)
        same(next(batches), loader.batch(0, 0))


def test_an_epoch_over_any_number_of_ranks_is_each_sample_once(dataset):
    for world in (1, 2, 3):
        seen = []
        for rank in range(world):
            batches = islice(Loader(dataset, order(), Numbers(), rank=rank, world=world), order().steps_per_epoch)
            seen += [int(index) for batch in batches for index in batch["index"]]
        assert sorted(seen) == list(range(23))


def test_it_goes_on_where_it_is_told_to(dataset):
    whole = list(islice(Loader(dataset, order(), Numbers(), seed=5), 15))
    rest = list(islice(Loader(dataset, order(), Numbers(), seed=5, start=(1, 2)), 7))
    steps = order().steps_per_epoch
    for ours, theirs in zip(whole[steps + 2 :], rest, strict=True):
        same(ours, theirs)
    same(whole[3], Loader(dataset, order(), Numbers(), seed=5).batch(0, 3))


def test_a_sample_that_fails_is_named(dataset):
    for workers in (0, 2):
        with (
            Loader(dataset, order(), Fails(), workers=workers) as loader,
            pytest.raises(DataError, match=r"list.txt:4: .*no good"),
        ):
            exhaust(loader)


def test_a_dead_worker_is_named_with_its_sample(dataset):
    with (
        Loader(dataset, order(), Dies(), workers=2) as loader,
        pytest.raises(OCRFineTuneError, match=r"was killed by signal 9 while it was at sample 3 \(list.txt:4\)"),
    ):
        exhaust(loader)


def test_a_hung_worker_is_named_with_its_sample(dataset):
    with (
        Loader(dataset, order(), Hangs(), workers=1, stall_timeout=4.0) as loader,
        pytest.raises(OCRFineTuneError, match=r"no batch for 4 s; it is at sample 3"),
    ):
        exhaust(loader)


def exhaust(loader):
    for _ in islice(loader, 30):
        pass


def test_batches_of_any_size_fit(dataset):
    with Loader(dataset, order(), Large(), workers=1) as loader:
        for batch in islice(loader, 6):
            assert batch["much"].shape == (len(batch["index"]), 1 << 20)
            assert (batch["much"] == batch["index"][:, None]).all()


def test_shared_memory_is_checked_before_a_worker_starts(dataset, monkeypatch):
    monkeypatch.setattr(loader_module, "_memory_left", lambda: 10)
    with pytest.raises(ConfigurationError, match="MiB are left"):
        next(iter(Loader(dataset, order(), Numbers(), workers=2)))


def test_workers_hold_neither_paddle_nor_survive(dataset):
    loader = Loader(dataset, order(), Numbers(), workers=2)
    next(iter(loader))
    pids = [worker._process.pid for worker in loader._workers]
    for pid in pids:
        assert "paddle" not in Path(f"/proc/{pid}/maps").read_text()
    loader.close()
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_transforms_may_know_how_far_training_is(dataset):
    loader = Loader(dataset, order(), Grows(), total_steps=12, start=(0, 3))
    assert [float(batch["progress"][0]) for batch in islice(loader, 3)] == [3 / 12, 4 / 12, 5 / 12]
