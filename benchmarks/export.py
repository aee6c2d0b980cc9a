"""Exported formats: time to make, size, speed beside `paddleocr`; quantisation; and what evaluation costs beside PaddleOCR.

    python benchmarks/export.py [--peer CHECKOUT] [--only NAME ...]

Speeds are pictures a second of CPU time on one thread, in a process of its own for each figure; ratios are against
`paddleocr` with the same exported model in the same run. `CHECKOUT` is a checkout of PaddleOCR (any release with `ppocr/`,
its requirements installed); without it the figures of its evaluation are skipped, and said to be.
"""

from __future__ import annotations

import argparse
import json
import os
import string
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from drawn import DETECTOR, DOCUMENT, crops, document, fit_detector, pages

RECOGNISER = "PP-OCRv5_mobile_rec"
CHARACTERS = tuple(string.ascii_letters + string.digits) + tuple(chr(0x4E00 + i) for i in range(6000))
CALIBRATION = 100
PAGES_MEASURED = 8
STEPS = 150
ROUNDS = 5

PARTS = ("recognition", "detection", "quantization", "evaluation")

Work = tuple[Callable[[], object], int]  # what is measured, and how many pictures one call is


def subject(name: str) -> Any:
    """An untrained model as it is served; speed and size do not depend on the values."""
    from ocr_finetune_api.model_table import Kind, lookup
    from ocr_finetune_trainer.dictionary import Dictionary
    from ocr_finetune_trainer.evaluation.subjects import build_subject

    kind = lookup(name).kind
    dictionary = Dictionary(CHARACTERS) if kind is Kind.RECOGNITION else None
    return build_subject(name, None, kind=kind, dictionary=dictionary, note="untrained")


def make(name: str, folder: Path) -> dict[str, Any]:
    """Writes every format of a model; seconds and bytes of each."""
    from ocr_finetune_trainer.export.checks import size_of
    from ocr_finetune_trainer.export.exporter import Exporter
    from ocr_finetune_trainer.export.quantize import quantize_int8, to_fp16
    from ocr_finetune_trainer.geometry import RecognitionGeometry

    exporter: Any = Exporter(
        subject=subject(name), folder=folder, checker=None, metrics={}, max_drop=0.0, tell=lambda _: None
    )
    geometry = exporter.subject.geometry
    if isinstance(geometry, RecognitionGeometry):
        inputs = [geometry.batch([crop]) for crop in crops(CALIBRATION)]
    else:
        inputs = [geometry.normalization(geometry.resize(page).picture)[None] for page in pages(CALIBRATION)]
    steps: Mapping[str, tuple[Path, Callable[[], object]]] = {
        "paddle": (exporter.paddle, exporter.make_paddle),
        "onnx": (exporter.onnx, exporter.make_onnx),
        "int8": (
            folder / "int8.onnx",
            lambda: quantize_int8(
                exporter.onnx, folder / "int8.onnx", calibration=inputs, drop_of=lambda _: 0.0, max_drop=0.01
            ),
        ),
        "fp16": (folder / "fp16.onnx", lambda: to_fp16(exporter.onnx, folder / "fp16.onnx")),
    }
    figures = {}
    for format_name, (path, action) in steps.items():
        started = time.perf_counter()
        action()
        figures[format_name] = {"seconds": time.perf_counter() - started, "bytes": size_of(path)}
    return figures


def ours(path: Path) -> Work:
    """An exported format through our reader or detector."""
    from ocr_finetune_trainer.evaluation.opening import open_model
    from ocr_finetune_trainer.evaluation.pipeline import Pipeline

    pipeline = Pipeline([open_model(path)])
    pictures: Sequence[np.ndarray] = pages() if pipeline.detects else crops()
    return lambda: pipeline.read(pictures), len(pictures)


