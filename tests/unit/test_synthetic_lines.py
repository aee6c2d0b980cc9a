"""Lines are drawn from the user's text and fonts, the same every time, and nothing is measured on them."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import ImageFont
from test_prepare import config_of, run, sets

import good_data
from ocr_finetune_api.exit_codes import DataError, InputMissingError
from ocr_finetune_api.spec import DatasetSpec
from ocr_finetune_trainer.data.order import Order, mixing_weights
from ocr_finetune_trainer.data.pictures import decode
from ocr_finetune_trainer.data.synthetic_lines import Recipe, draw


@pytest.fixture
def material(tmp_path):
    (tmp_path / "corpus.txt").write_text("first line\nsecond, longer line of text\n" + "many words " * 20, "utf-8")
    (tmp_path / "fonts").mkdir()
    font = ImageFont.load_default(20)
    (tmp_path / "fonts/default.ttf").write_bytes(font.font_bytes)
    good_data.save(tmp_path / "backgrounds/a.png", good_data.picture(1, height=300, width=300))
    return tmp_path


def recipe(material, **more) -> Recipe:
    values = {"corpus": material / "corpus.txt", "fonts": material / "fonts", "backgrounds": None, "count": 12}
    return Recipe(**{**values, **more})


@pytest.mark.parametrize("backgrounds", [False, True])
def test_lines_say_what_they_are_labelled_with(material, backgrounds):
    given = recipe(material, backgrounds=material / "backgrounds" if backgrounds else None)
    folder = draw(given, cache=material / "cache")
    rows = [row.split("\t") for row in (folder / "list.txt").read_text().splitlines()]
    assert len(rows) == 12
    corpus = (material / "corpus.txt").read_text()
    for path, text in rows:
        assert text in corpus
        assert len(text) <= 40
        picture = decode((folder / path).read_bytes())
        assert 20 < picture.shape[0] < 120
        assert picture.shape[1] > 4 * len(text)
        assert np.ptp(picture.mean(axis=2)) > 50
    assert len({(folder / path).read_bytes() for path, _ in rows}) == 12


def test_the_same_recipe_draws_the_same_lines_once(material):
    first = draw(recipe(material), cache=material / "one")
    second = draw(recipe(material), cache=material / "two")
    assert first.name == second.name
    for path in sorted(first.rglob("*.*")):
        assert path.read_bytes() == (second / path.relative_to(first)).read_bytes()
    stamps = {path: path.stat().st_mtime_ns for path in first.rglob("*")}
    assert draw(recipe(material), cache=material / "one") == first
    assert {path: path.stat().st_mtime_ns for path in first.rglob("*")} == stamps
    assert draw(recipe(material, seed=1), cache=material / "one") != first


def test_what_no_font_has_is_told(material):
    (material / "corpus.txt").write_text("漢字\n", "utf-8")
    with pytest.raises(DataError, match="missing are 字 漢"):
        draw(recipe(material), cache=material / "cache")
    assert not list((material / "cache").rglob("list.txt"))
    (material / "corpus.txt").write_text("漢字\nplain\n", "utf-8")
    folder = draw(recipe(material), cache=material / "cache")
    assert {row.split("\t")[1] for row in (folder / "list.txt").read_text().splitlines()} == {"plain"}


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"corpus": "nowhere"}, InputMissingError, "corpus: .*can't be read"),
        ({"fonts": "nowhere"}, InputMissingError, "no such font"),
        ({"fonts": "backgrounds"}, InputMissingError, "holds no font"),
        ({"corpus": "empty.txt"}, DataError, "is empty"),
        ({"fonts": "broken.ttf"}, DataError, "no font that can be read"),
    ],
)
def test_mistakes_are_named(material, change, error, says):
    (material / "empty.txt").write_text("\n")
    (material / "broken.ttf").write_bytes(b"x")
    with pytest.raises(error, match=says):
        draw(recipe(material, **{key: material / value for key, value in change.items()}), cache=material / "cache")


def test_drawn_lines_are_trained_on_and_never_measured(material):
    good_data.lines(material / "data", count=40)
    synthetic = {"corpus": str(material / "corpus.txt"), "fonts": str(material / "fonts"), "share": 0.5}
    workspace, outcome = run(material, config_of(material / "data", test={"fraction": 0.2}, synthetic=synthetic))
    assert outcome.details["sources"]["train"]["synthetic"] == 20
    for name in ("validation", "test"):
        assert set(outcome.details["sources"][name]) == {"train"}
    train = sets(workspace)["train"]
    assert "synthetic" in train.source_names
    for values, expected in (({}, None), ({"weight": 2.0}, [2.0, 1.0])):
        spec = DatasetSpec.model_validate({"train": [{"uri": "x", **values}], "synthetic": synthetic})
        assert mixing_weights(spec, train.source_names) == expected
    order = Order(len(train), batch_size=4, seed=0, sources=train.sources, weights=[2.0, 1.0])
    drawn = np.concatenate([order.step(0, step) for step in range(order.steps_per_epoch)])
    real = int((train.sources == 0).sum())
    assert np.bincount(train.sources[drawn]).tolist() == [real, round(real / 2)]
