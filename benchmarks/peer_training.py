"""Runs PaddleOCR's own training from a checkout, as its users do: `tools/train.py` with a configuration file.

Nothing of the checkout is changed. What it needs beside what this project installs (albumentations, scikit-image) may lie
in another environment: its Python is given with `--peer-python`.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml

Lines = list[tuple[np.ndarray, str]]

_SPEED = re.compile(r"global_step: (\d+),.* ips: ([\d.]+) samples/s")
_METRIC = re.compile(r"cur metric, acc: ([\d.eE+-]+)")


@dataclass
class PeerRun:
    """What a training of the peer gave.

    Attributes:
        seconds: Wall time of the whole program.
        cpu_seconds: Processor time of it and its workers.
        peak_mebibytes: Peak resident memory.
        speeds: Step and samples a second (data and computing) in the mean of the last few steps.
        accuracies: The accuracy of each evaluation, as it counts it.
    """

    seconds: float
    cpu_seconds: float
    peak_mebibytes: float
    speeds: list[tuple[int, float]] = field(default_factory=list)
    accuracies: list[float] = field(default_factory=list)

    @property
    def samples_a_second(self) -> float:
        """The median over the reports, the first one left out: it allocates."""
        return float(np.median([speed for _, speed in self.speeds[1:]]))


def small_model(*, height: int = 32, width: int = 80) -> dict[str, Any]:
    """MobileNetV3-small of width 0.35 with CTC, the peer's smallest recogniser, with its augmentation."""
    size = [3, height, width]
    return {
        "Architecture": {
            "model_type": "rec", "algorithm": "CRNN", "Transform": None,
            "Backbone": {"name": "MobileNetV3", "scale": 0.35, "model_name": "small", "small_stride": [1, 2, 2, 2]},
            "Neck": {"name": "SequenceEncoder", "encoder_type": "reshape"},
            "Head": {"name": "CTCHead", "fc_decay": 0.00001},
        },
        "Loss": {"name": "CTCLoss"},
        "PostProcess": {"name": "CTCLabelDecode"},
        "transforms": [{"RecAug": None}, {"CTCLabelEncode": None}, {"RecResizeImg": {"image_shape": size}}],
        "evaluated": [{"CTCLabelEncode": None}, {"RecResizeImg": {"image_shape": size}}],
        "keys": ["image", "label", "length"],
    }  # fmt: skip


def mobile_model(checkout: Path) -> dict[str, Any]:
    """PP-OCRv5_mobile_rec with the transforms of its configuration file, at one size instead of three."""
    config = yaml.safe_load((checkout / "configs/rec/PP-OCRv5/PP-OCRv5_mobile_rec.yml").read_text(encoding="utf-8"))
    concatenate = {"prob": 0.5, "ext_data_num": 2, "image_shape": [48, 320, 3], "max_text_length": 25}
    encode = {"MultiLabelEncode": {"gtc_encode": "NRTRLabelEncode"}}
    resize = {"RecResizeImg": {"image_shape": [3, 48, 320]}}
    return {
        **{name: config[name] for name in ("Architecture", "Loss", "PostProcess")},
        "transforms": [{"RecConAug": concatenate}, {"RecAug": None}, encode, resize],
        "evaluated": [encode, resize],
        "keys": ["image", "label_ctc", "label_gtc", "length", "valid_ratio"],
    }


def write_lines(folder: Path, name: str, lines: Lines) -> Path:
    """Pictures and a label file as the peer reads them."""
    (folder / name).mkdir(parents=True, exist_ok=True)
    labels = []
    for number, (picture, text) in enumerate(lines):
        path = f"{name}/{number}.png"
        cv2.imwrite(str(folder / path), picture)
        labels.append(f"{path}\t{text}\n")
    file = folder / f"{name}.txt"
    file.write_text("".join(labels), encoding="utf-8")
    return file


