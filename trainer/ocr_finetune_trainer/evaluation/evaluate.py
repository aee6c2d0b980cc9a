"""Measures a model on a data set: validation in training and the evaluation stage call the same function."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Protocol

from ocr_finetune_trainer.evaluation.reader import Padding, Recogniser
from ocr_finetune_trainer.evaluation.records import Looks, ReadSample, RecognitionMeasurement, looks_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ocr_finetune_trainer.dictionary import Dictionary
    from ocr_finetune_trainer.evaluation.db_postprocess import DBPostProcess
    from ocr_finetune_trainer.geometry import Geometry, RecognitionGeometry

__all__ = ["Measurement", "Samples", "measure", "measure_recognition"]

_CHUNK = 512


class Samples(Protocol):
    """What of a data set is needed here (`ocr_finetune_trainer.data.store.DataSet` has it)."""

    @property
    def sizes(self) -> NDArray[np.int32]:
        """(N, 2) width and height."""

    @property
    def source_names(self) -> Sequence[str]:
        """Names of the sources that a sample's `source` numbers."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Any: ...


class Measurement(Protocol):
    """What a model made of a set, whatever kind it is."""

    @property
    def sums(self) -> NDArray[np.float64]:
        """What ranks add up before they ask `scores_of`: float64 (K,)."""

    @staticmethod
    def scores_of(sums: NDArray[np.float64]) -> dict[str, float | int | None]:
        """The figures under the manifest's names, from `sums` of one rank or of all added up."""


def measure(
    model: Any,
    dataset: Samples,
    *,
    geometry: Geometry,
    dictionary: Dictionary | None = None,
    indices: Sequence[int] | None = None,
    batch_size: int = 32,
    postprocess: DBPostProcess | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Measurement:
    """Measures a model of any kind that reads or finds text; validation in training calls this.

    Args:
        model: A Paddle layer or a `Network`. A layer is left in the mode it was in.
        dataset: The labelled set.
        geometry: How pictures become the model's input; says what kind of model it is.
        dictionary: The model's characters, for a recognition model.
        indices: Which samples; None for all. Give each rank its share, add up `sums` over ranks, then `scores_of`.
        batch_size: Crops in a batch of the least width.
        postprocess: From maps to outlines, for a detection model; None for that of `paddleocr`'s pipeline.
        progress: Called with samples done and samples in all.

    Raises:
        ValueError: A recognition model comes without a dictionary.
    """
    from ocr_finetune_trainer.geometry import DetectionGeometry
    from ocr_finetune_trainer.orientation_geometry import OrientationGeometry
    from ocr_finetune_trainer.table_geometry import TableGeometry

    if isinstance(geometry, TableGeometry):
        from ocr_finetune_trainer.evaluation.tables import measure_tables

        return measure_tables(model, dataset, geometry=geometry, indices=indices, progress=progress)
    if isinstance(geometry, OrientationGeometry):
        from ocr_finetune_trainer.evaluation.orientation import measure_orientation

        return measure_orientation(
            model, dataset, geometry=geometry, indices=indices, batch_size=batch_size, progress=progress
        )
    if isinstance(geometry, DetectionGeometry):
        from ocr_finetune_trainer.evaluation.detection import measure_detection

        return measure_detection(
            model, dataset, geometry=geometry, postprocess=postprocess, indices=indices, progress=progress
        )
    if dictionary is None:
        raise ValueError("a recognition model is measured with its dictionary")
    return measure_recognition(
        model,
        dataset,
        geometry=geometry,
        dictionary=dictionary,
        indices=indices,
        batch_size=batch_size,
        progress=progress,
    )


def measure_recognition(
    model: Any,
    dataset: Samples,
    *,
    geometry: RecognitionGeometry,
    dictionary: Dictionary,
    indices: Sequence[int] | None = None,
    batch_size: int = 32,
    padding: Padding = Padding.BUCKET,
    unusable: int = 0,
    looks: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> RecognitionMeasurement:
    """Reads a data set and compares with its labels.

    Args:
        model: A Paddle layer or a `Network`.
        dataset: Labelled crops.
        geometry: How crops become the model's input.
        dictionary: The model's characters.
        indices: Which samples; None for all. A rank gives its share, and the ranks' `metric.sums` add up.
        batch_size: Crops in a batch of the least width.
        padding: Which width a crop is padded to.
        unusable: Samples that preparation had to leave out of the set; they count as wrong.
        looks: Whether to look at what makes each picture hard, for reports.
        progress: Called with samples done and samples in all.

    Returns:
        Every sample with what was read, sorted by index. A picture that can't be decoded is wrong, never left out.
    """
    recogniser = Recogniser(model, geometry=geometry, dictionary=dictionary, batch_size=batch_size, padding=padding)
    chosen = list(range(len(dataset))) if indices is None else [int(i) for i in indices]
    sizes = dataset.sizes
    # Samples of one width lie together, so that chunks give full batches.
    ordered = sorted(chosen, key=lambda i: (recogniser.width(height=int(sizes[i][1]), width=int(sizes[i][0])), i))
    samples: list[ReadSample] = []
    for chunk in _decoded(dataset, ordered):
        samples += _read(recogniser, chunk, sources=dataset.source_names, look=looks)
        if progress is not None:
            progress(len(samples), len(chosen))
    samples.sort(key=lambda sample: sample.index)
    # Code points: what a label is made of, also where an entry has several of them.
    readable = frozenset("".join(dictionary.classes))
    return RecognitionMeasurement(samples=tuple(samples), readable=readable, unusable=unusable)


_Decoded = list[tuple[int, Any, "NDArray[np.uint8] | None", str]]


def _decoded(dataset: Samples, indices: Sequence[int]) -> Iterator[_Decoded]:
    """Chunks of decoded samples; the next one is decoded while the model reads."""

    def decode(chunk: Sequence[int]) -> _Decoded:
        from ocr_finetune_trainer.data.pictures import PictureError, decode

        decoded: _Decoded = []
        for index in chunk:
            sample = dataset[index]
            try:
                decoded.append((index, sample, decode(sample.image), ""))
            except PictureError as error:
                decoded.append((index, sample, None, str(error)))
        return decoded

    chunks = [indices[start : start + _CHUNK] for start in range(0, len(indices), _CHUNK)]
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="decode") as pool:
        pending = pool.submit(decode, chunks[0]) if chunks else None
        for following in [*chunks[1:], None]:
            if pending is None:
                return
            ready = pending.result()
            pending = pool.submit(decode, following) if following is not None else None
            yield ready


def _read(recogniser: Recogniser, chunk: _Decoded, *, sources: Sequence[str], look: bool) -> list[ReadSample]:
    pictures = [picture for _, _, picture, _ in chunk if picture is not None]
    readings = iter(recogniser.read(pictures))
    samples = []
    for index, sample, picture, problem in chunk:
        text, score = ("", 0.0) if picture is None else next(readings)
        looks: Looks | None = looks_of(picture) if look and picture is not None else None
        samples.append(
            ReadSample(
                index=index,
                label=sample.text,
                prediction=text,
                score=score,
                source=sources[sample.source],
                looks=looks,
                problem=problem,
            )
        )
    return samples