def served(path: Path) -> Work:
    """Paddle's format in `paddleocr`, with the batches that it likes best."""
    import yaml

    from ocr_finetune_trainer.export.serving import paddleocr

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    config = yaml.load((path / "inference.yml").read_text(encoding="utf-8"), Loader=loader)  # both are safe loaders
    reads = config["PostProcess"]["name"] == "CTCLabelDecode"
    kind = paddleocr().TextRecognition if reads else paddleocr().TextDetection
    model = kind(model_name=config["Global"]["model_name"], model_dir=str(path), device="cpu", cpu_threads=1)
    pictures = crops() if reads else pages()
    options: dict[str, Any] = (
        {"batch_size": 8} if reads else {"batch_size": 1, "limit_side_len": 64, "limit_type": "min"}
    )
    return lambda: model.predict(pictures, **options), len(pictures)


def encoded() -> tuple[list[bytes], list[str], np.ndarray]:
    """Crops as files, their labels, and what a network gives for them: (N, 40, classes)."""
    rng = np.random.default_rng(0)
    files = [cv2.imencode(".jpg", crop)[1].tobytes() for crop in crops(64)]
    labels = ["".join(rng.choice(CHARACTERS, 12)) for _ in files]
    output = np.zeros((len(files), 40, len(CHARACTERS) + 2), np.float32)
    for row, label in zip(output, labels, strict=True):
        for frame, character in enumerate(label):
            row[3 * frame + 2, CHARACTERS.index(character) + 1] = 1.0
        row[row.max(axis=1) == 0, 0] = 1.0
    return files, labels, output


def our_evaluation() -> Work:
    """Reading, resizing, decoding and measuring crops: evaluation but for the network."""
    from ocr_finetune_trainer.data.pictures import decode
    from ocr_finetune_trainer.dictionary import Dictionary
    from ocr_finetune_trainer.evaluation.networks import best_of
    from ocr_finetune_trainer.evaluation.reader import Recogniser
    from ocr_finetune_trainer.geometry import recognition_geometry
    from ocr_finetune_trainer.metrics.recognition import RecognitionMetric

    files, labels, output = encoded()

    class Fixed:
        at = 0

        def best(self, x: np.ndarray) -> Any:
            rows = output[self.at : self.at + len(x)]
            self.at = (self.at + len(x)) % len(output)
            return best_of(rows)

        def run(self, x: np.ndarray) -> Any:
            raise NotImplementedError

    dictionary = Dictionary(CHARACTERS)
    reader = Recogniser(
        Fixed(), geometry=recognition_geometry(RECOGNISER), dictionary=dictionary, batch_size=len(files)
    )
    readable = frozenset(dictionary.characters)

    def work() -> None:
        texts = [text for text, _ in reader.read([decode(content) for content in files])]
        assert RecognitionMetric.of(texts, labels, readable=readable).scores().accuracy == 1.0

    return work, len(files)


def peer_evaluation() -> Work:
    """The same by PaddleOCR's own operations, as its evaluation of PP-OCRv5_mobile_rec is configured."""
    from ppocr.data.imaug.label_ops import MultiLabelEncode
    from ppocr.data.imaug.operators import DecodeImage, KeepKeys
    from ppocr.data.imaug.rec_img_aug import RecResizeImg
    from ppocr.metrics.rec_metric import RecMetric
    from ppocr.postprocess.rec_postprocess import CTCLabelDecode

    files, labels, output = encoded()
    with tempfile.NamedTemporaryFile("w", suffix=".txt", delete=False, encoding="utf-8") as file:
        file.write("".join(f"{character}\n" for character in CHARACTERS))
    options = {"character_dict_path": file.name, "use_space_char": True}
    operations = [
        DecodeImage(img_mode="BGR", channel_first=False),
        MultiLabelEncode(max_text_length=25, gtc_encode="NRTRLabelEncode", **options),
        RecResizeImg(image_shape=[3, 48, 320]),
        KeepKeys(keep_keys=["image", "label_ctc", "label_gtc", "length", "valid_ratio"]),
    ]
    decoder, metric = CTCLabelDecode(**options), RecMetric(main_indicator="acc", ignore_space=False)

    def work() -> None:
        samples = []
        for content, label in zip(files, labels, strict=True):
            data: Any = {"image": content, "label": label}
            for operation in operations:
                data = operation(data)
            samples.append(data)
        batch = [np.stack([sample[i] for sample in samples]) for i in range(len(samples[0]))]
        metric(decoder(output, batch[1]))
        assert metric.get_metric()["acc"] > 0.99

    return work, len(files)


