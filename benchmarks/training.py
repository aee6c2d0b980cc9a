"""What training costs, and what it reaches: run `python benchmarks/training.py` on an otherwise idle machine.

Every figure is a ratio of two things measured in this run, or a fact that does not depend on the clock. With `--peer PATH`
(a checkout of PaddleOCR; `--peer-python` if what it needs lies in another environment) its own training and its blocking
save are measured beside ours; without one those lines say that they are skipped.
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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "training"))

import cv2
import numpy as np
import peer_training as peer
from training_rig import Job, digits, free_port, write_set

from ocr_finetune_trainer.dictionary import Dictionary
from ocr_finetune_trainer.training.pulse import read_outcome

DIGITS = 1797  # of scikit-learn
NO_PEER = "skipped: no --peer"
DIGIT_CHARACTERS = tuple("0123456789")


def main() -> None:
    """Runs what was asked for, and prints one JSON object a line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer", type=Path, help="a checkout of PaddleOCR")
    parser.add_argument("--peer-python", default=sys.executable, help="a Python that has what the checkout needs")
    parser.add_argument("--only", choices=sorted(BENCHMARKS), action="append")
    parser.add_argument("--epochs", type=int, default=15, help="of the lines of digits; the peer trains 30")
    options = parser.parse_args()
    for name in options.only or BENCHMARKS:
        print(json.dumps({"benchmark": name, **BENCHMARKS[name](options)}), flush=True)


def lines_of_digits(
    count: int, *, first: int, last: int, seed: int, lengths: tuple[int, int] = (3, 6)
) -> list[tuple[np.ndarray, str]]:
    """Lines of 3 to 6 real digits, drawn from the digits `first` to `last` of a shuffle: other lines hold other digits."""
    everyone = digits(DIGITS)
    pool = [everyone[i] for i in np.random.default_rng(0).permutation(DIGITS)[first:last]]
    random = np.random.default_rng(seed)
    lines = []
    for _ in range(count):
        chosen = [pool[i] for i in random.integers(0, len(pool), random.integers(lengths[0], lengths[1] + 1))]
        picture = np.concatenate([picture for picture, _ in chosen], axis=1)
        lines.append((picture, "".join(text for _, text in chosen)))
    return lines


def accuracy(options: argparse.Namespace) -> dict[str, Any]:
    """Lines of digits: 2,000 to train, 400 unseen, on one core. The peer: 30 epochs with its augmentation."""
    train = lines_of_digits(2000, first=0, last=1400, seed=1)
    unseen = lines_of_digits(400, first=1400, last=DIGITS, seed=2)
    with tempfile.TemporaryDirectory() as folder:
        job = Job(Path(folder) / "run", {"epochs": options.epochs, "batchSize": 64, "evaluate": {"every": "1 epoch"}})
        prepare(job, train, unseen)
        began = time.monotonic()
        done = _train(job, before=_on_one_core())
        wall = time.monotonic() - began
        evaluated = job.events("evaluated")
        began = evaluated[0]["time"]
        curve = [(round(event["time"] - began, 1), event["accuracy"]) for event in evaluated]
        found = {"end": curve[-1][1], "wallSeconds": round(wall, 1), "curve": curve}
        if options.peer is None:
            return {**found, "best": done.outcome["metrics"]["best"], "peer": NO_PEER}
        theirs = peer.train(
            options.peer, peer.small_model(), folder=Path(folder) / "peer", train=train, validation=unseen,
            characters="0123456789", epochs=30, batch=64, evaluate_every=5 * 32, python=options.peer_python,
            before=_on_one_core(),
        )  # fmt: skip
    end = theirs.accuracies[-1]
    reached = next((seconds for seconds, value in curve if value >= end), None)
    return {
        **found,
        "peerEnd": round(end, 4),
        "peerBest": round(max(theirs.accuracies), 4),
        "peerWallSeconds": round(theirs.seconds, 1),
        "ratioOfWall": round(wall / theirs.seconds, 3),
        "ratioOfWallToThePeersEnd": None if reached is None else round(reached / theirs.seconds, 3),
    }


