"""What `auto` stands for, from the documents' figures, and that each choice says why."""

import pytest

from ocr_finetune_api.exit_codes import ConfigurationError
from ocr_finetune_api.spec import OCRFineTuneSpec
from ocr_finetune_trainer.training.choices import Facts, choose


def spec_of(*, name="PP-OCRv5_mobile_rec", pretrained="official", nodes=1, devices=1, **training):
    return OCRFineTuneSpec.model_validate(
        {
            "model": {"name": name, "pretrained": pretrained},
            "dataset": {"train": [{"uri": "x"}]},
            "training": training,
            "distributed": {"nodes": nodes, "devicesPerNode": devices},
        }
    )


def facts(samples=50_000, **values):
    return Facts(samples=samples, validation_samples=values.pop("validation", samples // 10), **values)


@pytest.mark.parametrize(
    ("spec", "samples", "rate"),
    [
        (spec_of(), 50_000, 5e-5),  # 64 lines
        (spec_of(batchSize=128), 50_000, 1e-4),
        (spec_of(devices=4), 50_000, 2e-4),  # document 000: four cards
        (spec_of(batchSize=128), 200_000, 1e-4),
        (spec_of(), 5_000, 2e-5),  # under ten thousand
        (spec_of(name="DB_mv3"), 1_000, 1e-4),  # 8 pages
        (spec_of(name="DB_mv3", batchSize=4), 1_000, 5e-5),
        (spec_of(pretrained="none", batchSize=1024), 50_000, 1e-3),
        (spec_of(name="DB_mv3", pretrained="none", batchSize=64), 5_000, 1e-3),
        (spec_of(nodes=4, devices=8), 500_000, 5e-5 * 32 / 2),  # beyond 8 devices by the root: 32 are 4 times 8
        (spec_of(learningRate=3e-4), 50_000, 3e-4),
    ],
)
def test_learning_rates_are_the_documents(spec, samples, rate):
    assert choose(spec, facts(samples)).peak_rate == pytest.approx(rate)


def test_few_samples_get_more_epochs_and_a_warm_up():
    few, many = choose(spec_of(), facts(5_000)), choose(spec_of(), facts(50_000))
    assert (few.epochs, few.warmup_epochs) == (100, 5.0)
    assert (many.epochs, many.warmup_epochs) == (50, 1.0)


def test_few_samples_are_warned_about():
    assert "5000 is the least" in choose(spec_of(), facts(1_000)).warnings[0]
    assert "500 is the least" in choose(spec_of(name="DB_mv3"), facts(100)).warnings[0]
    assert not choose(spec_of(), facts(50_000)).warnings


def test_precision_follows_the_device():
    assert choose(spec_of(), facts()).precision == "fp32"
    assert choose(spec_of(), facts(gpu=True, bf16=True)).precision == "bf16"
    assert choose(spec_of(), facts(gpu=True)).precision == "fp16"
    with pytest.raises(ConfigurationError, match="bf16 needs a GPU"):
        choose(spec_of(precision="bf16"), facts())
    with pytest.raises(ConfigurationError, match="can't compute in bf16"):
        choose(spec_of(precision="bf16"), facts(gpu=True))


def test_norms_stand_still_in_fine_tuning_with_few_samples_a_device():
    assert choose(spec_of(batchSize=8), facts()).batch_norm == "frozen"
    assert choose(spec_of(batchSize=16), facts()).batch_norm == "local"
    assert choose(spec_of(batchSize=8, pretrained="none"), facts()).batch_norm == "local"
    with pytest.raises(ConfigurationError, match="no implementation for CPUs"):
        choose(spec_of(batchNorm="sync"), facts())


def test_evaluation_stays_under_a_tenth_of_the_time():
    for samples, validation in ((1_000, 100), (1_000, 1_000), (100_000, 50_000)):
        settings = choose(spec_of(), facts(samples, validation=validation))
        trained = settings.evaluate_every * settings.global_batch
        assert validation / 3 <= 0.101 * max(trained, samples)


def test_an_impossible_batch_says_what_would_do():
    with pytest.raises(ConfigurationError, match=r"64 × 4 = 256 samples, but there are only 100") as caught:
        choose(spec_of(batchSize=64, devices=4), facts(100))
    assert "batchSize: 25" in caught.value.hint


def test_auto_leaves_some_steps_an_epoch():
    assert choose(spec_of(pretrained="none"), facts(40)).batch_size == 10


def test_a_head_with_many_new_characters_learns_faster():
    assert choose(spec_of(), facts(new_characters=0.5)).head_rate > 1
    assert choose(spec_of(), facts(new_characters=0.1)).head_rate == 1


def test_every_choice_says_why():
    settings = choose(spec_of(), facts(gpu=True, bf16=True))
    assert {"epochs", "batchSize", "learningRate", "precision", "ema"} <= {choice.name for choice in settings.choices}
    assert all(choice.reason for choice in settings.choices)
    given = choose(spec_of(epochs=3, batchSize=32, learningRate=1e-4, precision="fp32", ema=0), facts(gpu=True))
    assert not {"epochs", "batchSize", "learningRate", "precision", "ema"} & {c.name for c in given.choices}
