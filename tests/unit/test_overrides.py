"""The expert settings: what is accepted, what is refused with which words, and that each key changes what happens."""

from __future__ import annotations

from typing import Any

import numpy as np
import paddle
import pytest
from pydantic import ValidationError
from trained_detector import pages
from trained_run import digits

from ocr_finetune_api import overrides
from ocr_finetune_api.exit_codes import ConfigurationError
from ocr_finetune_api.manifest import parse
from ocr_finetune_api.model_table import TABLE, Kind
from ocr_finetune_api.overrides import OVERRIDES, TWINS, Part
from ocr_finetune_api.spec import OCRFineTuneSpec
from ocr_finetune_trainer import losses, models
from ocr_finetune_trainer.data.pictures import encode
from ocr_finetune_trainer.data.store import Sample
from ocr_finetune_trainer.dictionary import Dictionary
from ocr_finetune_trainer.evaluation.subjects import build_subject, postprocess_of
from ocr_finetune_trainer.export.exporter import settings_for
from ocr_finetune_trainer.export.serving_pipeline import pipeline_config
from ocr_finetune_trainer.geometry import DetectionGeometry, recognition_geometry
from ocr_finetune_trainer.training.building import new_model
from ocr_finetune_trainer.training.feed import make_transform
from ocr_finetune_trainer.training.optimizer import Optimizer, trainable

DETECTOR, READER, GUIDED, TABLE_MODEL = "DB_mv3", "CRNN_r34_vd", "PP-OCRv5_mobile_rec", "SLANet"
T = "Train.dataset.transforms"


def spec_of(config: dict[str, Any], *, model: str = DETECTOR, **training: Any) -> OCRFineTuneSpec:
    return OCRFineTuneSpec.model_validate(
        {
            "model": {"name": model, "pretrained": "none"},
            "dataset": {"train": [{"uri": "x"}]},
            "training": {"config": config, **training},
        }
    )


def refused(config: dict[str, Any], *, model: str = DETECTOR, **training: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        spec_of(config, model=model, **training)
    return str(caught.value)


def test_a_key_may_be_nested_or_dotted_as_in_paddleocr() -> None:
    nested = {
        "Loss": {"alpha": 3},
        "Train": {
            "dataset": {
                "transforms": [
                    {"EastRandomCropData": {"size": [320, 640]}},
                    {"MakeShrinkMap": {"shrink_ratio": 0.5}},
                ]
            }
        },
    }
    dotted = {"Loss.alpha": 3, f"{T}.EastRandomCropData.size": [320, 640], f"{T}.MakeShrinkMap.shrink_ratio": 0.5}
    assert overrides.values(nested) == dotted
    assert spec_of(nested).training.config == nested
    assert "Loss.alpha is written twice" in refused({"Loss.alpha": 1, "Loss": {"alpha": 2}})


@pytest.mark.parametrize(("key", "field"), list(TWINS.items()))
def test_a_key_with_a_field_of_its_own_names_the_field(key: str, field: str) -> None:
    assert f"{key} has a field of its own in the manifest: write {field}" in refused({key: 1})


def test_all_mistakes_are_told_at_once() -> None:
    message = refused(
        {
            "Loss": {"aplha": 3, "beta": -1},
            "EastRandomCropData.size": [320, 320],
            "Global": {"epoch_num": 5},
            "Eval": {"dataset": {"transforms": [{"DetResizeForTest": {"limit_side_len": 736}}]}},
            f"{T}.IaaAugment.augmenter_args": [{"type": "Sharpen"}],
            "Cooking.time": 5,
        }
    )
    for part in (
        "Loss.aplha is no expert setting; did you mean Loss.alpha?",
        "Loss.beta: -1 is out of range; it holds 0 or more",
        f"EastRandomCropData.size is no expert setting; did you mean {T}.EastRandomCropData.size?",
        "write training.epochs",
        "write dataset.validation",
        "'Sharpen' is none of Fliplr, Flipud, Affine, Resize",
        "Cooking.time is no expert setting",
    ):
        assert part in message


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (f"{T}.EastRandomCropData.size", [640]),
        (f"{T}.EastRandomCropData.size", [650, 640]),
        (f"{T}.MakeShrinkMap.shrink_ratio", 0),
        (f"{T}.MakeShrinkMap.shrink_ratio", 1.0),
        ("Loss.alpha", "five"),
        ("Loss.alpha", True),
        ("Loss.alpha", float("nan")),
        ("Loss.main_loss_type", "Euclidean"),
        ("PostProcess.use_dilation", 1),
        ("PostProcess.max_candidates", 0),
        ("PostProcess.score_mode", "medium"),
        ("PostProcess.thresh", 1.5),
        (f"{T}.MakeBorderMap.thresh_min", 0.8),
        (f"{T}.IaaAugment.augmenter_args", [{"type": "Affine", "args": {"rotate": [-5, 10]}}]),
        (f"{T}.IaaAugment.augmenter_args", [{"type": "Resize", "args": {"size": [3, 0.5]}}]),
        (f"{T}.IaaAugment.augmenter_args", "none"),
    ],
)
def test_a_value_that_cannot_be_is_refused(key: str, value: Any) -> None:
    assert "config: " in refused({key: value})