def speed(options: argparse.Namespace) -> dict[str, Any]:
    """Samples a second of training with augmentation on one core, and the peak memory of the process."""
    if options.peer is None:
        return {"peer": NO_PEER}
    cases = {
        # Two digits fill 64 of the 80 columns that both pad to; four to six, 320 of 48 rows.
        "MobileNetV3_small_ctc": (peer.small_model(), 64, 32, 2),
        "PP-OCRv5_mobile_rec": (peer.mobile_model(options.peer), 8, 10, 5),
    }
    found = {}
    for name, (model, batch, steps, digits_a_line) in cases.items():
        lines = lines_of_digits(batch * steps, first=0, last=1400, seed=1, lengths=(digits_a_line, digits_a_line))
        with tempfile.TemporaryDirectory() as folder:
            training = {"epochs": 1, "batchSize": batch, "learningRate": 0.001, "evaluate": {"every": "100 epochs"}}
            job = Job(Path(folder) / "run", training, {"name": name})
            prepare(job, lines, lines[:4])
            ours = _train(job, before=_on_one_core())
            theirs = peer.train(
                options.peer, model, folder=Path(folder) / "peer", train=lines, validation=lines[:4],
                characters="0123456789", epochs=1, batch=batch, rate=1e-3, report_every=2,
                python=options.peer_python, before=_on_one_core(),
            )  # fmt: skip
            speed_of_ours = _samples_a_second(job, batch=batch)
        found[name] = {
            "batch": batch,
            "samplesPerSecond": round(speed_of_ours, 2),
            "peerSamplesPerSecond": round(theirs.samples_a_second, 2),
            "ratio": round(speed_of_ours / theirs.samples_a_second, 2),
            "peakMebibytes": round(ours.peak_mebibytes),
            "peerPeakMebibytes": round(theirs.peak_mebibytes),
            "ratioOfMemory": round(ours.peak_mebibytes / theirs.peak_mebibytes, 2),
        }
    return found


def _samples_a_second(job: Job, *, batch: int) -> float:
    """The median over the steps, the first two left out: they allocate."""
    parts = [job.curve(f"seconds/{part}") for part in ("data", "compute", "agree")]
    return float(np.median([batch / sum(part[step] for part in parts) for step in parts[0] if step > 1]))


def scaling(_options: argparse.Namespace) -> dict[str, Any]:
    """Samples a second of 2 processes on 2 cores against 1, with the same batch for each."""
    speeds = {}
    for processes in (1, 2):
        with tempfile.TemporaryDirectory() as folder:
            training = {
                "epochs": 2, "batchSize": 64, "learningRate": 0.001, "workers": 0, "augmentation": "none",
                "evaluate": {"every": "100 epochs"},
            }  # fmt: skip
            job = Job(Path(folder) / "run", training, {}, {"device": "cpu", "devicesPerNode": processes})
            prepare(
                job,
                lines_of_digits(960, first=0, last=1400, seed=1),
                lines_of_digits(16, first=1400, last=1797, seed=2),
            )
            _train(job, processes=processes)
            speeds[processes] = _samples_a_second(job, batch=64 * processes)
    ratio = speeds[2] / speeds[1]
    return {"samplesPerSecond": {n: round(v, 1) for n, v in speeds.items()}, "ratio": round(ratio, 2)}


def overhead(_options: argparse.Namespace) -> dict[str, Any]:
    """The part of a step of the small model that is neither forward, backward nor update."""
    import paddle

    from ocr_finetune_trainer import losses, models
    from ocr_finetune_trainer.dictionary import targets
    from ocr_finetune_trainer.geometry import recognition_geometry

    with tempfile.TemporaryDirectory() as folder:
        job = Job(Path(folder) / "run", {"epochs": 2, "batchSize": 64, "learningRate": 0.001, "workers": 1})
        prepare(job, digits(1400), digits(16, start=1400))
        _train(job)
        parts = {part: job.curve(f"seconds/{part}") for part in ("data", "compute", "agree")}
    paddle.seed(0)
    name = "MobileNetV3_small_ctc"
    model, loss = models.build(name, characters=10), losses.build(name)
    optimizer = paddle.optimizer.AdamW(1e-3, parameters=model.parameters())
    dictionary = Dictionary(DIGIT_CHARACTERS, use_space=False)
    batch = {
        key: paddle.to_tensor(value)
        for key, value in targets([dictionary.encode(t) for _, t in digits(64)], guide="", size=10).items()
    }
    x = paddle.to_tensor(recognition_geometry(name).batch([picture for picture, _ in digits(64)]))

    def bare() -> None:
        loss(models.train_forward(model, x, batch), batch)["loss"].backward()
        optimizer.step()
        optimizer.clear_grad()

    bare_seconds = _median(bare, count=20)
    steady = [step for step in parts["data"] if step > 1]
    seconds = {part: float(np.median([values[step] for step in steady])) for part, values in parts.items()}
    whole = sum(sum(values.values()) for values in parts.values())
    loop = float(np.median([sum(values[step] for values in parts.values()) for step in steady]))
    return {
        "secondsOfAStep": round(loop, 4),
        "secondsOfABareStep": round(bare_seconds, 4),
        "overhead": round(loop / bare_seconds - 1, 3),
        "dataWait": round(seconds["data"] / loop, 4),
        "dataWaitWithTheFirstSteps": round(sum(parts["data"].values()) / whole, 3),
    }


