"""More ranks than samples in a step: each sample still counts once, and the curve is that of one process."""

from __future__ import annotations

import pytest

from ocr_finetune_trainer.data.order import Order


def test_a_rank_without_samples_changes_nothing(zygote, make_job):
    assert min(len(Order(48, batch_size=5, seed=0).step(0, step)) for step in range(10)) < 5, "no step is short"
    job = make_job(epochs=1, batchSize=1, batchNorm="frozen", ema=0, distributed={"devicesPerNode": 5})
    started = zygote.start(job, world=5)
    assert started.wait() == [0] * 5, started.text
    alone = make_job(epochs=1, batchSize=5, batchNorm="frozen", ema=0)
    assert zygote.start(alone).wait() == [0]
    assert list(job.losses().values()) == pytest.approx(list(alone.losses().values()), rel=5e-3)
