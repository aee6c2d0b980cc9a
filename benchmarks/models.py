"""Seconds and memory of a training step and of an evaluation forward, ours against PaddleOCR's own code.

    python benchmarks/models.py [--peer PATH_OF_A_PADDLEOCR_CHECKOUT] [--only NAME] [--repeats 3]

Each measurement is a process of its own, so that peaks of memory are its own too. Without `--peer` the ratios are left
out and it says so. Set OMP_NUM_THREADS=1 to measure one core.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is measured: a model, its batch, and the configuration file that makes the same model in a checkout."""

    model: str
    batch: int
    height: int
    width: int
    classes: int = 0
    tokens: int = 0  # of a table's structure
    config: str = ""


CASES = (
    Case(
        model="PP-OCRv5_mobile_rec",
        batch=8,
        height=48,
        width=320,
        classes=96,
        config="configs/rec/PP-OCRv5/PP-OCRv5_mobile_rec.yml",
    ),
    Case(
        model="PP-OCRv5_mobile_rec",
        batch=8,
        height=48,
        width=320,
        classes=18385,
        config="configs/rec/PP-OCRv5/PP-OCRv5_mobile_rec.yml",
    ),
    Case(
        model="CRNN_r34_vd",
        batch=16,
        height=32,
        width=100,
        classes=96,
        config="configs/rec/rec_r34_vd_none_bilstm_ctc.yml",
    ),
    Case(
        model="PP-OCRv5_mobile_det",
        batch=2,
        height=320,
        width=320,
        config="configs/det/PP-OCRv5/PP-OCRv5_mobile_det.yml",
    ),
    Case(model="MobileNetV3_small_ctc", batch=64, height=48, width=320, classes=12),
    Case(
        model="PP-OCRv6_small_rec",
        batch=8,
        height=48,
        width=320,
        classes=96,
        config="configs/rec/PP-OCRv6/PP-OCRv6_small_rec.yml",
    ),
    Case(
        model="PP-OCRv6_small_det",
        batch=2,
        height=320,
        width=320,
        config="configs/det/PP-OCRv6/PP-OCRv6_small_det.yml",
    ),
    Case(model="SLANet", batch=4, height=488, width=488, tokens=60, config="configs/table/SLANet.yml"),
)


def _batch(case: Case) -> dict[str, Any]:
    import numpy as np

    rng = np.random.default_rng(0)
    if case.tokens:
        room = (case.batch, 502)  # 500 tokens, a start and an end
        return {
            "structure": rng.integers(1, 29, room),
            "bboxes": rng.uniform(size=(*room, 4)).astype("float32"),
            "bbox_masks": (rng.uniform(size=(*room, 1)) > 0.6).astype("float32"),
            "length": np.full(case.batch, case.tokens),
            "steps": np.full(case.batch, case.tokens + 1),
        }
    if not case.classes:
        shape = (case.batch, case.height, case.width)
        maps = {"threshold_map": rng.uniform(0.3, 0.7, shape), "shrink_map": rng.uniform(size=shape) > 0.8}
        masks = {name: np.ones(shape) for name in ("threshold_mask", "shrink_mask")}
        return {name: value.astype("float32") for name, value in {**maps, **masks}.items()}
    length = 9
    labels = rng.integers(1, case.classes - 1, (case.batch, length))
    gtc = np.concatenate([np.full((case.batch, 1), 2), labels + 3, np.full((case.batch, 1), 3)], axis=1)
    return {"label_ctc": labels, "label_gtc": gtc, "length": np.full(case.batch, length)}


def _measure(repeats: int, forward: Any, step: Any) -> dict[str, float]:
    step()  # the first one allocates and chooses kernels
    steps = [_seconds(step) for _ in range(repeats)]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    forward()
    forwards = [_seconds(forward) for _ in range(repeats)]
    measured = {"peak_mib": peak}
    for name, pairs in (("step", steps), ("forward", forwards)):
        measured[name] = statistics.median(wall for wall, _ in pairs)
        # on a shared machine the processor's time says more than the clock's
        measured[f"{name}_cpu"] = statistics.median(cpu for _, cpu in pairs)
    return measured


def _seconds(call: Any) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - wall, time.process_time() - cpu


