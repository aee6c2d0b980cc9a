"""Weights into models: prefixes, layouts, what is told about it, other dictionaries, freezing."""

from __future__ import annotations

import cv2
import numpy as np
import paddle
import pytest

from ocr_finetune_api.exit_codes import ConfigurationError, DataError, ExitCode
from ocr_finetune_trainer import losses, models
from ocr_finetune_trainer.dictionary import Dictionary, targets
from ocr_finetune_trainer.models.classes import carry_over, class_tensor
from ocr_finetune_trainer.models.freezing import Freezing, backbone_stages
from ocr_finetune_trainer.models.weights import load_weights

SMALL = "MobileNetV3_small_ctc"


def _arrays(model: paddle.nn.Layer) -> dict[str, np.ndarray]:
    return {name: tensor.numpy().copy() for name, tensor in model.state_dict().items()}


def _equal(model: paddle.nn.Layer, arrays: dict[str, np.ndarray]) -> bool:
    return all(np.array_equal(tensor.numpy(), arrays[name]) for name, tensor in model.state_dict().items())


def test_a_file_of_the_same_model_is_loaded_whole() -> None:
    arrays = _arrays(models.build("CRNN_r34_vd", characters=7))
    model = models.build("CRNN_r34_vd", characters=7)
    report = load_weights(model, arrays, source="f")
    assert _equal(model, arrays)
    assert (set(report.loaded), report.resized, report.initialised, report.ignored) == (set(arrays), (), {}, ())


@pytest.mark.parametrize("prefix", ["Student.", "Student2.", "module.", "anything."])
def test_a_prefix_is_taken_off(prefix: str) -> None:
    arrays = _arrays(models.build(SMALL, characters=7))
    other = {f"Teacher.{k}": v + 1 for k, v in arrays.items()}
    model = models.build(SMALL, characters=7)
    report = load_weights(model, {**other, **{prefix + k: v for k, v in arrays.items()}}, source="f")
    assert _equal(model, arrays)
    assert report.prefix == prefix
    assert set(report.ignored) == set(other)


def test_a_backbone_alone_is_loaded_where_it_belongs() -> None:
    arrays = _arrays(models.build(SMALL, characters=7))
    backbone = {k.removeprefix("backbone."): v for k, v in arrays.items() if k.startswith("backbone.")}
    model = models.build(SMALL, characters=9)
    report = load_weights(model, backbone, source="f")
    assert set(report.initialised) == {"head.fc.weight", "head.fc.bias"}
    assert report.initialised["head.fc.bias"] == "not in the file"
    assert np.array_equal(model.backbone.conv1.conv.weight.numpy(), arrays["backbone.conv1.conv.weight"])


def test_the_two_layouts_of_v3_load_each_other() -> None:
    arrays = _arrays(models.build("PP-OCRv3_mobile_rec", characters=7))
    model = models.build("PP-OCRv3_mobile_rec_ctc", characters=7)
    report = load_weights(model, arrays, source="f")
    assert report.initialised == {}
    assert all(name.startswith("head.sar_head.") for name in report.ignored)
    assert np.array_equal(model.head.fc.weight.numpy(), arrays["head.ctc_head.fc.weight"])
    back = models.build("PP-OCRv3_mobile_rec", characters=7, guided=False)
    assert load_weights(back, _arrays(model), source="f").initialised == {}


def test_without_guidance_the_guided_branch_is_ignored_and_told() -> None:
    arrays = _arrays(models.build("PP-OCRv5_mobile_rec", characters=7))
    model = models.build("PP-OCRv5_mobile_rec", characters=7, guided=False)
    report = load_weights(model, arrays, source="w.pdparams")
    assert report.initialised == {}
    assert all(name.startswith(("head.gtc_head.", "head.before_gtc.")) for name in report.ignored)
    first, second = report.lines()
    assert first == f"{len(model.state_dict())} tensors loaded from w.pdparams"
    assert "of the file not used: head.gtc_head" in second
    assert report.document()["ignored"] == list(report.ignored)


def test_weights_of_another_model_are_an_error_with_reasons() -> None:
    arrays = _arrays(models.build("PP-OCRv3_mobile_rec_ctc", characters=7))
    with pytest.raises(DataError) as caught:
        load_weights(models.build("CRNN_r34_vd", characters=7), arrays, source="w.pdparams")
    assert caught.value.exit_code == ExitCode.BAD_DATA
    message = str(caught.value)
    assert "w.pdparams: only " in message
    assert all(f"({n})" in message for n in (1, 2, 3))


def test_another_dictionary_without_saying_which_is_an_error() -> None:
    arrays = _arrays(models.build(SMALL, characters=7))
    with pytest.raises(DataError, match=r"head\.fc.weight has 8 classes, the model 10"):
        load_weights(models.build(SMALL, characters=9), arrays, source="f")


