"""Detection on one core beside PaddleOCR: training step, forward pass, samples, targets, post-processing, metric.

    python benchmarks/detection.py [--peer CHECKOUT] [--only NAME ...]

`CHECKOUT` is a checkout of PaddleOCR (any release with `ppocr/`, its requirements installed). Each figure is measured
in a process of its own with one thread; without a checkout, or where it lacks a part, the peer's column says so.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np

WIDTH, HEIGHT, BOXES = 960, 720, 17
Work = Callable[[], object]


def page(seed: int = 0) -> tuple[bytes, list[np.ndarray]]:
    """A JPEG of noisy paper with 17 lines of text, and their outlines."""
    rng = np.random.default_rng(seed)
    noise = cv2.GaussianBlur(rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8), (7, 7), 2)
    picture = (noise // 4 + 170).astype(np.uint8)
    outlines = []
    for index in range(BOXES):
        x, y = 60 + (index % 3) * 300, 40 + (index // 3) * 110
        width, height = rng.uniform(100, 240), rng.uniform(20, 40)
        corners = [[x, y], [x + width, y], [x + width, y + height], [x, y + height]]
        turn = cv2.getRotationMatrix2D((x + width / 2, y + height / 2), float(rng.uniform(-8, 8)), 1.0)
        outlines.append((np.asarray(corners) @ turn[:, :2].T + turn[:, 2]).astype(np.float32))
        text = "detection 0123456789"[: int(width / 13)]
        cv2.putText(picture, text, (x, int(y + 0.8 * height)), cv2.FONT_HERSHEY_SIMPLEX, height / 32, (30, 30, 30), 2)
    return cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes(), outlines


def probability_map() -> np.ndarray:
    """What a good detector gives for `page`: smooth cores."""
    cores = np.zeros((HEIGHT, WIDTH), np.float32)
    for outline in page()[1]:
        (x, y), (width, height), angle = cv2.minAreaRect(outline)
        shrink = 0.6 * min(width, height)
        core = cv2.boxPoints(((x, y), (width - shrink, height - shrink), angle))
        cv2.fillPoly(cores, [core.astype(np.int32)], 1.0)
    return np.asarray(cv2.GaussianBlur(cores, (5, 5), 1))


def found() -> list[np.ndarray]:
    """Outlines as a detector finds them: a few pixels off."""
    rng = np.random.default_rng(3)
    return [outline + rng.normal(0, 2, outline.shape) for outline in page()[1]]


def batch(size: int, side: int) -> dict[str, np.ndarray]:
    """Input and maps of a training step."""
    from ocr_finetune_trainer.data.db_targets import db_targets

    rng = np.random.default_rng(0)
    maps = [
        db_targets([o * side / WIDTH for o in page(seed)[1]], [False] * BOXES, height=side, width=side)
        for seed in range(size)
    ]
    stacked = {name: np.stack([m[name] for m in maps]).astype(np.float32) for name in maps[0]}
    return {"x": rng.standard_normal((size, 3, side, side)).astype(np.float32), **stacked}


# --- ours ---------------------------------------------------------------------------------------------------------


def our_step() -> Work:
    """Forward, loss, backward and update."""
    import paddle

    from ocr_finetune_trainer import losses, models

    model, loss = models.build("PP-OCRv5_mobile_det"), losses.build("PP-OCRv5_mobile_det")
    model.train()
    optimizer = paddle.optimizer.Adam(1e-4, parameters=model.parameters())
    tensors = {name: paddle.to_tensor(value) for name, value in batch(2, 320).items()}

    def step() -> None:
        loss(models.train_forward(model, tensors["x"], tensors), tensors)["loss"].backward()
        optimizer.step()
        optimizer.clear_grad()

    return step


def our_forward() -> Work:
    """The forward pass in evaluation mode."""
    import paddle

    from ocr_finetune_trainer import models

    model = models.build("PP-OCRv5_mobile_det")
    model.eval()
    x = paddle.to_tensor(batch(2, 320)["x"])

    def forward() -> None:
        with paddle.no_grad():
            model(x).numpy()

    return forward


def our_sample() -> Work:
    """One training sample."""
    from types import SimpleNamespace

    from ocr_finetune_trainer.data.detection_samples import DetectionTransform
    from ocr_finetune_trainer.geometry import DetectionGeometry

    encoded, outlines = page()
    sample = SimpleNamespace(
        image=encoded, width=WIDTH, height=HEIGHT, polygons=outlines, ignored=[False] * BOXES, origin="drawn"
    )
    transform, seeds = DetectionTransform(geometry=DetectionGeometry()), iter(range(10**9))
    return lambda: transform(sample, np.random.default_rng(next(seeds)))


def our_targets() -> Work:
    """The four maps."""
    from ocr_finetune_trainer.data.db_targets import db_targets

    outlines = page()[1]
    return lambda: db_targets(outlines, [False] * BOXES, height=HEIGHT, width=WIDTH)


def our_postprocess() -> Work:
    """From a map to boxes."""
    from ocr_finetune_trainer.evaluation.db_postprocess import DBPostProcess

    drawn, postprocess = probability_map(), DBPostProcess()
    assert len(postprocess(drawn, height=HEIGHT, width=WIDTH)) == BOXES
    return lambda: postprocess(drawn, height=HEIGHT, width=WIDTH)


def our_metric() -> Work:
    """One page."""
    from ocr_finetune_trainer.metrics.detection import match_page

    truths, others = page()[1], found()
    assert match_page(truths, [False] * BOXES, others).counts.matched == BOXES
    return lambda: match_page(truths, [False] * BOXES, others)


# --- the peer's, through its public classes ---------------------------------------------------------------------------


def _peer_model() -> tuple[Any, Any]:
    import yaml
    from ppocr.losses import build_loss
    from ppocr.modeling.architectures import build_model

    (root,) = [Path(entry) for entry in sys.path if (Path(entry) / "ppocr").is_dir()][:1]
    config = yaml.safe_load((root / "configs/det/PP-OCRv5/PP-OCRv5_mobile_det.yml").read_text(encoding="utf-8"))
    return build_model(config["Architecture"]), build_loss(config["Loss"])


def peer_step() -> Work:
    """Forward, loss, backward and update."""
    import paddle

    model, loss = _peer_model()
    model.train()
    optimizer = paddle.optimizer.Adam(1e-4, parameters=model.parameters())
    tensors = {name: paddle.to_tensor(value) for name, value in batch(2, 320).items()}
    names = ("x", "threshold_map", "threshold_mask", "shrink_map", "shrink_mask")

    def step() -> None:
        loss(model(tensors["x"]), [tensors[name] for name in names])["loss"].backward()
        optimizer.step()
        optimizer.clear_grad()

    return step


def peer_forward() -> Work:
    """The forward pass in evaluation mode."""
    import paddle

    model, _ = _peer_model()
    model.eval()
    x = paddle.to_tensor(batch(2, 320)["x"])

    def forward() -> None:
        with paddle.no_grad():
            model(x)["maps"].numpy()

    return forward


def _peer_labels(outlines: list[np.ndarray]) -> dict[str, Any]:
    return {
        "polys": np.stack(outlines),
        "ignore_tags": np.zeros(BOXES, dtype=bool),
        "texts": ["text"] * BOXES,
    }


def peer_sample() -> Work:
    """One training sample, by the operations of PP-OCRv5_mobile_det's configuration."""
    from ppocr.data.imaug.copy_paste import CopyPaste
    from ppocr.data.imaug.iaa_augment import IaaAugment
    from ppocr.data.imaug.make_border_map import MakeBorderMap
    from ppocr.data.imaug.make_shrink_map import MakeShrinkMap
    from ppocr.data.imaug.operators import DecodeImage, NormalizeImage
    from ppocr.data.imaug.random_crop_data import EastRandomCropData

    encoded, outlines = page()
    decode = DecodeImage(img_mode="BGR", channel_first=False)
    # In the order of the configuration. Its loader reads a second page for each copy-paste.
    operations = [
        CopyPaste(),
        IaaAugment(),
        EastRandomCropData(size=[640, 640], max_tries=50, keep_ratio=True),
        MakeBorderMap(shrink_ratio=0.4, thresh_min=0.3, thresh_max=0.7),
        MakeShrinkMap(shrink_ratio=0.4, min_text_size=8),
        NormalizeImage(scale="1./255.", mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225], order="hwc"),
    ]

    def read() -> dict[str, Any]:
        return decode({"image": encoded}) | _peer_labels(outlines)

    def sample() -> None:
        data = read() | {"ext_data": [read()]}
        for operation in operations:
            data = operation(data)

    return sample


