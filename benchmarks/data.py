"""Data on one core beside PaddleOCR: reading lines, preparing pictures, and the start on a million samples.

    python benchmarks/data.py [--peer CHECKOUT] [--only NAME ...] [--pictures N]

`CHECKOUT` is a checkout of PaddleOCR (any release with `ppocr/`, its requirements installed). Times are CPU time of one
process with one thread, so that what else runs on the machine matters little; where wall time counts, it is said. Without
a checkout, or where it lacks a part, the peer's column says so. Detection samples are in `benchmarks/detection.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

HEIGHT, WIDTH, LINES, BATCH = 48, 320, 512, 64
CHARACTERS = 18383  # as many as PP-OCRv5's dictionary has
MILLION = 1_000_000


def characters() -> list[str]:
    """A dictionary of the usual size: ASCII, then ideographs."""
    plain = [chr(code) for code in range(0x21, 0x7F)]
    return plain + [chr(0x4E00 + number) for number in range(CHARACTERS - len(plain))]


def lines(count: int = LINES) -> Iterator[tuple[bytes, str]]:
    """JPEG crops of noisy paper with a text, and labels of ten characters from the whole dictionary."""
    rng = np.random.default_rng(0)
    known = characters()
    for _ in range(count):
        noise = rng.integers(-20, 20, (HEIGHT, WIDTH, 3))
        picture = np.clip(rng.integers(120, 240) + noise, 0, 255).astype(np.uint8)
        cv2.putText(picture, "text 0123456789", (6, 34), cv2.FONT_HERSHEY_SIMPLEX, 1.1, (30, 30, 30), 2)
        label = "".join(known[number] for number in rng.integers(len(known), size=10))
        yield cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes(), label


def cpu(work: Callable[[], int], *, at_least: float = 3.0) -> float:
    """Samples a second of CPU time."""
    work()
    began, count = time.process_time(), 0
    while time.process_time() - began < at_least:
        count += work()
    return count / (time.process_time() - began)


# --- reading lines --------------------------------------------------------------------------------------------------


def our_lines(folder: Path, *, augment: bool) -> Callable[[], int]:
    """Batches as training gets them: read, decoded, augmented, resized, encoded, put together."""
    from ocr_finetune_trainer.data.augment.recognition import RecognitionAugmentation
    from ocr_finetune_trainer.data.order import Order
    from ocr_finetune_trainer.data.recognition_samples import RecognitionTransform
    from ocr_finetune_trainer.data.worker import Task, make_batch
    from ocr_finetune_trainer.dictionary import Dictionary
    from ocr_finetune_trainer.geometry import recognition_geometry

    dataset = our_set(folder)
    transform = RecognitionTransform(
        recognition_geometry("PP-OCRv5_mobile_rec"),
        Dictionary(tuple(characters())),
        RecognitionAugmentation() if augment else None,
        guide="nrtr",
    )
    order = Order(len(dataset), batch_size=BATCH, seed=0)
    position = iter(range(1 << 30))

    def work() -> int:
        epoch, step = divmod(next(position), order.steps_per_epoch)
        chosen = order.step(epoch, step)
        batch = make_batch(dataset, transform, Task(epoch, step, 0, chosen, chosen), seed=0)
        assert batch["image"].shape[1:] == (HEIGHT, WIDTH, 3)
        return len(chosen)

    return work


def our_set(folder: Path) -> Any:
    """The lines as a prepared data set."""
    from ocr_finetune_trainer.data import store
    from ocr_finetune_trainer.data.pictures import inspect
    from ocr_finetune_trainer.data.store import DataSet, ViewRow, write_shard, write_view

    cache = folder / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    contents = list(lines())
    nothing = {"points": None, "texts": None, "ignored": None}
    index = []
    for content, label in contents:
        seen = inspect(content)
        row: dict[str, Any] = dict.fromkeys((field.name for field in store.SHARD_INDEX), 0)
        row |= dict.fromkeys(("group", "split", "path", "place", "converted"), "")
        index.append({**row, "cells": b"", "text": label, "width": seen.width, "height": seen.height})
    pictures = [{"image": content, **nothing} for content, _ in contents]
    shard = write_shard(cache, "lines", pictures=pictures, index=index, about={})
    rows = (
        ViewRow(shard=0, row=n, text=label, width=WIDTH, height=HEIGHT, source=0, group="", origin="", digest=n)
        for n, (_, label) in enumerate(contents)
    )
    write_view(folder / "view", cache=cache, shards=[shard], sources=["lines"], rows=rows)
    return DataSet.open(folder / "view")


def peer_lines(folder: Path, *, augment: bool) -> Callable[[], int]:
    """The same through PaddleOCR's MultiScaleDataSet, with the operations of PP-OCRv5_mobile_rec's configuration."""
    import logging

    from ppocr.data.simple_dataset import MultiScaleDataSet  # type: ignore[import-not-found]

    rows = []
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    for number, (content, label) in enumerate(lines()):
        (folder / "pictures" / f"{number}.jpg").write_bytes(content)
        rows.append(f"pictures/{number}.jpg\t{label}\n")
    (folder / "list.txt").write_text("".join(rows), encoding="utf-8")
    (folder / "dictionary.txt").write_text("".join(f"{c}\n" for c in characters()), encoding="utf-8")
    joined = {"prob": 0.5, "ext_data_num": 2, "image_shape": [HEIGHT, WIDTH, 3], "max_text_length": 25}
    transforms: list[dict[str, Any]] = [{"DecodeImage": {"img_mode": "BGR", "channel_first": False}}]
    if augment:
        transforms += [{"RecConAug": joined}, {"RecAug": None}]
    transforms += [
        {"MultiLabelEncode": {"gtc_encode": "NRTRLabelEncode"}},
        {"KeepKeys": {"keep_keys": ["image", "label_ctc", "label_gtc", "length", "valid_ratio"]}},
    ]
    given = {
        "Global": {
            "character_dict_path": str(folder / "dictionary.txt"),
            "max_text_length": 25,
            "use_space_char": True,
            "distributed": False,
        },
        "Train": {
            "dataset": {
                "name": "MultiScaleDataSet",
                "data_dir": str(folder),
                "label_file_list": [str(folder / "list.txt")],
                "ratio_list": [1.0],
                "transforms": transforms,
            },
            "loader": {"shuffle": False, "batch_size_per_card": BATCH},
        },
    }
    dataset = MultiScaleDataSet(given, "Train", logging.getLogger("peer"), seed=0)
    position = iter(range(1 << 30))

    def work() -> int:
        start = next(position) * BATCH
        for number in range(start, start + BATCH):
            dataset[(WIDTH, HEIGHT, number % LINES, None)]
        return BATCH

    return work


# --- preparing ------------------------------------------------------------------------------------------------------


def plates(folder: Path, count: int) -> None:
    """Small pages under CCPD's names, each with one plate."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        picture = cv2.resize(rng.integers(60, 200, (6, 10, 3), dtype=np.uint8), (200, 120))
        cv2.putText(picture, f"{number}", (24, 70), cv2.FONT_HERSHEY_SIMPLEX, 1.2, (250, 250, 250), 2)
        plate = "_".join(str(value) for value in (0, 0, *rng.integers(0, 33, 5)))
        name = f"025-95_113-20&40_180&90-180&90_20&92_20&40_180&38-{plate}-{number}-15.jpg"
        (folder / name).write_bytes(cv2.imencode(".jpg", picture)[1].tobytes())