def test_the_wrong_dictionary_is_an_error() -> None:
    arrays = _arrays(models.build(SMALL, characters=7))
    with pytest.raises(DataError, match=r"head\.fc.weight: 8 classes, the dictionary says 4"):
        load_weights(
            models.build(SMALL, characters=2),
            arrays,
            source="f",
            old=Dictionary(("a", "b")),
            new=Dictionary(("a",)),
        )


@pytest.mark.parametrize("name", ["PP-OCRv5_mobile_rec", "PP-OCRv3_mobile_rec", "PP-OCRv3_mobile_rec_ctc"])
def test_shared_characters_keep_their_numbers_in_every_head(name: str) -> None:
    old, new = Dictionary(tuple("abcde")), Dictionary(tuple("xeca"), use_space=True)
    paddle.seed(3)
    before = models.build(name, characters=old.size)
    after = models.build(name, characters=new.size)
    report = load_weights(after, _arrays(before), source="f", old=old, new=new)
    expected = {k for k in before.state_dict() if class_tensor(k)}
    assert set(report.resized) == expected
    assert report.initialised == {}
    shift = {"ctc": 1, "nrtr": 4, "sar": 0}
    for key in expected:
        kind = "nrtr" if "gtc" in key else "sar" if "sar" in key else "ctc"
        axis = class_tensor(key).axis
        a = np.moveaxis(before.state_dict()[key].numpy(), axis, 0)
        b = np.moveaxis(after.state_dict()[key].numpy(), axis, 0)
        for character in ("e", "c", "a", " "):
            i, j = (d.classes[1:].index(character) + shift[kind] for d in (old, new))
            assert np.array_equal(a[i], b[j]), (key, character)
        # blank, or start and end and the like, stay too
        specials = {"ctc": [(0, 0)], "nrtr": [(0, 0), (1, 1), (2, 2), (3, 3), (-1, -1)], "sar": [(6, 5), (7, 6)]}[kind]
        assert all(np.array_equal(a[i], b[j]) for i, j in specials), key


@pytest.mark.parametrize(("name", "guide"), [("PP-OCRv5_mobile_rec", "nrtr"), ("PP-OCRv3_mobile_rec", "sar")])
def test_both_branches_predict_shared_characters_as_before(name: str, guide: str) -> None:
    old, new = Dictionary(tuple("abcde")), Dictionary(tuple("xecaby"), use_space=True)
    paddle.seed(4)
    models_of = {dictionary.characters: models.build(name, characters=dictionary.size) for dictionary in (old, new)}
    before, after = models_of.values()
    load_weights(after, _arrays(before), source="f", old=old, new=new)
    x = paddle.randn([2, 3, 48, 96])
    logits = []
    for model, dictionary in ((before, old), (after, new)):
        model.eval()  # no dropout, and statistics that stand still
        made = targets([dictionary.encode(text) for text in ("ace b", "be")], guide=guide, size=dictionary.size)
        with paddle.no_grad():
            outputs = models.train_forward(model, x, {key: paddle.to_tensor(value) for key, value in made.items()})
        logits.append({branch: outputs[branch].numpy() for branch in ("ctc", "gtc")})
    shift = {"ctc": 1, "gtc": 4 if guide == "nrtr" else 0}
    for branch, first in shift.items():
        places = [[first + d.classes[1:].index(c) for c in "abce "] for d in (old, new)]
        was, now = (values[branch][:, :, chosen] for values, chosen in zip(logits, places, strict=True))
        assert was.std() > 0.01
        assert np.abs(was - now).max() < 1e-5 * np.abs(was).max(), branch


def test_new_classes_start_as_an_average_one_and_differ() -> None:
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((6, 5)).astype(np.float32)
    tensor = class_tensor("head.ctc_head.fc.weight")
    made = carry_over(weight, tensor, old=Dictionary(tuple("abc")), new=Dictionary(tuple("cxy")))
    carried = weight[:, [0, 3, 4]]  # blank, c, space
    for column in (2, 3):
        assert np.abs(made[:, column] - carried.mean(axis=1)).max() < 0.25 * carried.std(axis=1).max()
    assert not np.array_equal(made[:, 2], made[:, 3])


def _drawn(text: str, rng: np.random.Generator) -> np.ndarray:
    picture = np.full((48, 64), -1.0, dtype=np.float32)
    x, y = rng.integers(8, 20), rng.integers(36, 42)
    cv2.putText(picture, text, (int(x), int(y)), cv2.FONT_HERSHEY_SIMPLEX, 1.2, 1.0, 3)
    picture += 0.1 * rng.standard_normal(picture.shape).astype(np.float32)
    return np.repeat(picture[None], 3, axis=0)