def test_what_would_change_nothing_is_refused() -> None:
    assert "Loss.alpha is for detection models; CRNN_r34_vd is a recognition model" in refused(
        {"Loss.alpha": 1}, model=READER
    )
    assert "needs the guided branch; write model.guidance: keep" in refused(
        {"Loss.weight_2": 1}, model="PP-OCRv3_mobile_rec"
    )
    assert "with training.augmentation: none" in refused(
        {f"{T}.RecAug.tia_prob": 0.1}, model=READER, augmentation="none"
    )
    assert "Loss.ohem_ratio changes nothing with DiceLoss" in refused({"Loss": {"ohem_ratio": 4}})
    assert "not part of the loss of PP-OCRv6_small_det" in refused({"Loss.ohem_ratio": 2}, model="PP-OCRv6_small_det")


# What a key is set to when it is tried; everything else is halved, or switched.
_TRIED = {
    f"{T}.EastRandomCropData.size": [320, 64],
    f"{T}.IaaAugment.augmenter_args": [{"type": "Flipud", "args": {"p": 1.0}}],
    f"{T}.MakeShrinkMap.min_text_size": 60,
    f"{T}.MakeBorderMap.thresh_max": 0.9,
    "Loss.main_loss_type": "BCELoss",
    "PostProcess.score_mode": "slow",
    "PostProcess.box_type": "poly",
    "PostProcess.max_candidates": 1,
    "Optimizer.epsilon": 1e-2,
}  # fmt: skip
_MODELS = {
    Kind.DETECTION: DETECTOR,
    Kind.RECOGNITION: GUIDED,
    Kind.TABLE: TABLE_MODEL,
    Kind.ORIENTATION: "PP-LCNet_x1_0_textline_ori",
}


def tried(override: overrides.Override) -> Any:
    if override.allowed == "true or false":
        return True
    return _TRIED.get(override.key, 0.25)


