"""From a labelled page to what a detector trains on: a picture of fixed size and the four maps it learns.

The loader calls `DetectionTransform` once a sample, with a generator made from seed, epoch and sample. The picture
stays uint8: normalisation is the device's work.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

import cv2
import numpy as np

from ocr_finetune_trainer.data.augment.detection import View, bounds, choose_window, draw, flip, paste, rotate, through
from ocr_finetune_trainer.data.db_targets import TargetRule, db_targets
from ocr_finetune_trainer.data.pictures import PictureError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from ocr_finetune_trainer.geometry import DetectionGeometry

__all__ = ["DetectionAugmentation", "DetectionTransform", "LabelledPage"]

# Trained with a shrink ratio that stays at 0.4; all later ones saw it grow to 0.6.
_CONSTANT_RATIO = frozenset({"DB_mv3", "DB_r50_vd", "PP-OCRv2_mobile_det"})
_FIRST_RATIO, _LAST_RATIO = 0.4, 0.6

_DECODERS = {1: cv2.IMREAD_COLOR, 2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4}


class LabelledPage(Protocol):
    """What a sample must have; `data.store.Sample` has it.

    Attributes:
        image: The encoded picture.
        width: Columns of the decoded picture.
        height: Rows of the decoded picture.
        polygons: Outlines of the texts, float32 (K, 2) each, x and y in pixels; None if the sample isn't a page.
        ignored: For each, whether it can't be read.
        origin: Where it comes from, for messages.
    """

    @property
    def image(self) -> bytes: ...  # noqa: D102
    @property
    def width(self) -> int: ...  # noqa: D102
    @property
    def height(self) -> int: ...  # noqa: D102
    @property
    def polygons(self) -> Sequence[NDArray[np.float32]] | None: ...  # noqa: D102
    @property
    def ignored(self) -> Sequence[bool]: ...  # noqa: D102
    @property
    def origin(self) -> str: ...  # noqa: D102


@dataclass(frozen=True, kw_only=True)
class DetectionAugmentation:
    """How much pages are changed; the defaults follow PP-OCRv5's recipe.

    Attributes:
        flip_across: Probability of a mirror image.
        flip_down: Probability of one upside down.
        rotation: Largest rotation in degrees.
        zoom: Least and largest magnification against the size at which the page will be served.
        paste_share: Share of a page's texts that is copied to free places, at least one.
        paste_most: At most this many.
        paste_rotation: Largest rotation of a copy in degrees.
    """

    flip_across: float = 0.5
    flip_down: float = 0.0
    rotation: float = 10.0
    zoom: tuple[float, float] = (0.5, 3.0)
    paste_share: float = 0.2
    paste_most: int = 30
    paste_rotation: float = 180.0

    def __post_init__(self) -> None:
        if not 0.0 < self.zoom[0] <= self.zoom[1]:
            raise ValueError(f"zoom must be two positive numbers, the smaller first, not {self.zoom}")
        for name in ("flip_across", "flip_down", "paste_share"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} must be between 0 and 1, not {getattr(self, name)}")

    @classmethod
    def none(cls) -> DetectionAugmentation:
        """Pages as they are served, cut only where they are larger than the canvas."""
        return cls(flip_across=0.0, rotation=0.0, zoom=(1.0, 1.0), paste_share=0.0)


@dataclass(frozen=True, kw_only=True)
class DetectionTransform:
    """Makes training samples.

    Attributes:
        geometry: The model's geometry: the canvas, and the size at which a page is served.
        augmentation: How much pages are changed.
        targets: How outlines become maps.
        shrink_growth: What is added to the shrink ratio over the training.
    """

    geometry: DetectionGeometry
    augmentation: DetectionAugmentation = field(default_factory=DetectionAugmentation)
    targets: TargetRule = field(default_factory=TargetRule)
    shrink_growth: float = _LAST_RATIO - _FIRST_RATIO

    @classmethod
    def for_model(
        cls,
        model_name: str,
        *,
        geometry: DetectionGeometry,
        augmentation: DetectionAugmentation | None = None,
        pretrained: bool,
        targets: Mapping[str, Any] | None = None,
    ) -> DetectionTransform:
        """The transform that suits where a training starts.

        From scratch the cores grow from a ratio of 0.4 to 0.6, as PP-OCRv3 and later were trained: small ones are
        easier to tell apart, large ones give boxes of the right size after `unclip_ratio` 1.5. Their published weights
        have learnt 0.6. PaddleOCR starts a fine-tuning of them at 0.4 again, so that the first evaluations fall below
        the model it started from; here it stays at 0.6.

        Args:
            model_name: A detection model of the table.
            geometry: Its geometry.
            augmentation: How much pages are changed.
            pretrained: Whether training starts from weights that find text already.
            targets: Fields of `TargetRule` that are to be others; a shrink ratio that is given does not grow.
        """
        first = _LAST_RATIO if pretrained and model_name not in _CONSTANT_RATIO else _FIRST_RATIO
        rule = TargetRule(**{"shrink_ratio": first, **(targets or {})})
        return cls(
            geometry=geometry,
            augmentation=augmentation or DetectionAugmentation(),
            targets=rule,
            shrink_growth=0.0 if targets and "shrink_ratio" in targets else _LAST_RATIO - first,
        )

    def __call__(
        self, sample: LabelledPage, rng: np.random.Generator, *, progress: float = 0.0
    ) -> dict[str, NDArray[np.generic]]:
        """Makes one sample.

        Args:
            sample: A labelled page.
            rng: The generator; the same one gives the same sample.
            progress: How much of the training is over, 0 to 1.

        Returns:
            `image` uint8 (H, W, 3), BGR, and the maps of `db_targets`, (H, W); H and W are the geometry's.

        Raises:
            ValueError: The sample isn't a page.
            PictureError: Its picture can't be decoded.
        """
        if sample.polygons is None:
            raise ValueError(f"{sample.origin}: is a line of text, not a page")
        canvas = (self.geometry.train_height, self.geometry.train_width)
        # What a label says beyond the page can't be seen; a text must not count as cut for it.
        page = np.array((sample.width, sample.height), np.float32)
        outlines = [np.minimum(np.maximum(polygon, 0.0), page) for polygon in sample.polygons]
        wanted = [outline for outline, skip in zip(outlines, sample.ignored, strict=True) if not skip]
        view, zoom = self._choose_view(sample, wanted, rng, canvas=canvas)
        reduced = max((step for step in _DECODERS if step * zoom <= 1.0), default=1)
        picture = _decode(sample, reduced)
        image = draw(picture, view, reduced=reduced)

        seen = view.polygons(outlines)
        boxes, size = bounds(seen), np.array((canvas[1], canvas[0]))
        touching = np.all((boxes[:, 2:] > 0) & (boxes[:, :2] < size), axis=1)
        # A text that the canvas cuts is there to see but not to learn; half a pixel is rounding.
        whole = np.all((boxes[:, :2] >= -0.5) & (boxes[:, 2:] <= size + 0.5), axis=1).tolist()
        shown = np.flatnonzero(touching).tolist()
        polygons = [seen[i] for i in shown]
        ignored = [sample.ignored[i] or not whole[i] for i in shown]
        copies = paste(
            image,
            polygons,
            wanted,
            rng,
            picture=picture,
            zoom=zoom,
            degrees=self.augmentation.paste_rotation,
            most=self._copies(len(wanted)),
            reduced=reduced,
        )
        rule = replace(self.targets, shrink_ratio=self.targets.shrink_ratio + self.shrink_growth * progress)
        maps = db_targets(
            [*polygons, *copies],
            [*ignored, *([False] * len(copies))],
            height=canvas[0],
            width=canvas[1],
            rule=rule,
        )
        # `db_targets` clips outlines corner by corner, as PaddleOCR does; that leaves parts of a turned one unmasked.
        for i in shown:
            if not whole[i]:
                cv2.fillPoly(maps["shrink_mask"], [np.floor(seen[i]).astype(np.int32)], 0)
        return {"image": image, **maps}

    def _choose_view(
        self,
        sample: LabelledPage,
        wanted: Sequence[NDArray[np.float32]],
        rng: np.random.Generator,
        *,
        canvas: tuple[int, int],
    ) -> tuple[View, float]:
        """The view onto the canvas, and its magnification."""
        change = self.augmentation
        view = View.of_page(width=sample.width, height=sample.height)
        view = flip(view, rng, across=change.flip_across, down=change.flip_down)
        view = rotate(view, rng, degrees=change.rotation)
        rows, columns = self.geometry.rule.size(height=sample.height, width=sample.width)
        served = (rows / sample.height * (columns / sample.width)) ** 0.5
        window = choose_window(
            view,
            view.polygons(wanted),
            rng,
            canvas=canvas,
            zoom=(change.zoom[0] * served, change.zoom[1] * served),
        )
        return through(view, window, rng, canvas=canvas), window.zoom

    def _copies(self, texts: int) -> int:
        share = self.augmentation.paste_share
        return min(max(1, int(share * texts)), self.augmentation.paste_most) if share and texts else 0


def _decode(sample: LabelledPage, reduced: int) -> NDArray[np.uint8]:
    picture = cv2.imdecode(np.frombuffer(sample.image, np.uint8), _DECODERS[reduced])
    if picture is None:
        raise PictureError("not-a-picture", f"{sample.origin}: can't be decoded")
    return np.asarray(picture, dtype=np.uint8)
