"""How far a backward pass has come is told while it runs, and only where it is asked for."""

from __future__ import annotations

import paddle
import pytest
from paddle import nn

from ocr_finetune_trainer.training.marks import BackwardMarks


@pytest.mark.parametrize("layers", [1, 3, 20])
def test_the_part_that_is_computed_grows_to_all_of_it(layers):
    model = nn.Sequential(*(nn.Linear(2, 2) for _ in range(layers)))
    told: list[float] = []
    marks = BackwardMarks(model.parameters(), tell=told.append)
    model(paddle.ones([1, 2])).sum().backward()
    assert told == [], "this pass was not asked about"
    with marks.told():
        model(paddle.ones([1, 2])).sum().backward()
    assert told == sorted(told)
    assert told[0] <= 0.5
    assert told[-1] == 1.0
    assert len(told) <= 12