def checkpoint_pause(options: argparse.Namespace) -> dict[str, Any]:
    """How long the loop stands still for a checkpoint, against a save that waits for the disk."""
    import paddle

    from ocr_finetune_trainer import models
    from ocr_finetune_trainer.training.average import Average
    from ocr_finetune_trainer.training.checkpoint import Fence, Manifest, Progress
    from ocr_finetune_trainer.training.optimizer import Optimizer, trainable
    from ocr_finetune_trainer.training.ranks import Ranks
    from ocr_finetune_trainer.training.saver import TrainingState
    from ocr_finetune_trainer.training.scaling import LossScale
    from ocr_finetune_trainer.training.writer import CheckpointWriter

    model = models.build("PP-OCRv5_mobile_rec", characters=6000)
    average = Average(models.build("PP-OCRv5_mobile_rec", characters=6000), of=model, decay=0.9)
    optimizer = Optimizer(trainable(model), weight_decay=0.01)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        writer = CheckpointWriter(
            root / "checkpoints",
            fence=Fence(root / "fence", attempt=1, execution="e"),
            keep_last=2,
            patience_seconds=60,
        )
        state = TrainingState(
            model=model, average=average, optimizer=optimizer, scale=LossScale(enabled=False),
            ranks=Ranks(rank=0, world=1, local_rank=0), folder=root / "checkpoints", writer=writer,
            manifest=Manifest(step=0, execution="e"),
        )  # fmt: skip
        step = 0

        def pause() -> None:
            nonlocal step
            step += 1
            state.save(Progress(step=step), metric=None, last=False)

        def blocking() -> None:
            nonlocal step
            step += 1
            state.save(Progress(step=step), metric=None, last=True)

        def like_the_peer() -> None:
            paddle.save(model.state_dict(), str(root / "latest.pdparams"))
            paddle.save(optimizer._inner.state_dict(), str(root / "latest.pdopt"))  # noqa: SLF001
            os.sync()

        pauses = _median(pause, between=writer.wait)
        return {
            "pauseSeconds": round(pauses, 4),
            "pauseSecondsOfCpu": round(_median(pause, between=writer.wait, clock=time.thread_time), 4),
            "paddleSaveSecondsOfCpu": round(_median(like_the_peer, count=3, clock=time.thread_time), 4),
            "blockingSaveSeconds": round(_median(blocking, count=3), 4),
            "paddleSaveSeconds": round(_median(like_the_peer, count=3), 4),
            "ratioToOurBlockingSave": round(pauses / _median(blocking, count=3), 3),
            **_against_the_peer(pauses, options),
        }


def _against_the_peer(pause: float, options: argparse.Namespace) -> dict[str, Any]:
    if options.peer is None:
        return {"peer": NO_PEER}
    saves = float(np.median(peer.blocking_saves(options.peer, classes=6001, python=options.peer_python)))
    return {"peerSaveSeconds": round(saves, 4), "ratioToThePeersSave": round(pause / saves, 3)}


def restart(_options: argparse.Namespace) -> dict[str, Any]:
    """From the start of a process to the first step after a checkpoint, beyond importing Paddle."""
    importing = _median(
        lambda: subprocess.run([sys.executable, "-c", "import paddle"], check=True, capture_output=True), count=3
    )
    with tempfile.TemporaryDirectory() as folder:
        training = {"epochs": 2, "batchSize": 64, "learningRate": 0.001, "workers": 1, "evaluate": {"every": "1 epoch"}}
        job = Job(Path(folder) / "run", training)
        prepare(job, digits(640), digits(64, start=640))
        _train(job)
        job.training["epochs"] = 3
        began = time.time()
        _train(job)
        times = [event["time"] for event in job.events("resumed")]
        first = min((path.stat().st_mtime for path in job.workspace.folder.glob("tensorboard/*.a2")), default=times[-1])
    return {"importSeconds": round(importing, 2), "beyondImport": round(max(first, times[-1]) - began - importing, 2)}