@pytest.mark.parametrize("override", OVERRIDES, ids=lambda o: f"{o.kind.value}-{o.key}")
def test_every_key_is_accepted_and_known_to_its_part(override: overrides.Override) -> None:
    model = _MODELS[override.kind]
    beside = {"Loss.main_loss_type": "BCELoss"} if override.key == "Loss.ohem_ratio" else {}
    spec = spec_of({**beside, override.key: tried(override)}, model=model)
    found = overrides.settings(spec.training.config, override.part, override.kind)
    assert found
    if override.part is Part.LOSS:
        losses.build(model, settings=found)
    elif override.part is Part.OPTIMIZER:
        layer = paddle.nn.Linear(2, 2)
        Optimizer(trainable(layer), weight_decay=0.0, **found)
    elif override.part is Part.HEAD:
        assert new_model(spec, None).head.step_slope == found["step_slope"]
    elif override.part is Part.POSTPROCESS:
        assert postprocess_of(spec) != postprocess_of(spec_of({}, model=model))
    elif override.part is Part.CANVAS:
        DetectionGeometry(**found)
    else:
        dictionary = Dictionary(("a",))
        geometry = DetectionGeometry() if override.kind is Kind.DETECTION else recognition_geometry(model)
        make_transform(spec, geometry=geometry, dictionary=dictionary, guided=False)


def _maps(model: str = DETECTOR) -> tuple[dict[str, paddle.Tensor], dict[str, paddle.Tensor]]:
    rng = np.random.default_rng(1)
    shape = (2, 64, 64)
    outputs = {"maps": paddle.to_tensor(rng.uniform(size=(2, 3, 64, 64)).astype(np.float32))}
    batch = {
        "shrink_map": rng.uniform(size=shape) > 0.9,
        "shrink_mask": rng.uniform(size=shape) > 0.1,
        "threshold_map": rng.uniform(size=shape),
        "threshold_mask": rng.uniform(size=shape) > 0.5,
    }
    return outputs, {k: paddle.to_tensor(v.astype(np.float32)) for k, v in batch.items()}


def _terms(config: dict[str, Any]) -> dict[str, float]:
    settings = overrides.settings(spec_of(config).training.config, Part.LOSS, Kind.DETECTION)
    return {name: float(value) for name, value in losses.build(DETECTOR, settings=settings)(*_maps()).items()}


def test_the_loss_of_detectors_is_weighed_as_asked() -> None:
    plain, changed = _terms({}), _terms({"Loss.alpha": 1, "Loss.beta": 30})
    assert changed["loss_shrink_maps"] == pytest.approx(plain["loss_shrink_maps"] / 5)
    assert changed["loss_threshold_maps"] == pytest.approx(plain["loss_threshold_maps"] * 3)
    assert changed["loss_binary_maps"] == plain["loss_binary_maps"]


def test_cross_entropy_counts_the_hardest_background() -> None:
    outputs, batch = _maps()
    predicted, truth, mask = (v.numpy() for v in (outputs["maps"][:, 0], batch["shrink_map"], batch["shrink_mask"]))
    entropy = -np.log(np.where(truth > 0, predicted, 1 - predicted))
    text, background = entropy[(truth * mask) > 0], entropy[((1 - truth) * mask) > 0]
    for ratio in (1, 3, 1000):
        count = min(len(background), ratio * len(text))
        expected = (text.sum() + np.sort(background)[::-1][:count].sum()) / (len(text) + count)
        terms = _terms({"Loss.main_loss_type": "BCELoss", "Loss.ohem_ratio": ratio})
        assert terms["loss_shrink_maps"] == pytest.approx(5 * expected, rel=1e-4)


def test_the_losses_of_readers_are_weighed_as_asked() -> None:
    paddle.seed(0)
    outputs = {"ctc": paddle.randn([2, 10, 6]), "gtc": paddle.randn([2, 4, 9])}
    batch = {
        "label_ctc": paddle.to_tensor([[1, 2, 3], [4, 0, 0]]),
        "label_gtc": paddle.to_tensor([[2, 4, 5, 6, 3], [2, 7, 3, 0, 0]]),
        "length": paddle.to_tensor([3, 1]),
    }

    def terms(config: dict[str, Any], model: str = GUIDED) -> dict[str, float]:
        settings = overrides.settings(spec_of(config, model=model).training.config, Part.LOSS, Kind.RECOGNITION)
        return {k: float(v) for k, v in losses.build(model, settings=settings)(outputs, batch).items()}

    plain, changed = terms({}), terms({"Loss.weight_1": 0.5, "Loss": {"weight_2": 2}})
    assert changed["CTCLoss"] == pytest.approx(plain["CTCLoss"] / 2)
    assert changed["NRTRLoss"] == pytest.approx(plain["NRTRLoss"] * 2)
    assert changed["loss"] == pytest.approx(changed["CTCLoss"] + changed["NRTRLoss"])
    nested = {"Loss": {"loss_config_list": [{"CTCLoss": {"use_focal_loss": True}}]}}
    assert terms(nested)["CTCLoss"] < plain["CTCLoss"]
    assert terms({"Loss.use_focal_loss": True}, READER)["loss"] == pytest.approx(terms(nested)["CTCLoss"])


