"""Where training gets its batches: the prepared data set in the order of the run, made ready by the loader."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ocr_finetune_api import overrides
from ocr_finetune_api.model_table import Kind, lookup
from ocr_finetune_api.overrides import Part
from ocr_finetune_trainer.data.augment.recognition import suited
from ocr_finetune_trainer.data.loader import Loader
from ocr_finetune_trainer.data.order import Order, mixing_weights, rarity
from ocr_finetune_trainer.data.recognition_samples import RecognitionTransform, frame_stride, width_buckets
from ocr_finetune_trainer.geometry import RecognitionGeometry

if TYPE_CHECKING:
    from ocr_finetune_api.spec import OCRFineTuneSpec
    from ocr_finetune_trainer.data.store import DataSet
    from ocr_finetune_trainer.dictionary import Dictionary
    from ocr_finetune_trainer.geometry import Geometry
    from ocr_finetune_trainer.training.step import Batch

__all__ = ["DataFeed", "make_order", "make_transform"]

logger = logging.getLogger(__name__)


class DataFeed:
    """The batches of one rank.

    Attributes:
        order: The order of samples.
        steps_per_epoch: Steps of an epoch.
    """

    def __init__(
        self,
        dataset: DataSet,
        order: Order,
        transform: Any,
        *,
        rank: int,
        world: int,
        workers: int,
        seed: int,
        steps: int,
    ) -> None:
        """Prepares the feed; nothing is read yet.

        Args:
            dataset: Training samples.
            order: Their order.
            transform: Makes a sample or a batch, see `ocr_finetune_trainer.data.worker`.
            rank: This process.
            world: How many there are.
            workers: Data-loading processes.
            seed: Of the augmentation.
            steps: Steps of the whole training, for targets that change over it.
        """
        self._steps = steps
        self.order = order
        self.steps_per_epoch = order.steps_per_epoch
        # The loader is ahead, in the next epoch at the end of this one; an order remembers one epoch at a time.
        self._counted = copy(order)
        self._dataset = dataset
        self._transform = transform
        self._rank = rank
        self._world = world
        self._workers = workers
        self._seed = seed

    def total(self, step: int) -> int:
        """Samples of a step over all ranks."""
        return len(self._counted.step(*divmod(step, self.steps_per_epoch)))

    @contextmanager
    def open(self, step: int) -> Iterator[Iterator[Batch]]:
        """The batches from a step on; its processes begin with the context, and end with it."""
        loader = Loader(
            self._dataset,
            self.order,
            self._transform,
            rank=self._rank,
            world=self._world,
            workers=self._workers,
            start=divmod(step, self.steps_per_epoch),
            seed=self._seed,
            total_steps=self._steps,
        )
        with loader:
            yield self._never_empty(iter(loader), loader)

    def _never_empty(self, batches: Iterator[Batch], loader: Loader) -> Iterator[Batch]:
        """Gives a rank that has no sample in a step something to compute: the others wait for it in any case.

        Such a batch has pictures and an empty `index`: it counts nothing, so what is in it does not matter, but it must be
        the same in a run that was interrupted.
        """
        spare: Batch | None = None
        for batch in batches:
            if len(batch["index"]):
                yield batch
                continue
            spare = spare or self._first_sample(loader)
            yield {**spare, "index": batch["index"], "source": batch["source"]}

    def _first_sample(self, loader: Loader) -> Batch:
        steps = range(self.steps_per_epoch)
        first = next(step for step in steps if len(loader.task(0, step).indices))
        return {name: values[:1] for name, values in loader.batch(0, first).items()}

    def origins(self, indices: list[int]) -> list[str]:
        """Where samples come from, for messages."""
        return [self._dataset.origin(index) for index in indices]


def make_order(dataset: DataSet, spec: OCRFineTuneSpec, *, geometry: Geometry, batch_size: int) -> Order:
    """The order of a training set.

    Args:
        dataset: Training samples.
        spec: The run's spec: its seed, the weights of its sources.
        geometry: The model's.
        batch_size: Samples of a step over all ranks.
    """
    buckets = None
    if isinstance(geometry, RecognitionGeometry):
        buckets = width_buckets(dataset, geometry=geometry, stride=frame_stride(spec.model.name))
    weights = mixing_weights(spec.dataset, dataset.source_names)
    oversample = spec.dataset.rare_characters == "oversample" and not weights
    return Order(
        len(dataset),
        batch_size=batch_size,
        seed=spec.training.seed,
        buckets=buckets,
        sources=dataset.sources,
        weights=weights,
        copies=rarity(dataset.texts) if oversample else None,
    )


def make_transform(
    spec: OCRFineTuneSpec, *, geometry: Geometry, dictionary: Dictionary | None, guided: bool, longest: int = 25
) -> Any:
    """What makes training samples of stored ones.

    Args:
        spec: The run's spec.
        geometry: The model's.
        dictionary: The model's characters, for a recognition model.
        guided: Whether the guided branch is trained.
        longest: Longest label in characters.
    """
    info = lookup(spec.model.name)
    plain = spec.training.augmentation == "none"
    changes = {part: overrides.settings(spec.training.config, part, info.kind) for part in Part}
    if info.kind is Kind.DETECTION:
        from ocr_finetune_trainer.data.detection_samples import DetectionAugmentation, DetectionTransform

        augmentation = DetectionAugmentation.none() if plain else DetectionAugmentation(**changes[Part.PAGES])
        return DetectionTransform.for_model(
            spec.model.name,
            geometry=geometry,  # type: ignore[arg-type]
            augmentation=augmentation,
            pretrained=spec.model.pretrained != "none",
            targets=changes[Part.TARGETS],
        )
    if info.kind is Kind.TABLE:
        from ocr_finetune_trainer.data.table_samples import TableAugmentation, TableTransform

        return TableTransform(geometry, None if plain else TableAugmentation())  # type: ignore[arg-type]
    if info.kind is Kind.ORIENTATION:
        from ocr_finetune_trainer.data.orientation_samples import OrientationTransform

        return OrientationTransform(geometry, augment=not plain)  # type: ignore[arg-type]
    assert dictionary is not None
    return RecognitionTransform(
        geometry,  # type: ignore[arg-type]
        dictionary,
        None if plain else replace(suited(spec.model.name, longest=longest), **changes[Part.LINES]),
        guide=info.guide if guided else "",
        stride=frame_stride(spec.model.name),
    )