def measure_ours(case: Case, repeats: int) -> dict[str, float]:
    """Times our model in this process."""
    import numpy as np
    import paddle

    from ocr_finetune_trainer import losses, models

    model = models.build(case.model, characters=max(case.classes - 1, 0))
    loss = losses.build(case.model)
    optimizer = paddle.optimizer.AdamW(1e-4, parameters=model.parameters())
    shape = (case.batch, 3, case.height, case.width)
    x = paddle.to_tensor(np.random.default_rng(1).standard_normal(shape).astype("float32"))
    batch = {name: paddle.to_tensor(value) for name, value in _batch(case).items()}

    def step() -> None:
        model.train()
        loss(models.train_forward(model, x, batch), batch)["loss"].backward()
        optimizer.step()
        optimizer.clear_grad()

    def forward() -> None:
        model.eval()
        with paddle.no_grad():
            model(x)

    return _measure(repeats, forward, step)


def measure_peer(case: Case, repeats: int, checkout: Path) -> dict[str, float]:
    """Times the model that a checkout of PaddleOCR builds from its configuration file, in this process."""
    sys.path.insert(0, str(checkout))
    import numpy as np
    import paddle
    import yaml
    from ppocr.losses import build_loss
    from ppocr.modeling.architectures import build_model

    config = yaml.safe_load((checkout / case.config).read_text())
    architecture = config["Architecture"]
    architecture.pop("Models", None)
    if case.classes and architecture["Head"]["name"] == "MultiHead":
        architecture["Head"]["out_channels_list"] = {
            "CTCLabelDecode": case.classes,
            "NRTRLabelDecode": case.classes + 3,
        }
    elif case.classes:
        architecture["Head"]["out_channels"] = case.classes
    if case.tokens:
        architecture["Backbone"].update(pretrained=False, use_ssld=False)
        architecture["Head"]["out_channels"] = 30
    model = build_model(architecture)
    loss = build_loss(config["Loss"])
    optimizer = paddle.optimizer.AdamW(1e-4, parameters=model.parameters())
    shape = (case.batch, 3, case.height, case.width)
    x = paddle.to_tensor(np.random.default_rng(1).standard_normal(shape).astype("float32"))
    made = {name: paddle.to_tensor(value) for name, value in _batch(case).items()}
    if case.classes and architecture["Head"]["name"] == "MultiHead":
        padded = {k: paddle.nn.functional.pad(made[k], [0, 25 - made[k].shape[1]]) for k in ("label_ctc", "label_gtc")}
        batch = [x, padded["label_ctc"], padded["label_gtc"], made["length"], paddle.ones([case.batch])]
    elif case.classes:
        batch = [x, made["label_ctc"], made["length"]]
    elif case.tokens:
        batch = [x, made["structure"], made["bboxes"], made["bbox_masks"], made["length"], paddle.ones([case.batch, 6])]
    else:
        batch = [x, made["threshold_map"], made["threshold_mask"], made["shrink_map"], made["shrink_mask"]]

    def step() -> None:
        model.train()
        outputs = model(x, data=batch[1:]) if case.classes or case.tokens else model(x)
        loss(outputs, batch)["loss"].backward()
        optimizer.step()
        optimizer.clear_grad()

    def forward() -> None:
        model.eval()
        with paddle.no_grad():
            model(x)

    return _measure(repeats, forward, step)


def _in_a_process(number: int, repeats: int, peer: Path | None) -> dict[str, float]:
    command = [sys.executable, __file__, "--case", str(number), "--repeats", str(repeats)]
    done = subprocess.run(
        command + (["--peer", str(peer)] if peer else []), stdout=subprocess.PIPE, text=True, check=True
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Prints a line a case, and all of it as JSON at the end."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--peer", type=Path, help="a checkout of PaddleOCR")
    parser.add_argument("--only", default="", help="only cases of this model")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--case", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case is not None:
        case = CASES[options.case]
        measured = (
            measure_peer(case, options.repeats, options.peer) if options.peer else measure_ours(case, options.repeats)
        )
        print(json.dumps(measured))
        return
    if options.peer is None:
        print("no --peer: PaddleOCR's own code is not measured, so there are no ratios")
    results = []
    for number, case in enumerate(CASES):
        if options.only and case.model != options.only:
            continue
        ours = _in_a_process(number, options.repeats, None)
        known = options.peer and case.config and (options.peer / case.config).is_file()
        theirs = _in_a_process(number, options.repeats, options.peer) if known else None
        ratios = {key: ours[key] / theirs[key] for key in ours} if theirs else {}
        shown = ", ".join(
            f"{key} {value:.2f}" + (f" ({ratios[key]:.2f}×)" if ratios else "") for key, value in ours.items()
        )
        print(f"{case.model} {case.batch}×{case.height}×{case.width}, {case.classes} classes: {shown}", flush=True)
        results.append({**asdict(case), "ours": ours, "peer": theirs, "ratio": ratios})
    print(json.dumps(results))


if __name__ == "__main__":
    main()