def _page() -> Sample:
    image, polygons, texts = pages(1, seed=3)[0]
    return Sample(
        id=0, image=encode(image, lossless=True), width=image.shape[1], height=image.shape[0], text="",
        polygons=polygons, texts=texts, ignored=[False] * len(texts), source=0, names=lambda: ("", "page"),
    )  # fmt: skip


def _sample(config: dict[str, Any]) -> dict[str, np.ndarray]:
    spec = spec_of(config)
    canvas = overrides.settings(spec.training.config, Part.CANVAS, Kind.DETECTION)
    geometry = DetectionGeometry(**{"train_height": 160, "train_width": 160, **canvas})
    transform = make_transform(spec, geometry=geometry, dictionary=None, guided=False)
    return transform(_page(), np.random.default_rng(5), progress=0.5)


def test_pages_are_cut_drawn_and_changed_as_asked() -> None:
    upright = {f"{T}.IaaAugment.augmenter_args": [], f"{T}.CopyPaste.objects_paste_ratio": 0}
    plain = _sample(upright)
    assert _sample({f"{T}.EastRandomCropData.size": [320, 192]})["image"].shape == (192, 320, 3)
    large, small = (_sample({**upright, f"{T}.MakeShrinkMap.shrink_ratio": ratio}) for ratio in (0.9, 0.3))
    assert large["shrink_map"].sum() > plain["shrink_map"].sum() > small["shrink_map"].sum() > 0
    narrow = _sample({**upright, f"{T}.MakeBorderMap.shrink_ratio": 0.9})
    assert narrow["threshold_mask"].sum() < plain["threshold_mask"].sum()
    assert np.array_equal(narrow["shrink_map"], plain["shrink_map"])
    bounds = _sample({**upright, f"{T}.MakeBorderMap.thresh_min": 0.1, f"{T}.MakeBorderMap.thresh_max": 0.9})
    assert (bounds["threshold_map"].min(), bounds["threshold_map"].max()) == (
        pytest.approx(0.1), pytest.approx(0.9, abs=0.05))  # fmt: skip
    assert not _sample({**upright, f"{T}.MakeShrinkMap.min_text_size": 100})["shrink_map"].any()
    upside_down = {**upright, f"{T}.IaaAugment.augmenter_args": [{"type": "Flipud", "args": {"p": 1}}]}
    turned, straight = (made["shrink_map"].any(axis=1) for made in (_sample(upside_down), plain))
    assert not np.array_equal(turned, straight)
    assert abs(int(turned[::-1].argmax()) - int(straight.argmax())) <= 1
    pasted = _sample({**upright, f"{T}.CopyPaste.objects_paste_ratio": 1})
    assert pasted["shrink_map"].sum() > plain["shrink_map"].sum()


