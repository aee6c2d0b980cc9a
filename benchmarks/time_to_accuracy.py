"""What each way to train faster is worth, in time to accuracy: run `python benchmarks/time_to_accuracy.py` on an idle core.

Lines of 3 to 6 real handwritten digits, as in `training.py`: 2,000 to train, 400 unseen ones of other digits. Everything is as
`auto` chooses it but for the one thing that is named. One JSON object a line; `--only` takes some of them, `--seed` other
random numbers.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "training"))

import numpy as np
from training_rig import Job

from training import DIGITS, lines_of_digits, prepare

GOALS = (0.9, 0.935, 0.95)  # the second is where PaddleOCR's own training ends
# A worker whose batches hold pictures of any width, each padded to the widest.
WITHOUT_BUCKETS = """
import sys
from ocr_finetune_trainer.training import feed, worker
feed.width_buckets = lambda *_args, **_kwargs: None
sys.exit(worker.main(sys.argv[1:]))
"""
TRAININGS: dict[str, dict[str, Any]] = {
    "as auto chooses": {},
    "no moving average": {"ema": 0},
    "no buckets of width": {},
    "no augmentation": {"augmentation": "none"},
    "constant rate": {"schedule": {"name": "constant"}},
    "linear schedule": {"schedule": {"name": "linear"}},
    "piecewise schedule": {"schedule": {"name": "piecewise"}},
    "one-cycle schedule": {"schedule": {"name": "one-cycle"}},
    "one-cycle at twice the rate": {"schedule": {"name": "one-cycle"}, "learningRate": 0.01},
    "lower rates for lower layers": {"layerDecay": 0.8},
    "batch of 32": {"batchSize": 32},
    "batch of 128": {"batchSize": 128},
    "batch of 128 at the rate of 64": {"batchSize": 128, "learningRate": 0.005},
}
COUNT = 10  # steps that are timed


def main() -> None:
    """Runs what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=[*TRAININGS, *SPEEDS], action="append")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for name in options.only or [*TRAININGS, *SPEEDS]:
        found = SPEEDS[name]() if name in SPEEDS else curve(name, epochs=options.epochs, seed=options.seed)
        print(json.dumps({"changed": name, **found}), flush=True)


def curve(name: str, *, epochs: int, seed: int) -> dict[str, Any]:
    """Trains, and says when each goal was reached; the clock begins with the first evaluation, after imports."""
    train = lines_of_digits(2000, first=0, last=1400, seed=1)
    unseen = lines_of_digits(400, first=1400, last=DIGITS, seed=2)
    training = {"epochs": epochs, "batchSize": 64, "seed": seed, "evaluate": {"every": "16 steps"}, **TRAININGS[name]}
    with tempfile.TemporaryDirectory() as folder:
        job = Job(Path(folder), training)
        prepare(job, train, unseen)
        config = job.root / "config.yaml"
        config.write_text(job.config().to_yaml(), encoding="utf-8")
        worker = (
            ["-c", WITHOUT_BUCKETS] if name == "no buckets of width" else ["-m", "ocr_finetune_trainer.training.worker"]
        )
        core = str(min(os.sched_getaffinity(0)))
        done = subprocess.run(
            ["taskset", "-c", core, sys.executable, *worker, "--config", str(config), "--workspace", str(job.root),
             "--folder", folder, "--execution", "b"],
            env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            sys.exit(done.stderr[-3000:])
        events = job.events("evaluated")
    points = [(event["time"] - events[0]["time"], event["accuracy"]) for event in events]
    return {
        "seed": seed,
        **{f"secondsTo{goal:.1%}": next((round(s, 1) for s, value in points if value >= goal), None) for goal in GOALS},
        "seconds": round(points[-1][0], 1),
        "end": points[-1][1],
        "best": max(value for _, value in points),
    }


def compiled() -> dict[str, Any]:
    """The forward and backward pass through `paddle.jit.to_static`, against the one that is taken operator by operator."""
    import paddle

    from ocr_finetune_trainer import losses, models
    from ocr_finetune_trainer.dictionary import Dictionary, targets
    from ocr_finetune_trainer.geometry import recognition_geometry

    name = "MobileNetV3_small_ctc"
    lines = lines_of_digits(64, first=0, last=1400, seed=1, lengths=(4, 4))
    dictionary = Dictionary(tuple("0123456789"), use_space=False)
    encoded = targets([dictionary.encode(text) for _, text in lines], guide="", size=10)
    batch = {key: paddle.to_tensor(value) for key, value in encoded.items()}
    pictures = paddle.to_tensor(recognition_geometry(name).batch([picture for picture, _ in lines]))
    loss = losses.build(name)
    seconds, ends = {}, {}
    for kind in ("eager", "compiled"):
        paddle.seed(0)
        model = _logits_of(models.build(name, characters=10))
        optimizer = paddle.optimizer.AdamW(1e-3, parameters=model.parameters())
        forward = paddle.jit.to_static(model, full_graph=True) if kind == "compiled" else model

        def step(forward: Any = forward, optimizer: Any = optimizer) -> Any:
            value = loss({"ctc": forward(pictures)}, batch)["loss"]
            value.backward()
            optimizer.step()
            optimizer.clear_grad()
            return value

        seconds[kind] = median(step)
        ends[kind] = float(step())
    return {
        "secondsOfAStep": {kind: round(value, 4) for kind, value in seconds.items()},
        "ratio": round(seconds["compiled"] / seconds["eager"], 2),
        "sameLoss": ends["eager"] == ends["compiled"],
    }


def channels_last() -> dict[str, Any]:
    """A pointwise and a depthwise convolution, forward and backward, with channels last against channels first."""
    import paddle
    from paddle import nn

    seconds = {}
    for layout in ("NCHW", "NHWC"):
        paddle.seed(0)
        block = nn.Sequential(
            nn.Conv2D(32, 64, 1, data_format=layout), nn.BatchNorm2D(64, data_format=layout), nn.Hardswish(),
            nn.Conv2D(64, 64, 3, padding=1, groups=64, data_format=layout), nn.BatchNorm2D(64, data_format=layout),
            nn.Hardswish(), nn.Conv2D(64, 32, 1, data_format=layout),
        )  # fmt: skip
        x = paddle.rand([32, 16, 80, 32] if layout == "NHWC" else [32, 32, 16, 80])

        def step(block: Any = block, x: Any = x) -> None:
            block(x).sum().backward()
            block.clear_gradients()

        seconds[layout] = median(step)
    return {
        "secondsOfAPass": {layout: round(value, 4) for layout, value in seconds.items()},
        "ratio": round(seconds["NHWC"] / seconds["NCHW"], 2),
    }


def median(action: Callable[[], Any]) -> float:
    """Seconds; the first calls are left out: they compile and allocate."""
    times = []
    for _ in range(COUNT + 3):
        began = time.perf_counter()
        action()
        times.append(time.perf_counter() - began)
    return float(np.median(times[3:]))


def _logits_of(model: Any) -> Any:
    """The part of a model that can be compiled: pictures to logits."""
    from paddle import nn

    class Logits(nn.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, x: Any) -> Any:
            return self.model.train_forward(x, {})["ctc"]

    return Logits()


SPEEDS: dict[str, Callable[[], dict[str, Any]]] = {
    "compiled graphs": compiled,
    "channels last": channels_last,
}


if __name__ == "__main__":
    main()