def memory(_options: argparse.Namespace) -> dict[str, Any]:
    """Peak resident memory of the process that trains the small model at batch 64; see `speed` for the peer's."""
    with tempfile.TemporaryDirectory() as folder:
        job = Job(Path(folder) / "run", {"epochs": 1, "batchSize": 64, "learningRate": 0.001, "workers": 0})
        prepare(job, lines_of_digits(640, first=0, last=1400, seed=1), digits(16, start=1400))
        done = _train(job)
    return {"peakMebibytes": round(done.peak_mebibytes)}


def prepare(job: Job, train: list[tuple[np.ndarray, str]], validation: list[tuple[np.ndarray, str]]) -> None:
    """Writes lines into a workspace, as the stage before training does."""
    cv2.setNumThreads(1)
    workspace = job.workspace
    write_set(workspace, "train", train)
    write_set(workspace, "validation", validation)
    Dictionary(DIGIT_CHARACTERS, use_space=False).save(workspace.dictionary)


@dataclass(frozen=True)
class Trained:
    """What a training gave: its outcome, and what its largest process used."""

    outcome: dict[str, Any]
    peak_mebibytes: float


def _train(job: Job, *, processes: int = 1, before: tuple[str, ...] = ()) -> Trained:
    """Trains in processes of its own, with `before` in front of each command."""
    folder = job.root
    config = folder / "config.yaml"
    config.write_text(job.config(devices_per_node=processes).to_yaml(), encoding="utf-8")
    (folder / "rank-0.outcome").unlink(missing_ok=True)
    port = free_port()
    children = []
    for rank in range(processes):
        gang = {
            "PADDLE_TRAINER_ID": str(rank), "PADDLE_TRAINERS_NUM": str(processes), "PADDLE_LOCAL_RANK": str(rank),
            "PADDLE_MASTER": f"127.0.0.1:{port}", "PADDLE_CURRENT_ENDPOINT": f"127.0.0.1:{port + rank}",
            "PADDLE_TRAINER_ENDPOINTS": ",".join(f"127.0.0.1:{port + other}" for other in range(processes)),
        }  # fmt: skip
        log = (folder / f"rank-{rank}.log").open("wb")
        children.append(
            subprocess.Popen(
                [*before, sys.executable, "-m", "ocr_finetune_trainer.training.worker", "--config", str(config),
                 "--workspace", str(job.root), "--folder", str(folder), "--execution", "b"],
                env=os.environ | {"OMP_NUM_THREADS": "1"} | (gang if processes > 1 else {}),
                stdout=log, stderr=subprocess.STDOUT,
            )
        )  # fmt: skip
    peak = 0
    for rank, child in enumerate(children):
        _, status, usage = os.wait4(child.pid, 0)
        if status:
            sys.exit((folder / f"rank-{rank}.log").read_text(encoding="utf-8", errors="replace")[-3000:])
        peak = max(peak, usage.ru_maxrss)
    outcome = read_outcome(folder, 0)
    assert outcome is not None
    return Trained(outcome.values, peak / 1024)


def _on_one_core() -> tuple[str, ...]:
    """What pins a command and all it starts to one core, so that both sides have the same."""
    return ("taskset", "-c", str(min(os.sched_getaffinity(0))))


def _median(
    action: Callable[[], Any],
    *,
    count: int = 5,
    between: Callable[[], Any] = lambda: None,
    clock: Callable[[], float] = time.monotonic,
) -> float:
    times = []
    for _ in range(count + 1):
        between()
        began = clock()
        action()
        times.append(clock() - began)
    between()
    return float(np.median(times[1:]))


BENCHMARKS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "accuracy": accuracy,
    "speed": speed,
    "scaling": scaling,
    "overhead": overhead,
    "checkpoint": checkpoint_pause,
    "restart": restart,
    "memory": memory,
}


if __name__ == "__main__":
    main()