def train(
    checkout: Path,
    model: dict[str, Any],
    *,
    folder: Path,
    train: Lines,
    validation: Lines,
    characters: str,
    epochs: int,
    batch: int,
    rate: float = 5e-3,
    workers: int = 0,
    evaluate_every: int = 0,
    report_every: int = 8,
    python: str = sys.executable,
    before: tuple[str, ...] = (),
) -> PeerRun:
    """Trains with the checkout's program.

    Args:
        checkout: PaddleOCR.
        model: `small_model` or `mobile_model`.
        folder: Where its files go.
        train: Lines to train on.
        validation: Lines to measure on.
        characters: The dictionary.
        epochs: Passes over the lines.
        batch: Lines a step.
        rate: Peak of the cosine.
        workers: Its data-loading processes.
        evaluate_every: Steps between evaluations; 0 does none.
        report_every: Steps between two lines of its log.
        python: A Python that has what it needs.
        before: What stands before the command, such as what pins it to a core.
    """
    dictionary = folder / "dictionary.txt"
    folder.mkdir(parents=True, exist_ok=True)
    dictionary.write_text("\n".join(characters) + "\n", encoding="utf-8")
    decode = {"DecodeImage": {"img_mode": "BGR", "channel_first": False}}
    keep = {"KeepKeys": {"keep_keys": model["keys"]}}

    def reads(labels: Path, transforms: list[Any], *, training: bool) -> dict[str, Any]:
        return {
            "dataset": {
                "name": "SimpleDataSet", "data_dir": str(folder), "label_file_list": [str(labels)],
                "ext_op_transform_idx": 1, "transforms": [decode, *transforms, keep],
            },
            "loader": {
                "shuffle": training, "drop_last": False, "batch_size_per_card": batch, "num_workers": workers,
                "use_shared_memory": workers > 0,
            },
        }  # fmt: skip

    config = {
        "Global": {
            "use_gpu": False, "epoch_num": epochs, "log_smooth_window": 20, "print_batch_step": report_every,
            "save_model_dir": str(folder / "output"), "save_epoch_step": 10_000, "distributed": False,
            "eval_batch_step": [0, evaluate_every or 10**9], "cal_metric_during_train": True, "use_visualdl": False,
            "character_dict_path": str(dictionary), "max_text_length": 25, "use_space_char": False, "infer_mode": False,
        },
        "Optimizer": {
            "name": "Adam", "beta1": 0.9, "beta2": 0.999, "lr": {"name": "Cosine", "learning_rate": rate},
            "regularizer": {"name": "L2", "factor": 3.0e-5},
        },
        "Architecture": model["Architecture"], "Loss": model["Loss"], "PostProcess": model["PostProcess"],
        "Metric": {"name": "RecMetric", "main_indicator": "acc"},
        "Train": reads(write_lines(folder, "train", train), model["transforms"], training=True),
        "Eval": reads(write_lines(folder, "validation", validation), model["evaluated"], training=False),
    }  # fmt: skip
    file = folder / "config.yml"
    file.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    command = [python, "-W", "ignore", str(checkout / "tools" / "train.py"), "-c", str(file)]
    done = _call(command, checkout=checkout, before=before)
    return PeerRun(
        seconds=done.seconds,
        cpu_seconds=done.cpu_seconds,
        peak_mebibytes=done.peak_mebibytes,
        speeds=[(int(step), float(speed)) for step, speed in _SPEED.findall(done.log)],
        accuracies=[float(value) for value in _METRIC.findall(done.log)],
    )


def blocking_saves(checkout: Path, *, classes: int, python: str = sys.executable) -> list[float]:
    """Seconds that its training stands still for the newest checkpoint of PP-OCRv5_mobile_rec, three times."""
    program = f"""
import sys, time, tempfile, logging, yaml, paddle
sys.path.insert(0, {str(checkout)!r})
from ppocr.modeling.architectures import build_model
from ppocr.utils.save_load import save_model
config = yaml.safe_load(open({str(checkout / "configs/rec/PP-OCRv5/PP-OCRv5_mobile_rec.yml")!r}))
architecture = config["Architecture"]
architecture["Head"]["out_channels_list"] = {{"CTCLabelDecode": {classes}, "NRTRLabelDecode": {classes + 3}}}
model = build_model(architecture)
optimizer = paddle.optimizer.Adam(1e-4, parameters=model.parameters())
sum(p.sum() for p in model.parameters() if not p.stop_gradient).backward()
optimizer.step()
with tempfile.TemporaryDirectory() as folder:
    for _ in range(4):
        began = time.monotonic()
        save_model(model, optimizer, folder, logging.getLogger("x"), config, is_best=False, prefix="latest",
                   epoch=1, global_step=1)
        print("SAVED", time.monotonic() - began)
"""
    done = _call([python, "-W", "ignore", "-c", program], checkout=checkout)
    return [float(line.split()[1]) for line in done.log.splitlines() if line.startswith("SAVED")][1:]


@dataclass(frozen=True)
class _Done:
    log: str
    seconds: float
    cpu_seconds: float
    peak_mebibytes: float


def _call(command: list[str], *, checkout: Path, before: tuple[str, ...] = ()) -> _Done:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(checkout)}
    began = time.monotonic()
    with tempfile.TemporaryFile("w+") as log:
        child = subprocess.Popen([*before, *command], env=environment, stdout=log, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(child.pid, 0)
        log.seek(0)
        text = log.read()
    if status:
        sys.exit(f"the peer's program failed:\n{text[-3000:]}")
    return _Done(text, time.monotonic() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)