def peer_targets() -> Work:
    """The four maps."""
    from ppocr.data.imaug.make_border_map import MakeBorderMap
    from ppocr.data.imaug.make_shrink_map import MakeShrinkMap

    outlines, blank = page()[1], np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    border, shrink = MakeBorderMap(), MakeShrinkMap()
    return lambda: shrink(border({"image": blank} | _peer_labels(outlines)))


def peer_postprocess() -> Work:
    """From a map to boxes."""
    from ppocr.postprocess.db_postprocess import DBPostProcess

    drawn = probability_map()[None, None]
    postprocess = DBPostProcess(thresh=0.3, box_thresh=0.6, unclip_ratio=1.5)
    return lambda: postprocess({"maps": drawn}, [(HEIGHT, WIDTH, 1.0, 1.0)])


def peer_metric() -> Work:
    """One page."""
    from ppocr.metrics.eval_det_iou import DetectionIoUEvaluator

    evaluator = DetectionIoUEvaluator()
    truths = [{"points": outline.tolist(), "text": "t", "ignore": False} for outline in page()[1]]
    others = [{"points": outline.tolist(), "text": "t"} for outline in found()]
    return lambda: evaluator.evaluate_image(truths, others)


MEASURES: Mapping[str, tuple[str, Callable[[], Work], Callable[[], Work], int]] = {
    "step": ("training step, PP-OCRv5_mobile_det, 2 × 320 × 320", our_step, peer_step, 4),
    "forward": ("forward pass in use, the same", our_forward, peer_forward, 6),
    "sample": ("sample at 640 × 640 from a JPEG of 960 × 720, 17 boxes", our_sample, peer_sample, 40),
    "targets": ("the four maps of a page of 960 × 720, 17 boxes", our_targets, peer_targets, 20),
    "postprocess": ("post-processing, the same page", our_postprocess, peer_postprocess, 40),
    "metric": ("metric, the same page", our_metric, peer_metric, 40),
}


