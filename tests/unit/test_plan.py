from typing import Any

import pytest

from ocr_finetune_api.plan import STAGES, Stage, plan
from ocr_finetune_api.spec import OCRFineTuneSpec


def spec(**changes: Any) -> OCRFineTuneSpec:
    return OCRFineTuneSpec.model_validate(
        {"model": {"name": "PP-OCRv5_mobile_rec"}, "dataset": {"train": [{"uri": "data"}]}} | changes
    )


def touched(**changes: Any) -> list[Stage]:
    before, after = plan(spec()), plan(spec(**changes))
    return [stage for stage in STAGES if before[stage].input_hash != after[stage].input_hash]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, []),
        ({"dataset": {"train": [{"uri": "other"}]}}, list(STAGES)),
        ({"model": {"name": "PP-OCRv5_mobile_rec", "freeze": "backbone"}}, [Stage.TRAIN, Stage.EVALUATE, Stage.EXPORT]),
        ({"training": {"epochs": 3}}, [Stage.TRAIN, Stage.EVALUATE, Stage.EXPORT]),
        ({"training": {"checkpoint": {"every": "1m"}, "workers": 2}}, []),
        ({"evaluation": {"gate": {"min": 0.9}}}, [Stage.EVALUATE, Stage.EXPORT]),
        ({"export": {"quantize": "int8"}}, [Stage.EXPORT]),
        ({"policy": {"maxRestarts": 9}, "pods": {"image": "x"}, "queue": {"name": "q"}}, []),
        ({"distributed": {"nodes": 4, "devicesPerNode": 8}}, []),
    ],
)
def test_a_change_reruns_just_the_stages_it_touches(changes, expected):
    assert touched(**changes) == expected


def test_only_training_is_distributed():
    planned = plan(spec(distributed={"nodes": 2, "devicesPerNode": 4}))
    assert [(stage.nodes, stage.devices_per_node) for stage in planned.stages] == [(1, 1), (2, 4), (1, 1), (1, 1)]