def our_preparation(folder: Path, *, crops: bool, workers: int) -> dict[str, float]:
    """`prepare` as it is: read, check, find duplicates, split, report; lines are cut out, or pages kept as they are."""
    code = (
        "import sys,time,resource; from pathlib import Path; from ocr_finetune_api.plan import Stage;"
        "from ocr_finetune_api import run_config; from ocr_finetune_trainer.stages.runner import run_stage;"
        "began=time.monotonic(); r=run_stage(Stage.PREPARE, config=run_config.read(Path(sys.argv[1])),"
        "root=Path(sys.argv[2])); assert r.succeeded, r.problems;"
        "own,kids=(resource.getrusage(w) for w in (resource.RUSAGE_SELF,resource.RUSAGE_CHILDREN));"
        "print(time.monotonic()-began, sum((own.ru_utime,own.ru_stime,kids.ru_utime,kids.ru_stime)),"
        "max(own.ru_maxrss,kids.ru_maxrss)/1024)"
    )
    model = "MobileNetV3_small_ctc" if crops else "DB_mv3"
    document = {
        "schemaVersion": 1,
        "run": {"name": "bench", "uid": "0"},
        "spec": {
            "model": {"name": model, "pretrained": "none"},
            "dataset": {"train": [{"uri": str(folder / "plates")}]},
        },
        "metricsPort": 0,
    }
    config = folder / f"{model}-{workers}.yaml"
    config.write_text(json.dumps(document))
    # Compiled, as in an installation: some environments forbid Python to keep what it compiled.
    environment = {**os.environ, "OCRFT_PREPARE_WORKERS": str(workers), "PYTHONPYCACHEPREFIX": str(folder / "pycache")}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    root = folder / f"workspace-{model}-{workers}"
    done = subprocess.run(
        [sys.executable, "-c", code, str(config), str(root)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    wall, used, peak = (float(value) for value in done.stdout.split())
    return {"wall": wall, "cpu": used, "peak": peak}


def plain_loop(folder: Path) -> dict[str, float]:
    """What people write by hand: read each page, straighten its plate, write it, and a list for pages and one for lines."""
    from ocr_finetune_trainer.data.formats.ccpd import parse

    target = folder / "crops"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    began, used = time.monotonic(), time.process_time()
    with (target / "det.txt").open("w") as pages, (target / "rec.txt").open("w") as lines_:
        for number, path in enumerate(sorted((folder / "plates").iterdir())):
            box = parse(path.name)
            assert not isinstance(box, str)
            page = cv2.imread(str(path))
            corners = np.asarray(box.points, dtype=np.float32)
            label = [{"points": corners.tolist(), "transcription": box.text}]
            pages.write(f"{path.name}\t{json.dumps(label, ensure_ascii=False)}\n")
            width = int(max(np.linalg.norm(corners[0] - corners[1]), np.linalg.norm(corners[2] - corners[3])))
            height = int(max(np.linalg.norm(corners[0] - corners[3]), np.linalg.norm(corners[1] - corners[2])))
            straight = np.asarray([[0, 0], [width, 0], [width, height], [0, height]], dtype=np.float32)
            matrix = cv2.getPerspectiveTransform(corners, straight)
            crop = cv2.warpPerspective(
                page, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE, flags=cv2.INTER_CUBIC
            )
            if height >= 1.5 * width:
                crop = np.rot90(crop)
            cv2.imwrite(str(target / f"{number}.jpg"), crop)
            lines_.write(f"{number}.jpg\t{box.text}\n")
    return {"wall": time.monotonic() - began, "cpu": time.process_time() - used, "peak": 0.0}


# --- starting -------------------------------------------------------------------------------------------------------


def million(folder: Path) -> Path:
    """A prepared set of a million samples; many of them share a picture."""
    from ocr_finetune_trainer.data.store import Shard, ViewRow, write_view

    our_set(folder)
    rng = np.random.default_rng(0)
    known = characters()
    labels = ["".join(known[number] for number in rng.integers(len(known), size=10)) for _ in range(5000)]
    widths = rng.integers(60, 900, size=MILLION)
    rows = (
        ViewRow(
            shard=0, row=n % LINES, text=labels[n % 5000], width=int(widths[n]), height=HEIGHT, source=n % 2,
            group=f"page-{n // 20}", origin=f"train_list.txt:{n} (images/{n}.jpg)", digest=n,
        )
        for n in range(MILLION)
    )  # fmt: skip
    shard = Shard(name="lines", size=(folder / "cache/lines.arrow").stat().st_size)
    write_view(folder / "million", cache=folder / "cache", shards=[shard], sources=["a", "b"], rows=rows)
    return folder / "million"


def start(path: Path) -> dict[str, float]:
    """Time and memory from nothing to the first batch, in a process of its own, without its imports."""
    code = (
        "import sys,time,resource; from pathlib import Path; from ocr_finetune_trainer.data.store import DataSet;"
        "from ocr_finetune_trainer.data.order import Order; from ocr_finetune_trainer.data.loader import Loader;"
        "from ocr_finetune_trainer.data.recognition_samples import RecognitionTransform,width_buckets;"
        "from ocr_finetune_trainer.dictionary import Dictionary; from ocr_finetune_trainer.geometry import "
        "recognition_geometry; sys.path.insert(0, sys.argv[2]); import data;"
        "w=time.monotonic(); c=time.process_time();"
        "ds=DataSet.open(Path(sys.argv[1])); g=recognition_geometry('PP-OCRv5_mobile_rec');"
        "o=Order(len(ds),batch_size=256,seed=0,buckets=width_buckets(ds,geometry=g));"
        "t=RecognitionTransform(g,Dictionary(tuple(data.characters())));"
        "b=next(iter(Loader(ds,o,t)));"
        "s=dict(l.split(':') for l in open('/proc/self/status') if ':' in l);"
        "print(time.monotonic()-w,time.process_time()-c,*(int(s[k].split()[0])/1024 for k in ('VmRSS','RssAnon')))"
    )
    command = [sys.executable, "-c", code, str(path), str(Path(__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    wall, used, peak, anonymous = (float(value) for value in done.stdout.split())
    return {"wall": wall, "cpu": used, "peak": peak, "anonymous": anonymous}


# --- table ----------------------------------------------------------------------------------------------------------


def measured(name: str, peer: str) -> float | str:
    """One figure of reading, in a process of its own."""
    command = [sys.executable, "-W", "ignore", __file__, "--measure", name, "--peer", peer]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **ONE_THREAD})
    if done.returncode:
        return f"skipped: {(done.stderr.strip().splitlines() or ['failed'])[-1][:100]}"
    return float(done.stdout.split()[-1])


ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
READERS: dict[str, Callable[[Path], Callable[[], int]]] = {
    "ours": lambda folder: our_lines(folder, augment=False),
    "ours-augmented": lambda folder: our_lines(folder, augment=True),
    "peer": lambda folder: peer_lines(folder, augment=False),
    "peer-augmented": lambda folder: peer_lines(folder, augment=True),
}


def report_reading(peer: str) -> None:
    """Lines a second of one core's CPU time."""
    figures: dict[str, float | str] = {}
    for name in READERS:
        if name.startswith("peer") and not peer:
            figures[name] = "skipped: no checkout was given (--peer)"
        else:
            figures[name] = measured(name, peer)
    for name, figure in figures.items():
        shown = f"{figure:10.0f} lines/s" if isinstance(figure, float) else figure
        print(f"reading 48x320, {name:15} {shown}")
    ours, theirs = figures["ours-augmented"], figures["peer-augmented"]
    if isinstance(ours, float) and isinstance(theirs, float):
        print(f"reading 48x320, augmented: {ours / theirs:.1f} times the peer's (at least 8 wanted)")
    plain = figures["peer"]
    if isinstance(ours, float) and isinstance(plain, float):
        print(f"reading 48x320, ours augmented against the peer's not augmented: {ours / plain:.1f} times")


def report_preparing(folder: Path, count: int) -> None:
    """Pictures a second, all checks included, beside a loop that checks nothing."""
    plates(folder / "plates", count)
    loop = plain_loop(folder)
    cores = len(os.sched_getaffinity(0))
    print(
        f"preparing {count} small pages, plain loop: {count / loop['wall']:.0f}/s wall, {count / loop['cpu']:.0f}/s CPU"
    )
    for crops in (True, False):
        ours = our_preparation(folder, crops=crops, workers=cores)
        what = "cut out and kept as lines" if crops else "kept as pages"
        print(
            f"preparing {count} small pages, {what}, {cores} processes: {count / ours['wall']:.0f}/s wall "
            f"({loop['wall'] / ours['wall']:.1f} times), {count / ours['cpu']:.0f}/s CPU "
            f"({loop['cpu'] / ours['cpu']:.1f} times), peak {ours['peak']:.0f} MiB a process"
        )


def report_start(folder: Path) -> None:
    """A million samples: time to the first batch of 256, and memory."""
    figures = start(million(folder))
    print(
        f"start on {MILLION} samples: {figures['wall']:.2f} s wall, {figures['cpu']:.2f} s CPU to the first batch, "
        f"{figures['anonymous']:.0f} MiB of its own, {figures['peak']:.0f} MiB with mapped files that processes share"
    )


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", default="", help="a checkout of PaddleOCR")
    parser.add_argument("--only", nargs="*", default=["reading", "preparing", "start"])
    parser.add_argument("--pictures", type=int, default=20000, help="how many pictures are prepared")
    parser.add_argument("--measure", default="", help=argparse.SUPPRESS)
    given = parser.parse_args()
    cv2.setNumThreads(0)
    folder = Path(tempfile.mkdtemp(prefix="ocrft-bench-"))
    try:
        if given.measure:
            if given.peer:
                sys.path.insert(0, given.peer)
            print(cpu(READERS[given.measure](folder)))
            return
        if "reading" in given.only:
            report_reading(given.peer)
        if "preparing" in given.only:
            report_preparing(folder, given.pictures)
        if "start" in given.only:
            report_start(folder)
        print(f"peak of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
