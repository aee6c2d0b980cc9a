"""A step gives the same whatever is in its way: loss scaling, accumulation, a gradient that is no number."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import paddle
import pytest
from paddle import nn

from ocr_finetune_trainer import losses, models
from ocr_finetune_trainer.dictionary import targets
from ocr_finetune_trainer.geometry import recognition_geometry
from ocr_finetune_trainer.training.average import Average
from ocr_finetune_trainer.training.checkpoint import Manifest
from ocr_finetune_trainer.training.choices import Settings
from ocr_finetune_trainer.training.optimizer import Optimizer, trainable
from ocr_finetune_trainer.training.ranks import Ranks
from ocr_finetune_trainer.training.saver import TrainingState
from ocr_finetune_trainer.training.step import Forward, TrainStep

NAME = "MobileNetV3_small_ctc"
SETTINGS = Settings(
    epochs=1, global_batch=6, batch_size=6, peak_rate=1e-3, warmup_epochs=0, weight_decay=0.0, clip_norm=0.0,
    precision="fp32", batch_norm="frozen", ema=0.0, layer_decay=1.0, head_rate=1.0, workers=0, evaluate_every=1,
)  # fmt: skip


def make(settings: Settings) -> tuple[nn.Layer, TrainStep]:
    paddle.seed(3)
    model = models.build(NAME, characters=10, guided=False)
    model.eval()  # norms that stand still: how a batch is divided must not show
    step = TrainStep(
        model=model, loss=losses.build(NAME, guided=False), optimizer=Optimizer(trainable(model), weight_decay=0.0),
        normalization=recognition_geometry(NAME).normalization, settings=settings,
        ranks=Ranks(rank=0, world=1, local_rank=0), gpu=False, seed=1, most_pixels=10**9,
    )  # fmt: skip
    return model, step


def batch() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = targets([[int(c) for c in rng.integers(1, 10, 3)] for _ in range(6)], guide="", size=10)
    return {
        "image": rng.integers(0, 256, (6, 32, 80, 3), dtype=np.uint8), "index": np.arange(6),
        "valid_width": np.full(6, 80, np.int32), "source": np.zeros(6, np.int32), **labels,
    }  # fmt: skip


def trained(settings: Settings, *, steps: int = 2) -> tuple[dict[str, np.ndarray], list[float], TrainStep]:
    model, step = make(settings)
    norms = [float(step(batch(), step=number, total=6, rate=1e-3).norm) for number in range(steps)]
    return {name: value.numpy() for name, value in model.state_dict().items()}, norms, step


@pytest.mark.filterwarnings("ignore:.*auto_cast.*")
def test_a_scaled_loss_trains_like_one_that_is_not():
    plain, norms, _ = trained(SETTINGS)
    scaled, scaled_norms, step = trained(replace(SETTINGS, precision="fp16"))
    assert step.scale.value == 2.0**15
    assert scaled_norms == pytest.approx(norms, rel=1e-4), "the norm that is shown is that of the true gradients"
    for name, value in plain.items():
        np.testing.assert_allclose(scaled[name], value, rtol=1e-3, atol=1e-5, err_msg=name)


@pytest.mark.filterwarnings("ignore:.*auto_cast.*")
def test_gradients_that_overflow_are_not_used_and_halve_the_scale():
    model, step = make(replace(SETTINGS, precision="fp16"))
    before = {name: value.numpy() for name, value in model.state_dict().items()}
    step.scale.value = 2.0**127  # more than float32 holds, times any gradient
    result = step(batch(), step=0, total=6, rate=1e-3)
    assert not bool(result.finite)
    assert step.scale.value == 2.0**126
    for name, value in model.state_dict().items():
        assert np.array_equal(value.numpy(), before[name]), name


def test_batches_that_are_accumulated_train_like_one():
    whole, norms, _ = trained(SETTINGS)
    parts, norms_of_parts, _ = trained(replace(SETTINGS, batch_size=2))
    assert norms_of_parts == pytest.approx(norms, rel=1e-4)
    for name, value in whole.items():
        np.testing.assert_allclose(parts[name], value, rtol=1e-3, atol=1e-5, err_msg=name)


def test_gradients_are_clipped_by_the_norm_of_all_of_them():
    _, step = make(replace(SETTINGS, clip_norm=0.5))
    seen: list[float] = []
    inner = step._optimizer.step

    def look(rate: float) -> None:
        seen.append(float(np.sqrt(sum(float((g**2).sum()) for g in step._optimizer.gradients()))))
        inner(rate)

    step._optimizer.step = look
    result = step(batch(), step=0, total=6, rate=1e-3)
    assert float(result.norm) > 0.5
    assert seen == [pytest.approx(0.5, rel=1e-4)]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_losses_are_computed_in_float32_whatever_the_model_computes_in(dtype):
    seen = {}

    class Half(nn.Layer):
        def train_forward(self, x, _batch):
            return {"ctc": x.astype(dtype), "others": [x.astype(dtype)]}

    def loss(outputs, targets):
        seen.update(ctc=outputs["ctc"].dtype, other=outputs["others"][0].dtype)
        return {"loss": outputs["ctc"].mean()}

    Forward(Half(), loss)(paddle.ones([1, 3, 4, 4]), {}, {}, None)
    assert seen == {"ctc": paddle.float32, "other": paddle.float32}


def test_synchronised_norms_keep_the_names_of_a_checkpoint_and_do_not_decay():
    model = models.build(NAME, characters=10, guided=False)
    names = list(model.state_dict())
    decays = {p.name: p.decays for p in trainable(model)}
    synchronised = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    assert any(isinstance(layer, nn.SyncBatchNorm) for layer in synchronised.sublayers())
    assert list(synchronised.state_dict()) == names
    assert {p.name: p.decays for p in trainable(synchronised)} == decays


@pytest.mark.parametrize("averaged", [True, False])
def test_what_is_measured_is_the_average_where_there_is_one(averaged, tmp_path):
    model, step = make(SETTINGS)
    average = Average(models.build(NAME, characters=10, guided=False), of=model, decay=0.9) if averaged else None
    state = TrainingState(
        model=model, average=average, optimizer=step._optimizer, scale=step.scale,
        ranks=Ranks(rank=0, world=1, local_rank=0), folder=tmp_path, writer=None, manifest=Manifest(step=0),
    )  # fmt: skip
    with state.measured() as measured:
        assert measured is (average.model if average else model)
