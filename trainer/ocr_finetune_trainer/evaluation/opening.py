"""Opens whatever a person calls a model: a run, a checkpoint, an exported folder, an archive's folder, or an ONNX file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from ocr_finetune_api import run_config
from ocr_finetune_api.exit_codes import ConfigurationError, DataError, InputMissingError
from ocr_finetune_api.model_table import TABLE, Kind
from ocr_finetune_api.workspace import Workspace
from ocr_finetune_trainer.data.table_labels import Vocabulary
from ocr_finetune_trainer.dictionary import Dictionary
from ocr_finetune_trainer.evaluation.db_postprocess import DBPostProcess
from ocr_finetune_trainer.evaluation.networks import LayerNetwork, Network, OnnxNetwork, PaddleInferenceNetwork
from ocr_finetune_trainer.evaluation.subjects import Subject, build_subject, postprocess_of, trained_of
from ocr_finetune_trainer.geometry import DetectionGeometry, Geometry, Normalization, RecognitionGeometry, geometry_for
from ocr_finetune_trainer.orientation_geometry import OrientationGeometry
from ocr_finetune_trainer.table_geometry import TableGeometry

if TYPE_CHECKING:
    from ocr_finetune_api.run_config import RunConfig

__all__ = ["OpenModel", "open_model"]


@dataclass(frozen=True, kw_only=True)
class OpenModel:
    """A model that can be used.

    Attributes:
        name: What it is called: its name in the model table where that is known, else its serving name.
        kind: What it does.
        network: Runs it.
        geometry: How pictures become its input.
        dictionary: Its characters, for a recognition model.
        postprocess: From its maps to outlines, for a detection model.
        origin: What was opened, for people.
    """

    name: str
    kind: Kind
    network: Network
    geometry: Geometry
    dictionary: Dictionary | None
    postprocess: DBPostProcess
    origin: str


def open_model(path: Path, *, threads: int = 1) -> OpenModel:
    """Opens a model.

    Args:
        path: The folder of a run (its best checkpoint is taken), of a checkpoint, of an export, or an ONNX file.
        threads: Threads of one operator.

    Raises:
        InputMissingError: There is nothing.
        DataError: It is none of these, or damaged.
    """
    if not path.exists():
        raise InputMissingError(
            f"{path}: does not exist", hint="give the folder of a run, a checkpoint, an export, or an .onnx file"
        )
    if path.is_file():
        if path.suffix != ".onnx":
            raise DataError(
                f"{path}: is no model", hint="give an .onnx file, or a folder of a run, checkpoint or export"
            )
        return _onnx(path, threads=threads)
    if (path / "inference.yml").is_file() and not list(path.glob("*.onnx")):
        return _paddle(path, threads=threads)
    if (path / "manifest.json").is_file():
        return _checkpoint(path)
    if (path / "run.yaml").is_file():
        return _run(path)
    return _inside(path, threads=threads)


def _inside(path: Path, *, threads: int) -> OpenModel:
    """A folder that holds one thing to open: an export with several formats, a workspace with one run."""
    for name in ("paddle", "onnx", "int8", "fp16"):
        if (path / name).is_dir():
            return open_model(path / name, threads=threads)
    files = sorted(path.glob("*.onnx"))
    if len(files) == 1:
        return _onnx(files[0], threads=threads)
    runs = [folder.parent for folder in path.glob("*/run.yaml")]
    if len(runs) == 1:
        return _run(runs[0])
    if runs or files:
        names = ", ".join(str(item) for item in sorted([*runs, *files])[:10])
        raise ConfigurationError(f"{path}: holds several models: {names}", hint="give one of them")
    raise DataError(
        f"{path}: holds no model", hint="give the folder of a run, a checkpoint or an export, or an .onnx file"
    )


def _of_subject(subject: Subject, *, origin: str) -> OpenModel:
    return OpenModel(
        name=subject.model_name,
        kind=subject.kind,
        network=LayerNetwork(subject.layer),
        geometry=subject.geometry,
        dictionary=subject.dictionary,
        postprocess=subject.postprocess,
        origin=origin,
    )


def _configuration(folder: Path) -> tuple[RunConfig, Workspace]:
    config = run_config.read(folder / "run.yaml")
    return config, Workspace(folder.parent, folder.name)


def _run(folder: Path) -> OpenModel:
    config, workspace = _configuration(folder.resolve())
    subject = trained_of(workspace, config.spec)
    return _of_subject(subject, origin=f"{config.run.name}: {subject.note}")


def _checkpoint(folder: Path) -> OpenModel:
    from ocr_finetune_trainer.training.checkpoint import find

    folder = folder.resolve()
    home = folder.parent.parent
    if not (home / "run.yaml").is_file():
        raise DataError(
            f"{folder}: the run.yaml of its run is not in {home}, so nobody knows which model it is of",
            hint="keep a checkpoint in the folder of its run",
        )
    config, workspace = _configuration(home)
    found, _ = find(folder.parent)
    checkpoint = next((item for item in found if item.path.resolve() == folder), None)
    damage = checkpoint.damage() if checkpoint is not None else "is no checkpoint"
    if checkpoint is None or damage is not None:
        raise DataError(str(damage) if checkpoint is not None else f"{folder}: {damage}")
    spec = config.spec
    dictionary = Dictionary.load(workspace.dictionary) if spec.model.kind is Kind.RECOGNITION else None
    subject = build_subject(
        spec.model.name,
        checkpoint.weights(),
        kind=spec.model.kind,
        dictionary=dictionary,
        note=f"step {checkpoint.step}",
        source=str(folder),
        checkpoint=checkpoint,
        postprocess=postprocess_of(spec),
    )
    return _of_subject(subject, origin=f"{config.run.name}: {subject.note}")


def _paddle(folder: Path, *, threads: int) -> OpenModel:
    from ocr_finetune_trainer.export.inference_config import read_config

    try:
        config = read_config(folder)
    except yaml.YAMLError as error:
        raise DataError(f"{folder / 'inference.yml'}: is not YAML: {error}") from error
    post = config.get("PostProcess") or {}
    steps = {
        key: value or {}
        for step in (config.get("PreProcess") or {}).get("transform_ops") or []
        for key, value in step.items()
    }
    name = str((config.get("Global") or {}).get("model_name", folder.name))
    is_table = post.get("name") == "TableLabelDecode"
    network = PaddleInferenceNetwork(folder, threads=threads, onednn=not is_table)
    if is_table:
        side = int((steps.get("ResizeTableImage") or {}).get("max_len", 488))
        return _other(name, Kind.TABLE, network, _table_geometry(name, side, post), origin=str(folder))
    if "Topk" in post:
        size = (steps.get("ResizeImage") or {}).get("size") or [160, 80]
        geometry = OrientationGeometry(width=int(size[0]), height=int(size[1]))
        return _other(name, Kind.ORIENTATION, network, geometry, origin=str(folder))
    if post.get("name") == "CTCLabelDecode":
        shape = (steps.get("RecResizeImg") or {}).get("image_shape") or [3, 48, 320]
        return OpenModel(
            name=name,
            kind=Kind.RECOGNITION,
            network=network,
            geometry=_recognition_geometry(shape),
            dictionary=Dictionary(tuple(str(entry) for entry in post.get("character_dict") or ())),
            postprocess=DBPostProcess(),
            origin=str(folder),
        )
    if post.get("name") == "DBPostProcess":
        return OpenModel(
            name=name,
            kind=Kind.DETECTION,
            network=network,
            geometry=DetectionGeometry(),
            dictionary=None,
            postprocess=DBPostProcess.from_settings(post),
            origin=str(folder),
        )
    raise DataError(
        f"{folder / 'inference.yml'}: its PostProcess {post.get('name')!r} is none of CTCLabelDecode, DBPostProcess, "
        "TableLabelDecode and Topk"
    )


def _other(name: str, kind: Kind, network: Network, geometry: Geometry, *, origin: str) -> OpenModel:
    return OpenModel(
        name=name,
        kind=kind,
        network=network,
        geometry=geometry,
        dictionary=None,
        postprocess=DBPostProcess(),
        origin=origin,
    )


def _table_geometry(name: str, side: int, post: Mapping[str, Any]) -> TableGeometry:
    lines = tuple(str(token) for token in post.get("character_dict") or ())
    vocabulary = Vocabulary(lines, merged=bool(post.get("merge_no_span_structure", True)))
    # `paddleocr` itself tells the frame of the boxes by this name.
    return TableGeometry(side=side, box_numbers=8, padded_frame=name != "SLANet", vocabulary=vocabulary)


def _recognition_geometry(
    shape: Any, *, max_width: int = 3200, normalization: Normalization | None = None
) -> RecognitionGeometry:
    """The geometry of a file; that of a model in the table where both agree, for it has the right buckets."""
    height, width = int(shape[1]), int(shape[2])
    for row in TABLE.values():
        if row.kind is Kind.RECOGNITION:
            known = geometry_for(row.name)
            if isinstance(known, RecognitionGeometry) and (known.height, known.min_width) == (height, width):
                return known
    buckets = tuple(sorted({width, *(b for b in RecognitionGeometry().buckets if width < b < max_width), max_width}))
    kept = normalization or RecognitionGeometry().normalization
    return RecognitionGeometry(height=height, min_width=width, max_width=max_width, buckets=buckets, normalization=kept)


def _onnx(path: Path, *, threads: int) -> OpenModel:
    network = OnnxNetwork(path, threads=threads)
    about = network.metadata
    name = about.get("model_name", path.stem)
    if "character" in about:
        use_space = about.get("use_space", "true") == "true"
        return OpenModel(
            name=name,
            kind=Kind.RECOGNITION,
            network=network,
            geometry=_recognition_geometry(
                json.loads(about.get("shape", "[3, 48, 320]")), max_width=int(about.get("max_width", 3200))
            ),
            dictionary=Dictionary(tuple(about["character"].split("\n")), use_space=use_space),
            postprocess=DBPostProcess(),
            origin=str(path),
        )
    if "structure" in about:
        shape = json.loads(about.get("shape", "[3, 488, 488]"))
        vocabulary = Vocabulary(tuple(about["structure"].split("\n")))
        square = about.get("box_frame") == "square"
        geometry = TableGeometry(side=int(shape[1]), box_numbers=8, padded_frame=square, vocabulary=vocabulary)
        return _other(name, Kind.TABLE, network, geometry, origin=str(path))
    if about.get("channels") == "RGB":
        shape = json.loads(about.get("shape", "[3, 80, 160]"))
        geometry_of_lines = OrientationGeometry(height=int(shape[1]), width=int(shape[2]))
        return _other(name, Kind.ORIENTATION, network, geometry_of_lines, origin=str(path))
    if network.output == "maps":
        return OpenModel(
            name=name,
            kind=Kind.DETECTION,
            network=network,
            geometry=DetectionGeometry(),
            dictionary=None,
            postprocess=DBPostProcess.from_settings(json.loads(about.get("postprocess", "{}"))),
            origin=str(path),
        )
    raise DataError(
        f"{path}: has neither the metadata `character` of a recogniser nor the output `maps` of a detector",
        hint="export it with this program, or give a folder with inference.yml",
    )
