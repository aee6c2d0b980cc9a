"""The checks of an exported recognition model: every text is compared with the trained model's."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ocr_finetune_trainer.data.pictures import PictureError, decode
from ocr_finetune_trainer.evaluation.evaluate import measure_recognition
from ocr_finetune_trainer.evaluation.reader import Padding
from ocr_finetune_trainer.evaluation.records import ReadSample, RecognitionMeasurement
from ocr_finetune_trainer.export.checks import Measured, Stopwatch
from ocr_finetune_trainer.export.serving import ServedReader
from ocr_finetune_trainer.geometry import RecognitionGeometry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ocr_finetune_trainer.evaluation.held_out import HeldOutSet
    from ocr_finetune_trainer.evaluation.networks import Network
    from ocr_finetune_trainer.evaluation.subjects import Subject

__all__ = ["RecognitionChecker"]

_SERVED_BATCH = 8


class RecognitionChecker:
    """Reads the test set with each format, padded as serving pads a crop that comes alone.

    Args:
        subject: The trained model.
        measured_on: The test set.
        serving_name: The name it is served under.
    """

    metric = "accuracy"

    def __init__(self, subject: Subject, *, measured_on: HeldOutSet, serving_name: str) -> None:
        if not isinstance(subject.geometry, RecognitionGeometry) or subject.dictionary is None:
            raise TypeError(f"{subject.model_name} is no recognition model")
        self._subject = subject
        self._geometry = subject.geometry
        self._dictionary = subject.dictionary
        self._set = measured_on
        self._serving_name = serving_name

    def same(self, first: Any, second: Any) -> bool:
        """Whether two texts are equal."""
        return bool(first == second)

    def reference(self) -> Measured:
        """The trained model itself."""
        return self.network(self._subject.layer)

    def network(self, network: Network | Any) -> Measured:
        """A format that runs in a network of ours, or a layer."""
        with Stopwatch() as watch:
            measurement = measure_recognition(
                network,
                self._set.dataset,
                geometry=self._geometry,
                dictionary=self._dictionary,
                padding=Padding.SERVING,
                unusable=self._set.unusable,
            )
        return _measured(measurement, watch.seconds)

    def served(self, folder: Path) -> Measured:
        """The folder in `paddleocr.TextRecognition`.

        It pads to the widest crop of a batch, so crops of different widths never share one here.
        """
        reader = ServedReader(folder, serving_name=self._serving_name)
        dataset = self._set.dataset
        samples: dict[int, ReadSample] = {}
        with Stopwatch() as watch:
            for indices in self._same_width():
                pictures = {index: picture for index in indices if (picture := _picture(dataset, index)) is not None}
                texts = dict(zip(pictures, reader.read(list(pictures.values()), batch_size=_SERVED_BATCH), strict=True))
                for index in indices:
                    text, score = texts.get(index, ("", 0.0))
                    label = dataset.texts[index]
                    samples[index] = ReadSample(index=index, label=label, prediction=text, score=score)
        measurement = RecognitionMeasurement(
            samples=tuple(samples[index] for index in sorted(samples)),
            readable=frozenset("".join(self._dictionary.classes)),
            unusable=self._set.unusable,
        )
        return _measured(measurement, watch.seconds)

    def _same_width(self) -> Iterator[list[int]]:
        groups: dict[int, list[int]] = {}
        for index, (width, height) in enumerate(self._set.dataset.sizes.tolist()):
            groups.setdefault(self._geometry.padded_width(height=height, width=width), []).append(index)
        for width in sorted(groups):
            members = groups[width]
            # Decoded pictures of one call lie in memory together.
            for start in range(0, len(members), 256):
                yield members[start : start + 256]


def _picture(dataset: Any, index: int) -> Any:
    try:
        return decode(dataset.image(index))
    except PictureError:
        return None


def _measured(measurement: RecognitionMeasurement, seconds: float) -> Measured:
    return Measured(
        metrics=measurement.metric.scores().as_dict(), outputs=list(measurement.texts), seconds=max(seconds, 1e-9)
    )