def measure(name: str, side: str) -> dict[str, float]:
    """Milliseconds of CPU of one call, the best of five rounds, and the process's peak memory."""
    cv2.setNumThreads(1)
    _, ours, peer, calls = MEASURES[name]
    if side == "ours":
        from ocr_finetune_trainer.processes import keep_memory

        keep_memory()  # as every data worker does
    work = (ours if side == "ours" else peer)()
    work()
    rounds = []
    for _ in range(5):
        started = time.process_time()
        for _ in range(calls):
            work()
        rounds.append((time.process_time() - started) / calls * 1e3)
    return {"ms": min(rounds), "mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def run(name: str, side: str, peer: Path | None) -> dict[str, float] | str:
    """Measures in a process of its own; text says why there is no figure."""
    paths = [str(peer), str(peer / "paddleocr")] if peer else []
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([*(paths if side == "peer" else []), os.environ.get("PYTHONPATH", "")]),
    }
    command = [sys.executable, __file__, "--child", name, side]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        return lines[-1] if lines else f"exit code {done.returncode}"
    result: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def main() -> None:
    """Prints one row a figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path, help="a checkout of PaddleOCR")
    parser.add_argument("--only", nargs="+", choices=MEASURES, default=list(MEASURES))
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(measure(*arguments.child)))
        return
    if arguments.peer is None:
        print("no --peer given: PaddleOCR's figures are skipped")
    for name in arguments.only:
        ours = run(name, "ours", None)
        if isinstance(ours, str):
            sys.exit(f"{name}: {ours}")
        row = f"{MEASURES[name][0]}: {ours['ms']:.2f} ms, {ours['mb']:.0f} MB"
        if arguments.peer is not None:
            theirs = run(name, "peer", arguments.peer)
            if isinstance(theirs, str):
                row += f"; peer not measured: {theirs}"
            else:
                row += (
                    f"; peer {theirs['ms']:.2f} ms, {theirs['mb']:.0f} MB; peer / ours {theirs['ms'] / ours['ms']:.1f}"
                )
        print(row, flush=True)


if __name__ == "__main__":
    main()