def test_a_trained_model_reads_as_before_after_a_change_of_dictionary() -> None:
    # PaddleOCR starts at accuracy 0 here
    old = Dictionary(tuple("acegkm"), use_space=False)
    new = Dictionary(tuple("QzbxRmdkgeWca"), use_space=True)
    paddle.seed(0)
    rng = np.random.default_rng(0)
    model = models.build(SMALL, characters=old.size)
    loss = losses.build(SMALL)
    steps = 140
    schedule = paddle.optimizer.lr.CosineAnnealingDecay(1e-2, steps)
    optimizer = paddle.optimizer.AdamW(schedule, parameters=model.parameters())
    for _ in range(steps):
        texts = rng.choice(old.characters, 16)
        x = paddle.to_tensor(np.stack([_drawn(t, rng) for t in texts]))
        made = targets([old.encode(t) for t in texts], guide="", size=old.size)
        batch = {k: paddle.to_tensor(v) for k, v in made.items()}
        loss(models.train_forward(model, x, batch), batch)["loss"].backward()
        optimizer.step()
        optimizer.clear_grad()
        schedule.step()
    texts = rng.choice(old.characters, 100)
    x = paddle.to_tensor(np.stack([_drawn(t, rng) for t in texts]))

    def accuracy(network: paddle.nn.Layer, dictionary: Dictionary) -> float:
        network.eval()
        with paddle.no_grad():
            read = dictionary.decode(network(x).numpy())
        return float(np.mean([text == truth for (text, _), truth in zip(read, texts, strict=True)]))

    before = accuracy(model, old)
    assert before > 0.8
    changed = models.build(SMALL, characters=new.size)
    load_weights(changed, _arrays(model), source="f", old=old, new=new)
    assert accuracy(changed, new) >= before


def test_a_frozen_backbone_stands_still_and_can_be_thawed() -> None:
    model = models.build(SMALL, characters=3)
    freezing = Freezing(model, "backbone")
    batch = {"label_ctc": paddle.to_tensor([[1]]), "length": paddle.to_tensor([1])}

    def step() -> set[str]:
        model.train()
        freezing.hold()
        before = _arrays(model)
        optimizer = paddle.optimizer.SGD(0.5, parameters=[p for p in model.parameters() if not p.stop_gradient])
        losses.build(SMALL)(models.train_forward(model, paddle.randn([1, 3, 48, 64]), batch), batch)["loss"].backward()
        optimizer.step()
        optimizer.clear_grad()
        return {name for name, value in _arrays(model).items() if not np.array_equal(value, before[name])}

    assert step() == {"head.fc.weight", "head.fc.bias"}
    freezing.thaw()
    moved = step()
    assert {"backbone.conv1.conv.weight", "backbone.conv1.bn._mean"} <= moved


@pytest.mark.parametrize(("freeze", "moving"), [("backbone", {"neck", "head"}), ("body", {"head"})])
def test_without_the_body_the_head_alone_is_trained(freeze: str, moving: set[str]) -> None:
    model = models.build("CRNN_r34_vd", characters=3)
    freezing = Freezing(model, freeze)
    model.train()
    freezing.hold()
    before = _arrays(model)
    optimizer = paddle.optimizer.SGD(0.5, parameters=[p for p in model.parameters() if not p.stop_gradient])
    batch = {"label_ctc": paddle.to_tensor([[1]]), "length": paddle.to_tensor([1])}
    outputs = models.train_forward(model, paddle.randn([1, 3, 32, 32]), batch)
    losses.build("CRNN_r34_vd")(outputs, batch)["loss"].backward()
    optimizer.step()
    moved = {name.split(".")[0] for name, value in _arrays(model).items() if not np.array_equal(value, before[name])}
    assert moved == moving


@pytest.mark.parametrize(
    ("name", "stages"),
    [
        (SMALL, 13),
        ("PP-OCRv5_mobile_rec", 6),
        ("PP-OCRv5_server_rec", 5),
        ("PP-OCRv3_mobile_rec", 14),
        ("CRNN_r34_vd", 5),
    ],
)
def test_stages_of_backbones(name: str, stages: int) -> None:
    model = models.build(name, characters=3, guided=False)
    assert len(backbone_stages(model)) == stages
    freezing = Freezing(model, "stages:2")
    assert freezing.active
    trainable = {
        n.split(".")[1] for n, p in model.named_parameters() if n.startswith("backbone.") and not p.stop_gradient
    }
    assert trainable
    with pytest.raises(ConfigurationError, match=f"this model's backbone has {stages} stages"):
        Freezing(model, "stages:99")
