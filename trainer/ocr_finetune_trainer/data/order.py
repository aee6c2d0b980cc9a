"""Which samples make up which step: a pure function of seed, epoch and step.

Nothing is fetched, remembered or shuffled elsewhere, so the order is the same for any number of ranks and workers,
and a
resumed run needs nothing but its step. Every sample is seen exactly once an epoch; with weights, the first source is,
and
of the others a cursor takes the next part of an endless series of shuffles, without a draw twice before all were drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ocr_finetune_api.spec import DatasetSpec

__all__ = ["Order", "generator", "mixing_weights", "rarity"]

# Streams of random numbers that must never meet, as part of the generators' keys.
_EPOCH, _PASS, _SAMPLE, _FRACTION = range(4)


def generator(seed: int, epoch: int, index: int, *, step: int = 0, stream: int = _SAMPLE) -> np.random.Generator:
    """The random numbers of one sample in one epoch: Philox, keyed by seed and stream, at a counter of its own.

    The step is part of the counter, so that a sample that is drawn twice in an epoch is augmented in two ways.
    """
    key = np.array([seed, stream], dtype=np.uint64)
    counter = np.array([0, step, epoch, index], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


class Order:
    """The order of a training set.

    Attributes:
        batch_size: Samples a step, over all ranks.
        samples_per_epoch: Samples an epoch.
        steps_per_epoch: Steps an epoch.
    """

    def __init__(
        self,
        count: int,
        *,
        batch_size: int,
        seed: int,
        buckets: NDArray[np.integer] | None = None,
        sources: NDArray[np.integer] | None = None,
        weights: Sequence[float] | None = None,
        copies: NDArray[np.floating] | None = None,
        shuffle: bool = True,
    ) -> None:
        """Prepares the order.

        Args:
            count: Samples of the data set, N.
            batch_size: Samples a step, over all ranks.
            seed: Decides everything random.
            buckets: (N,): samples of different buckets are put into one batch only at the end of their buckets.
            sources: (N,): source of each sample; needed with `weights`.
            weights: Weight of each source, the first one above 0; a source of weight 0 is never drawn. None takes
                each sample once an epoch.
            copies: (N,): how often each sample is drawn an epoch in the mean, at least 1 each; None: once.
            shuffle: Whether the order is random; evaluation wants the data set's own, in batches of neighbours.

        Raises:
            ValueError: There is no sample, a batch of none, or a source that is weighted but empty.
        """
        if count < 1 or batch_size < 1:
            raise ValueError(f"{count} samples in batches of {batch_size} make no epoch")
        if weights is not None and copies is not None:
            raise ValueError("an order has weights or copies, not both")
        self.batch_size = batch_size
        self._seed = seed
        self._shuffle = shuffle
        self._buckets = np.zeros(count, dtype=np.int64) if buckets is None else np.asarray(buckets)
        self._copies = None if copies is None else np.asarray(copies, dtype=np.float64)
        self._pools = _pools(count, sources, weights)
        self._draws = _draws(self._pools, weights)
        self.samples_per_epoch = sum(self._draws)
        if self._copies is not None:
            self.samples_per_epoch = int(np.floor(self._copies).sum()) + round(float((self._copies % 1).sum()))
        self.steps_per_epoch = -(-self.samples_per_epoch // batch_size)
        self._planned: tuple[int, list[NDArray[np.int64]]] | None = None

    def step(self, epoch: int, step: int) -> NDArray[np.int64]:
        """The samples of a step, over all ranks: at most `batch_size` of them.

        Args:
            epoch: From 0.
            step: From 0 to `steps_per_epoch - 1`.

        Raises:
            IndexError: The epoch has no such step.
        """
        if not 0 <= step < self.steps_per_epoch:
            raise IndexError(f"an epoch has {self.steps_per_epoch} steps, not step {step}")
        if self._planned is None or self._planned[0] != epoch:
            self._planned = (epoch, self._plan(epoch))
        return self._planned[1][step]

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_planned": None}

    def _plan(self, epoch: int) -> list[NDArray[np.int64]]:
        drawn = self._drawn(epoch)
        if not self._shuffle:
            drawn = drawn[np.argsort(self._buckets[drawn], kind="stable")]
            return [drawn[at : at + self.batch_size] for at in range(0, len(drawn), self.batch_size)]
        random = generator(self._seed, epoch, 0, stream=_EPOCH)
        drawn = random.permutation(drawn)
        batches, rest = self._full(drawn)
        batches += self._even(batches, rest)
        return [batches[i] for i in random.permutation(len(batches))]

    def _drawn(self, epoch: int) -> NDArray[np.int64]:
        if self._copies is not None:
            return self._copied(epoch)
        parts = []
        for number, (pool, draws) in enumerate(zip(self._pools, self._draws, strict=True)):
            start = epoch * draws
            parts.append(self._taken(number, pool, start, draws) if draws != len(pool) else pool)
        return np.concatenate(parts)

    def _taken(self, number: int, pool: NDArray[np.int64], start: int, draws: int) -> NDArray[np.int64]:
        """Draws `start` to `start + draws` of the endless series of shuffles of a source."""
        parts: list[NDArray[np.int64]] = []
        while draws > 0:
            turn, at = divmod(start, len(pool))
            shuffled = generator(self._seed, turn, number, stream=_PASS).permutation(pool)
            part = shuffled[at : at + draws]
            parts.append(part)
            start += len(part)
            draws -= len(part)
        return np.concatenate(parts)

    def _copied(self, epoch: int) -> NDArray[np.int64]:
        """Each sample its whole number of times, and the fractions by systematic sampling: their sum is exact."""
        assert self._copies is not None
        whole = np.floor(self._copies).astype(np.int64)
        random = generator(self._seed, epoch, 0, stream=_FRACTION)
        mixed = random.permutation(len(whole))
        total = self.samples_per_epoch - int(whole.sum())
        bounds = np.cumsum((self._copies % 1)[mixed])
        extra = np.zeros(0, dtype=np.int64)
        if total:
            points = (np.arange(total) + random.random()) * (bounds[-1] / total)
            extra = mixed[np.minimum(np.searchsorted(bounds, points, side="right"), len(mixed) - 1)]
        return np.concatenate([np.repeat(np.arange(len(whole), dtype=np.int64), whole), extra])

    def _full(self, drawn: NDArray[np.int64]) -> tuple[list[NDArray[np.int64]], NDArray[np.int64]]:
        """Full batches of one bucket each, and the rest of all buckets, the narrow ones first."""
        buckets = self._buckets[drawn]
        batches: list[NDArray[np.int64]] = []
        rest: list[NDArray[np.int64]] = []
        for bucket in np.unique(buckets):
            members = drawn[buckets == bucket]
            full = len(members) // self.batch_size * self.batch_size
            batches += list(members[:full].reshape(-1, self.batch_size))
            rest.append(members[full:])
        return batches, np.concatenate(rest)

    def _even(self, batches: list[NDArray[np.int64]], rest: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """Batches of the rest, none under half the size if it can be: a rank without a sample would only wait."""
        if not len(rest):
            return []
        count = -(-len(rest) // self.batch_size)
        if count * self.batch_size >= 2 * len(rest) and batches:
            rest = np.concatenate([batches.pop(), rest])
            count += 1
        return list(np.array_split(rest, count))


def _pools(count: int, sources: NDArray[np.integer] | None, weights: Sequence[float] | None) -> list[NDArray[np.int64]]:
    if weights is None:
        return [np.arange(count, dtype=np.int64)]
    if sources is None:
        raise ValueError("weights need the source of each sample")
    pools = [np.flatnonzero(np.asarray(sources) == number) for number in range(len(weights))]
    empty = [number for number, pool in enumerate(pools) if weights[number] > 0 and not len(pool)]
    if empty:
        raise ValueError(f"sources {empty} have a weight but no sample")
    return pools


def _draws(pools: Sequence[NDArray[np.int64]], weights: Sequence[float] | None) -> list[int]:
    """Samples of each source an epoch: all of the first, and of the others in proportion to their weights."""
    if weights is None:
        return [len(pool) for pool in pools]
    first = len(pools[0])
    return [first, *(max(1, round(first * weight / weights[0])) if weight else 0 for weight in weights[1:])]


def mixing_weights(spec: DatasetSpec, names: Sequence[str]) -> list[float] | None:
    """The weight of each source of a training set, as `Order` takes them.

    Args:
        spec: The data set of the manifest.
        names: The sources of the prepared set (`DataSet.source_names`), drawn lines among them.

    Returns:
        None if the manifest weighs nothing. Drawn lines get their share of all others.
    """
    given = {source.name: source.weight for source in spec.train if source.weight is not None}
    if not given:
        return None
    if spec.synthetic is not None:
        given.setdefault("synthetic", spec.synthetic.share * sum(given.values()))
    return [given.get(name, 0.0) for name in names]


def rarity(texts: Sequence[str], *, threshold: float = 1e-3, most: float = 10.0) -> NDArray[np.float64]:
    """How often each sample should be drawn an epoch, so that rare characters are seen more often.

    The repeat factor of LVIS (https://arxiv.org/abs/1908.03195): the square root of `threshold` over the part of
    samples
    that hold a sample's rarest character.

    Args:
        texts: N labels.
        threshold: Characters in a smaller part of the samples are rare.
        most: No sample is drawn more often than this.

    Returns:
        float64 (N,), from 1 to `most`.
    """
    counts: dict[str, int] = {}
    for text in texts:
        for character in set(text):
            counts[character] = counts.get(character, 0) + 1
    total = max(len(texts), 1)
    factor = {c: min(most, max(1.0, (threshold * total / n) ** 0.5)) for c, n in counts.items()}
    return np.asarray([max((factor[c] for c in set(text)), default=1.0) for text in texts], dtype=np.float64)