def test_lines_are_changed_as_often_as_asked() -> None:
    names = ("tia", "crop", "reverse", "noise", "jitter", "blur", "hsv_aug")
    off = {f"{T}.RecAug.{name}_prob": 0 for name in names} | {f"{T}.RecConAug.prob": 0}
    image, text = digits(1)[0]
    picture = recognition_geometry(GUIDED).resize(image)

    def changed(config: dict[str, Any]) -> np.ndarray:
        transform = make_transform(
            spec_of(config, model=GUIDED),
            geometry=recognition_geometry(GUIDED),
            dictionary=Dictionary(tuple("0123456789")),
            guided=False,
        )
        rng = np.random.default_rng(3)
        line, _ = transform.augment(picture, rng, text=text, width=640, other=lambda _: (picture, text))
        return line

    assert np.array_equal(changed(off), picture)
    for name in names:
        assert not np.array_equal(changed({**off, f"{T}.RecAug.{name}_prob": 1}), picture), name
    assert changed({**off, f"{T}.RecConAug.prob": 1}).shape[1] > picture.shape[1]


def test_the_step_between_maps_is_as_steep_as_asked() -> None:
    paddle.seed(1)
    soft, steep = (new_model(spec_of({"Architecture.Head.k": k}), None) for k in (1, 50))
    steep.set_state_dict(soft.state_dict())
    x = paddle.randn([1, 3, 64, 64])
    spread = [float(models.train_forward(m, x, {})["maps"][:, 2].std()) for m in (soft, steep)]
    assert spread[0] < spread[1] / 2


def test_postprocessing_goes_into_evaluation_export_and_pipeline() -> None:
    spec = spec_of(
        {"PostProcess": {"unclip_ratio": 2.0, "box_thresh": 0.5, "use_dilation": True, "score_mode": "slow"}}
    )
    subject = build_subject(
        DETECTOR, None, kind=Kind.DETECTION, dictionary=None, note="", postprocess=postprocess_of(spec)
    )
    served = settings_for(subject)["PostProcess"]
    assert (served["unclip_ratio"], served["box_thresh"], served["use_dilation"], served["score_mode"]) == (
        2.0, 0.5, True, "slow")  # fmt: skip
    config = pipeline_config(detection=("a", "b"), recognition=None, postprocess=subject.postprocess)
    assert config["SubModules"]["TextDetection"]["unclip_ratio"] == 2.0


def test_moments_decay_as_asked() -> None:
    def after_two_steps(**settings: float) -> float:
        layer = paddle.nn.Linear(1, 1, bias_attr=False)
        layer.weight.set_value(paddle.ones([1, 1]))
        optimizer = Optimizer(trainable(layer), weight_decay=0.0, **settings)
        for factor in (1.0, -3.0):
            (factor * layer(paddle.ones([1, 1]))).sum().backward()
            optimizer.step(0.1)
        return layer.weight.item()

    plain = after_two_steps()
    for key, value in (("beta1", 0.1), ("beta2", 0.5), ("epsilon", 1.0)):
        found = overrides.settings({f"Optimizer.{key}": value}, Part.OPTIMIZER, Kind.DETECTION)
        assert after_two_steps(**found) != pytest.approx(plain)


def test_a_manifest_tells_all_of_it_with_its_line() -> None:
    manifest = """\
apiVersion: ocrfinetune.dev/v1alpha1
kind: OCRFineTune
metadata: {name: pages}
spec:
  model: {name: DB_mv3, pretrained: none}
  dataset: {train: [{uri: x}]}
  training:
    config:
      Global: {epoch_num: 3}
      Loss: {aplha: 3}
"""
    with pytest.raises(ConfigurationError) as caught:
        parse(manifest, file="f.yaml")
    assert caught.value.exit_code == 78
    (problem,) = caught.value.problems
    assert problem.startswith("f.yaml:8: spec.training.config: Global.epoch_num has a field of its own")
    assert problem.endswith("write training.epochs; Loss.aplha is no expert setting; did you mean Loss.alpha?")


def test_every_key_is_for_a_kind_that_exists() -> None:
    assert {override.kind for override in OVERRIDES} <= {info.kind for info in TABLE.values()}
    assert len({(o.key, o.kind) for o in OVERRIDES}) == len(OVERRIDES)
