"""Turned lines: what can be told, how samples are made of recognition data, and how a classifier is measured."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import paddle
import pytest

from ocr_finetune_trainer import losses, models
from ocr_finetune_trainer.data.orientation_samples import OrientationTransform, can_be_told, turn
from ocr_finetune_trainer.data.pictures import encode
from ocr_finetune_trainer.evaluation.evaluate import measure
from ocr_finetune_trainer.evaluation.orientation import show_lines
from ocr_finetune_trainer.geometry import geometry_for
from ocr_finetune_trainer.orientation_geometry import ORIENTATION_GEOMETRY


@dataclass
class Line:
    image: bytes
    text: str
    source: int = 0


@dataclass
class Lines:
    lines: list[Line]
    source_names: tuple[str, ...] = ("lines",)
    sizes: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), dtype=np.int32))

    def __len__(self) -> int:
        return len(self.lines)

    def __getitem__(self, index: int) -> Line:
        return self.lines[index]


def picture(*, top: int) -> np.ndarray:
    """Bright above, dark below, or the reverse."""
    image = np.full((24, 60, 3), 255 - top, np.uint8)
    image[:12] = top
    return image


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("total", True),
        ("H8H", False),
        ("96", False),
        ("69", False),
        ("66", True),
        ("", False),
        ("HI no", True),
        ("pod", False),
    ],
)
def test_what_can_be_told(text: str, told: bool) -> None:
    assert can_be_told(text) is told


def test_samples_are_turned_at_random_and_the_same_for_the_same_numbers() -> None:
    transform = OrientationTransform(ORIENTATION_GEOMETRY, augment=False)
    line = Line(encode(picture(top=255), lossless=True), "total")
    seen = set()
    for seed in range(20):
        sample = transform(line, np.random.default_rng(seed))
        again = transform(line, np.random.default_rng(seed))
        np.testing.assert_array_equal(sample["image"], again["image"])
        assert sample["image"].shape == (80, 160, 3)
        assert bool(sample["turned"]) == (sample["image"][0, 0, 0] < 128)
        seen.add(int(sample["turned"]))
    assert seen == {0, 1}
    symmetric = Line(line.image, "H8H")
    assert not any(transform(symmetric, np.random.default_rng(seed))["turned"] for seed in range(20))


def test_every_line_is_shown_both_ways() -> None:
    lines = Lines([Line(encode(picture(top=255), lossless=True), text) for text in ("total", "H8H")])
    lines.lines.append(Line(b"broken", "price"))

    def judge(images: list[np.ndarray]) -> list[float]:
        return [float(image[0, 0, 0] < 128) for image in images]

    measured = show_lines(judge, lines, unusable=1)
    assert [(line.index, line.turned, line.right) for line in measured.lines] == [
        (0, False, True), (0, True, True), (1, False, True), (2, False, False),
    ]  # fmt: skip
    scores = measured.scores_of(measured.sums)
    assert (scores["samples"], scores["accuracy"], scores["accuracyTurned"]) == (5, 3 / 5, 1.0)
    halves = [show_lines(judge, lines, indices=part).sums for part in ([0, 2], [1])]
    np.testing.assert_array_equal(sum(halves), show_lines(judge, lines).sums)


def test_the_classifier_learns_which_side_is_bright() -> None:
    paddle.seed(0)
    name = "PP-LCNet_x0_25_textline_ori"
    model, loss = models.build(name), losses.build(name)
    lines = [Line(encode(picture(top=200 + 10 * i), lossless=True), "total") for i in range(4)]
    transform = OrientationTransform(geometry_for(name))
    optimizer = paddle.optimizer.Adam(2e-3, parameters=model.parameters())
    for step in range(25):
        samples = [transform(lines[i % 4], np.random.default_rng((step, i))) for i in range(8)]
        x = np.stack([ORIENTATION_GEOMETRY.normalization(s["image"]) for s in samples])
        batch = {"turned": paddle.to_tensor(np.stack([s["turned"] for s in samples]))}
        value = loss(models.train_forward(model, paddle.to_tensor(x), batch), batch)["loss"]
        value.backward()
        optimizer.step()
        optimizer.clear_grad()
    assert float(value) < 0.2
    measured = measure(model, Lines(lines), geometry=geometry_for(name))
    assert measured.scores_of(measured.sums)["samples"] == 8


def test_names_are_paddleclas() -> None:
    state = {
        name: tuple(value.shape) for name, value in models.build("PP-LCNet_x1_0_textline_ori").state_dict().items()
    }
    assert state["conv1.conv.weight"] == (16, 3, 3, 3)
    assert state["blocks6.1.se.conv1.weight"] == (128, 512, 1, 1)
    assert state["last_conv.weight"] == (1280, 512, 1, 1)
    assert state["fc.weight"] == (1280, 2)
    assert np.array_equal(turn(turn(picture(top=9))), picture(top=9))