def page_evaluation() -> tuple[list[bytes], list[list[np.ndarray]], list[np.ndarray]]:
    """Pages as files, their true outlines, and what a good detector gives for each at the size that both sides use."""
    from ocr_finetune_trainer.geometry import detection_geometry

    rows, columns = detection_geometry(DETECTOR).rule.size(height=DOCUMENT[0], width=DOCUMENT[1])
    files, outlines, maps = [], [], []
    for seed in range(PAGES_MEASURED):
        content, true = document(seed)
        files.append(content)
        outlines.append(true)
        cores = np.zeros((rows, columns), np.float32)
        for outline in true:
            (x, y), (width, height), angle = cv2.minAreaRect(outline)
            shrink = 0.6 * min(width, height)
            core = cv2.boxPoints(((x, y), (width - shrink, height - shrink), angle))
            cv2.fillPoly(cores, [(core * (columns / DOCUMENT[1], rows / DOCUMENT[0])).astype(np.int32)], 1.0)
        maps.append(np.asarray(cv2.GaussianBlur(cores, (5, 5), 1)))
    return files, outlines, maps


def our_page_evaluation() -> Work:
    """Reading and resizing pages, post-processing and metric: evaluation of a detector but for the network."""
    from types import SimpleNamespace

    from ocr_finetune_trainer.evaluation.detection import DetectionMeasurement, measure_detection
    from ocr_finetune_trainer.geometry import detection_geometry

    files, outlines, maps = page_evaluation()

    class Pages:
        sizes = np.array([[DOCUMENT[1], DOCUMENT[0]]] * len(files), np.int32)
        source_names = ("pages",)

        def __len__(self) -> int:
            return len(files)

        def __getitem__(self, index: int) -> Any:
            return SimpleNamespace(
                image=files[index],
                polygons=outlines[index],
                ignored=[False] * len(outlines[index]),
                source=0,
                width=DOCUMENT[1],
                height=DOCUMENT[0],
            )

    class Fixed:
        at = 0

        def run(self, x: np.ndarray) -> np.ndarray:
            assert x.shape[2:] == maps[self.at].shape
            self.at = (self.at + 1) % len(maps)
            return maps[self.at - 1][None, None]

        def best(self, x: np.ndarray) -> Any:
            raise NotImplementedError

    network, geometry = Fixed(), detection_geometry(DETECTOR)

    def work() -> None:
        measured = measure_detection(network, Pages(), geometry=geometry)
        assert float(DetectionMeasurement.scores_of(measured.sums)["hmean"] or 0.0) == 1.0

    return work, len(files)


def peer_page_evaluation() -> Work:
    """The same by PaddleOCR's own operations, as its evaluation of PP-OCRv3_mobile_det is configured."""
    from ppocr.data.imaug.label_ops import DetLabelEncode
    from ppocr.data.imaug.operators import DecodeImage, DetResizeForTest, KeepKeys, NormalizeImage, ToCHWImage
    from ppocr.metrics.det_metric import DetMetric
    from ppocr.postprocess.db_postprocess import DBPostProcess

    files, outlines, maps = page_evaluation()
    labels = [
        json.dumps([{"transcription": "text", "points": outline.tolist()} for outline in true]) for true in outlines
    ]
    operations = [
        DecodeImage(img_mode="BGR", channel_first=False),
        DetLabelEncode(),
        DetResizeForTest(limit_side_len=736, limit_type="min"),
        NormalizeImage(scale="1./255.", mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225], order="hwc"),
        ToCHWImage(),
        KeepKeys(keep_keys=["image", "shape", "polys", "ignore_tags"]),
    ]
    postprocess, metric = DBPostProcess(thresh=0.3, box_thresh=0.6, unclip_ratio=1.5), DetMetric()

    def work() -> None:
        for content, label, probability in zip(files, labels, maps, strict=True):
            data: Any = {"image": content, "label": label}
            for operation in operations:
                data = operation(data)
            batch = [np.expand_dims(part, 0) for part in data]
            assert batch[0].shape[2:] == probability.shape
            metric(postprocess({"maps": probability[None, None]}, batch[1]), batch)
        assert metric.get_metric()["hmean"] > 0.99

    return work, len(files)


def speed(work: Work) -> float:
    """Pictures a second of CPU time, the best of some rounds."""
    action, count = work
    action()
    rounds = []
    for _ in range(ROUNDS):
        started = time.process_time()
        action()
        rounds.append(time.process_time() - started)
    return count / min(rounds)


def child(arguments: Sequence[str]) -> object:
    """What a process of its own measures."""
    cv2.setNumThreads(1)
    warnings.simplefilter("ignore")
    kind, *rest = arguments
    if kind == "make":
        return make(rest[0], Path(rest[1]))
    if kind == "quantization":
        cv2.setNumThreads(2)
        return quantization(Path(rest[0]))
    works: Mapping[str, Callable[[], Work]] = {
        "ours": lambda: ours(Path(rest[0])),
        "served": lambda: served(Path(rest[0])),
        "our-evaluation": our_evaluation,
        "peer-evaluation": peer_evaluation,
        "our-page-evaluation": our_page_evaluation,
        "peer-page-evaluation": peer_page_evaluation,
    }
    return speed(works[kind]())


def run(*arguments: str, peer: Path | None = None, threads: int = 1) -> Any:
    """Measures in a process of its own; text says why there is no figure."""
    paths = [str(peer), os.environ.get("PYTHONPATH", "")] if peer else [os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, __file__, "--child", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        return lines[-1] if lines else f"exit code {done.returncode}"
    return json.loads(done.stdout.strip().splitlines()[-1])


def quantization(folder: Path) -> dict[str, Any]:
    """Trains the detector for a while and quantises it with 100 pages; what that costs and brings."""
    from types import SimpleNamespace

    from ocr_finetune_api.model_table import Kind
    from ocr_finetune_trainer.data.pictures import decode
    from ocr_finetune_trainer.evaluation.detection import DetectionMeasurement, measure_detection
    from ocr_finetune_trainer.evaluation.networks import OnnxNetwork
    from ocr_finetune_trainer.evaluation.subjects import build_subject
    from ocr_finetune_trainer.export.exporter import Exporter
    from ocr_finetune_trainer.export.quantize import quantize_int8

    weights = fit_detector(STEPS)
    exporter: Any = Exporter(
        subject=build_subject(DETECTOR, weights, kind=Kind.DETECTION, dictionary=None, note="fitted"),
        folder=folder, checker=None, metrics={}, max_drop=0.01, tell=lambda _: None,
    )  # fmt: skip
    exporter.make_paddle()
    exporter.make_onnx()
    geometry = exporter.subject.geometry

    class Pages:
        """Unseen documents; the first half chooses the layers, the second is what is reported."""

        source_names = ("drawn",)

        def __init__(self, seeds: range) -> None:
            self._pages = [document(seed) for seed in seeds]
            self.sizes = np.array([DOCUMENT[::-1]] * len(self._pages), np.int32)

        def __len__(self) -> int:
            return len(self._pages)

        def __getitem__(self, index: int) -> Any:
            content, outlines = self._pages[index]
            return SimpleNamespace(image=content, polygons=outlines, ignored=[False] * len(outlines), source=0,
                                   width=DOCUMENT[1], height=DOCUMENT[0])  # fmt: skip

    chosen, unseen = Pages(range(2000, 2010)), Pages(range(3000, 3020))

    def hmean(file: Path, pages: Pages) -> float:
        measured = measure_detection(OnnxNetwork(file, threads=2), pages, geometry=geometry)
        return float(DetectionMeasurement.scores_of(measured.sums)["hmean"] or 0.0)

    inputs = [
        geometry.normalization(geometry.resize(decode(document(seed)[0])).picture)[None]
        for seed in range(4000, 4000 + CALIBRATION)
    ]
    before = hmean(exporter.onnx, chosen)
    result = quantize_int8(
        exporter.onnx, folder / "int8.onnx", calibration=inputs,
        drop_of=lambda file: before - hmean(file, chosen), max_drop=0.01,
    )  # fmt: skip
    return {
        "float": hmean(exporter.onnx, unseen),
        "int8": hmean(folder / "int8.onnx", unseen),
        "seconds": result.seconds,
        "ratio": result.ratio,
        "note": result.note(),
        "tried": result.tried,
    }


def quantized() -> None:
    """Prints what int8 costs and brings for a detector that was really trained."""
    with tempfile.TemporaryDirectory() as folder:
        figure = run("quantization", folder, threads=2)
    if isinstance(figure, str):
        sys.exit(f"quantisation: {figure}")
    print(
        f"{DETECTOR}, fitted for {STEPS} steps, int8 with {CALIBRATION} pages of {DOCUMENT[1]} x {DOCUMENT[0]}: "
        f"{figure['seconds']:.0f} s, {figure['ratio']:.2f} of ONNX's size, hmean on unseen pages "
        f"{figure['float']:.4f} → {figure['int8']:.4f}"
    )
    print(f"  {figure['note']}; tried (layers in float, drop): {figure['tried']}")


def formats(name: str) -> None:
    """Prints time, size and speed of each format of a model."""
    with tempfile.TemporaryDirectory() as folder:
        made = run("make", name, folder, threads=2)
        if isinstance(made, str):
            sys.exit(f"{name}: {made}")
        paddle = Path(folder) / "paddle"
        base = run("served", str(paddle))
        print(f"{name}: paddleocr {base if isinstance(base, str) else f'{base:.1f} pictures/s'}")
        files = {"paddle": paddle, "onnx": Path(folder) / "onnx", "int8": Path(folder) / "int8.onnx"}
        files["fp16"] = Path(folder) / "fp16.onnx"
        for format_name, path in files.items():
            figure = run("ours", str(path))
            told = figure if isinstance(figure, str) else f"{figure:.1f} pictures/s"
            if not isinstance(figure, str) and not isinstance(base, str):
                told += f" ({figure / base:.2f} of paddleocr)"
            size = made[format_name]["bytes"]
            print(
                f"  {format_name}: made in {made[format_name]['seconds']:.1f} s, {size / 2**20:.2f} MiB "
                f"({size / made['onnx']['bytes']:.2f} of ONNX), {told}"
            )


def evaluation(peer: Path | None) -> None:
    """Prints what evaluation costs but for the network."""
    for what, name in (("crops", "evaluation"), ("pages", "page-evaluation")):
        figure = run(f"our-{name}")
        told = figure if isinstance(figure, str) else f"{figure:.0f} pictures/s ({1000 / figure:.2f} ms each)"
        print(f"evaluation of {what} without the network: {told}")
        if peer is None:
            print("  PaddleOCR's own is skipped: no --peer given")
            continue
        theirs = run(f"peer-{name}", peer=peer)
        if isinstance(theirs, str) or isinstance(figure, str):
            print(f"  PaddleOCR's own: {theirs}")
        else:
            print(
                f"  PaddleOCR's own: {theirs:.0f} pictures/s ({1000 / theirs:.2f} ms each): ours is "
                f"{figure / theirs:.1f} times that"
            )


def main() -> None:
    """Prints all figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path, help="a checkout of PaddleOCR")
    parser.add_argument("--only", nargs="+", choices=PARTS)
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(child(arguments.child)))
        return
    wanted = arguments.only or PARTS
    if "recognition" in wanted:
        formats(RECOGNISER)
    if "detection" in wanted:
        formats(DETECTOR)
    if "quantization" in wanted:
        quantized()
    if "evaluation" in wanted:
        evaluation(arguments.peer)


if __name__ == "__main__":
    main()
