"""The expert settings of `training.config`: which of PaddleOCR's keys change what, and which have a field of their own.

Everything about them is read here: the names, what they may hold, and what of the trainer they set. A key is written
as PaddleOCR's `-o` writes it, `Loss.alpha`, or nested as in its configuration files; lists of named parts, such as the
transforms, are written by the part's name. What is not on the list is an error, and so is a key for which the manifest
has a field: two places for one number would contradict each other one day.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from ocr_finetune_api.model_table import Kind, ModelInfo

__all__ = ["OVERRIDES", "TWINS", "Override", "Part", "problems", "problems_for", "settings", "values"]

_TRANSFORMS = "Train.dataset.transforms"
_NOT_V6 = ("Loss.main_loss_type", "Loss.ohem_ratio")  # its loss is another one
_HINT = "docs/reference/expert-settings.md lists all keys"


class Part(StrEnum):
    """What of the trainer a key changes."""

    LOSS = "loss"
    HEAD = "head"
    OPTIMIZER = "optimizer"
    TARGETS = "targets"
    CANVAS = "canvas"
    PAGES = "augmentation of pages"
    LINES = "augmentation of lines"
    POSTPROCESS = "post-processing"


Reader = Callable[[Any], Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Override:
    """One key.

    Attributes:
        key: PaddleOCR's name of it.
        part: What of the trainer it changes.
        kind: For which models.
        allowed: What it may hold, in words.
        default: What holds without it, in words.
        meaning: What it does.
        read: Makes the part's own settings of its value; raises ValueError if it may not hold this value.
        guided: Whether it only means something while a guided branch is trained.
    """

    key: str
    part: Part
    kind: Kind
    allowed: str
    default: str
    meaning: str
    read: Reader
    guided: bool = False


def _number(name: str, *, above: float | None = None, least: float = 0.0, most: float | None = None) -> Reader:
    def read(value: Any) -> Mapping[str, Any]:
        if isinstance(value, bool) or not isinstance(value, int | float) or value != value:  # noqa: PLR0124 - NaN
            raise ValueError(f"{value!r} is no number")
        low = value <= above if above is not None else value < least
        if low or (most is not None and value > most):
            raise ValueError(f"{value:g} is out of range")
        return {name: float(value)}

    return read


def _count(name: str) -> Reader:
    def read(value: Any) -> Mapping[str, Any]:
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{value!r} is no count")
        return {name: value}

    return read


def _flag(name: str) -> Reader:
    def read(value: Any) -> Mapping[str, Any]:
        if not isinstance(value, bool):
            raise ValueError(f"{value!r} is neither true nor false")  # noqa: TRY004 - told to a person, not a programmer
        return {name: value}

    return read


def _choice(name: str, *known: str) -> Reader:
    def read(value: Any) -> Mapping[str, Any]:
        if value not in known:
            raise ValueError(f"{value!r} is none of {', '.join(known)}")
        return {name: value}

    return read


def _canvas(value: Any) -> Mapping[str, Any]:
    sides = value if isinstance(value, list) else []
    if len(sides) != 2 or not all(isinstance(side, int) and side >= 32 and side % 32 == 0 for side in sides):
        raise ValueError(f"{value!r} is not two multiples of 32, the width first")
    return {"train_width": sides[0], "train_height": sides[1]}


def _share(name: str) -> Reader:
    return _number(name, most=1.0)


def _augmenters(value: Any) -> Mapping[str, Any]:
    """PaddleOCR's list of augmenters: what is not in it is switched off, as there."""
    if not isinstance(value, list) or not all(isinstance(entry, Mapping) for entry in value):
        raise ValueError("is no list of augmenters, each with type and args")
    changed: dict[str, Any] = {"flip_across": 0.0, "flip_down": 0.0, "rotation": 0.0, "zoom": (1.0, 1.0)}
    for entry in value:
        kind, arguments = entry.get("type"), entry.get("args") or {}
        if kind in ("Fliplr", "Flipud"):
            name = "flip_across" if kind == "Fliplr" else "flip_down"
            changed |= _share(name)(arguments.get("p", 0.5))
        elif kind == "Affine":
            low, high = _two_numbers(arguments.get("rotate"), of="Affine's rotate")
            if low != -high or high < 0:
                raise ValueError(f"Affine's rotate must be [-degrees, degrees], not [{low:g}, {high:g}]")
            changed["rotation"] = high
        elif kind == "Resize":
            low, high = _two_numbers(arguments.get("size"), of="Resize's size")
            if not 0 < low <= high:
                raise ValueError(
                    f"Resize's size must be two positive factors, the smaller first, not [{low:g}, {high:g}]"
                )
            changed["zoom"] = (low, high)
        else:
            raise ValueError(f"{kind!r} is none of Fliplr, Flipud, Affine, Resize")
    return changed


def _two_numbers(value: Any, *, of: str) -> tuple[float, float]:
    pair = value if isinstance(value, list) else []
    if len(pair) != 2 or any(isinstance(v, bool) or not isinstance(v, int | float) for v in pair):
        raise ValueError(f"{of} is not two numbers")
    return float(pair[0]), float(pair[1])


def _all(part: Part, kind: Kind, *rows: tuple[str, str, str, str, Reader], guided: bool = False) -> Iterator[Override]:
    for key, allowed, default, meaning, read in rows:
        yield Override(
            key=key,
            part=part,
            kind=kind,
            allowed=allowed,
            default=default,
            meaning=meaning,
            read=read,
            guided=guided,
        )


def _probability(transform: str, key: str, name: str, default: str, meaning: str) -> tuple[str, str, str, str, Reader]:
    return f"{_TRANSFORMS}.{transform}.{key}", "0 to 1", default, meaning, _share(name)


_DETECTION = (
    *_all(
        Part.LOSS,
        Kind.DETECTION,
        ("Loss.alpha", "0 or more", "5", "weight of the shrink map's loss", _number("shrink_weight")),
        ("Loss.beta", "0 or more", "10", "weight of the threshold map's loss", _number("threshold_weight")),
        ("Loss.main_loss_type", "DiceLoss or BCELoss", "DiceLoss", "what the shrink map is compared by; not PP-OCRv6",
         _choice("main_loss", "DiceLoss", "BCELoss")),
        ("Loss.ohem_ratio", "above 0", "3", ("background pixels counted for each text pixel, the hardest ones; with "
         "BCELoss only, for DiceLoss is one number for all pixels; not PP-OCRv6"), _number("negative_ratio", above=0.0)),
    ),
    *_all(
        Part.HEAD,
        Kind.DETECTION,
        ("Architecture.Head.k", "above 0", "50", "slope of the differentiable step between the two maps in training",
         _number("step_slope", above=0.0)),
    ),
    *_all(
        Part.CANVAS,
        Kind.DETECTION,
        (f"{_TRANSFORMS}.EastRandomCropData.size", "[width, height], multiples of 32",
         "[640, 640], or less where pages are smaller", "the part of a page that is trained on", _canvas),
    ),
    *_all(
        Part.TARGETS,
        Kind.DETECTION,
        (f"{_TRANSFORMS}.MakeShrinkMap.shrink_ratio", "above 0, below 1", ("0.4 growing to 0.6; 0.6 where later detectors "
         "than PP-OCRv2 are fine-tuned"),
         "how far a text shrinks to its core; stays the same over the training",
         _number("shrink_ratio", above=0.0, most=0.99)),
        (f"{_TRANSFORMS}.MakeShrinkMap.min_text_size", "0 or more", "8", ("texts with a shorter side than this many "
         "pixels are not learnt"), _number("min_text_size")),
        (f"{_TRANSFORMS}.MakeBorderMap.shrink_ratio", "above 0, below 1", "that of MakeShrinkMap",
         "how wide the border of the threshold map is; stays the same over the training",
         _number("border_ratio", above=0.0, most=0.99)),
        (f"{_TRANSFORMS}.MakeBorderMap.thresh_min", "0 to 1", "0.3", "the threshold far from text", _share("low")),
        (f"{_TRANSFORMS}.MakeBorderMap.thresh_max", "0 to 1", "0.7", "the threshold on a border", _share("high")),
    ),
    *_all(
        Part.PAGES,
        Kind.DETECTION,
        (f"{_TRANSFORMS}.IaaAugment.augmenter_args", "a list of Fliplr, Flipud, Affine, Resize, as in PaddleOCR",
         "flips across 0.5, ±10°, 0.5 to 3 times", "flips, rotation, magnification; what the list leaves out is off",
         _augmenters),
        (f"{_TRANSFORMS}.CopyPaste.objects_paste_ratio", "0 to 1", "0.2", ("share of a page's texts that is copied "
         "to free places"), _share("paste_share")),
    ),
    *_all(
        Part.POSTPROCESS,
        Kind.DETECTION,
        ("PostProcess.thresh", "0 to 1", "0.3", "a pixel over this is part of a core", _share("thresh")),
        ("PostProcess.box_thresh", "0 to 1", "0.6", "a core under this mean is dropped", _share("box_thresh")),
        ("PostProcess.unclip_ratio", "above 0", "1.5", "how far a core grows to a box",
         _number("unclip_ratio", above=0.0)),
        ("PostProcess.max_candidates", "a count", "1000", "contours looked at", _count("max_candidates")),
        ("PostProcess.use_dilation", "true or false", "false", "cores grow by a pixel first", _flag("use_dilation")),
        ("PostProcess.score_mode", "fast or slow", "fast", "mean over the core's rectangle, or over the core itself",
         _choice("score_mode", "fast", "slow")),
        ("PostProcess.box_type", "quad or poly", "quad", "rectangles or polygons", _choice("box_type", "quad", "poly")),
    ),
)  # fmt: skip
_FOCAL = "CTC loss of a line weighs less the better it is read already (PaddleOCR's use_focal_loss)"
_RECOGNITION = (
    *_all(
        Part.LOSS,
        Kind.RECOGNITION,
        ("Loss.use_focal_loss", "true or false", "false", _FOCAL, _flag("focal")),
        ("Loss.loss_config_list.CTCLoss.use_focal_loss", "true or false", "false", "the same, as guided models write it",
         _flag("focal")),
    ),
    *_all(
        Part.LOSS,
        Kind.RECOGNITION,
        ("Loss.weight_1", "0 or more", "1", "weight of the CTC loss beside the guided branch's", _number("ctc_weight")),
        ("Loss.weight_2", "0 or more", "1", "weight of the guided branch's loss", _number("guided_weight")),
        guided=True,
    ),
    *_all(
        Part.LINES,
        Kind.RECOGNITION,
        _probability("RecAug", "tia_prob", "warp", "0.4", "probability that a line is bent"),
        _probability("RecAug", "crop_prob", "crop", "0.4", "of a cut edge"),
        _probability("RecAug", "reverse_prob", "reverse", "0.4", "of swapped black and white"),
        _probability("RecAug", "noise_prob", "noise", "0.4", "of noise"),
        _probability("RecAug", "jitter_prob", "jitter", "0.4", "of a smear"),
        _probability("RecAug", "blur_prob", "blur", "0.4", "of blur"),
        _probability("RecAug", "hsv_aug_prob", "colour", "0.4", "of another light"),
        _probability("RecConAug", "prob", "concatenate", "0.5", "that other lines are put behind a line"),
    ),
)  # fmt: skip
_TABLE = tuple(
    _all(
        Part.LOSS,
        Kind.TABLE,
        ("Loss.structure_weight", "0 or more", "1", "weight of the tokens' loss", _number("structure_weight")),
        ("Loss.loc_weight", "0 or more", "2", "weight of the boxes' loss", _number("location_weight")),
    )
)
_EVERY = tuple(
    override
    for kind in Kind
    for override in _all(
        Part.OPTIMIZER,
        kind,
        ("Optimizer.beta1", "0 or more, below 1", "0.9", "decay of the mean of gradients", _number("beta1", most=0.9999)),
        ("Optimizer.beta2", "0 or more, below 1", "0.999", "decay of their mean square", _number("beta2", most=0.999999)),
        ("Optimizer.epsilon", "above 0", "1e-8", "keeps the quotient of both finite", _number("epsilon", above=0.0)),
    )
)  # fmt: skip

OVERRIDES: tuple[Override, ...] = (*_DETECTION, *_RECOGNITION, *_TABLE, *_EVERY)
"""All keys; a key that several kinds of models have stands once for each."""

TWINS: Mapping[str, str] = {
    "Architecture.model_type": "model.name",
    "Architecture.algorithm": "model.name",
    "Architecture.Backbone": "model.name",
    "Architecture.Neck": "model.name",
    "Architecture.Head.name": "model.name",
    "Architecture.Head.head_list": "model.guidance",
    "Architecture.freeze_params": "model.freeze",
    "Eval.dataset": "dataset.validation",
    "Eval.loader": "training.batchSize",
    "Global.cal_metric_during_train": "training.evaluate.every",
    "Global.character_dict_path": "model.dictionary.uri",
    "Global.checkpoints": "training.resumeFrom",
    "Global.distributed": "distributed.nodes",
    "Global.epoch_num": "training.epochs",
    "Global.eval_batch_epoch": "training.evaluate.every",
    "Global.eval_batch_step": "training.evaluate.every",
    "Global.max_text_length": "model.maxTextLength",
    "Global.model_name": "model.name",
    "Global.pretrained_model": "model.pretrained",
    "Global.save_epoch_step": "training.checkpoint.every",
    "Global.save_inference_dir": "export.destination",
    "Global.save_model_dir": "workspace",
    "Global.seed": "training.seed",
    "Global.use_amp": "training.precision",
    "Global.amp_level": "training.precision",
    "Global.amp_dtype": "training.precision",
    "Global.use_gpu": "distributed.device",
    "Global.use_space_char": "model.dictionary.space",
    "Global.use_sync_bn": "training.batchNorm",
    "Loss.name": "model.name",
    "Metric.main_indicator": "evaluation.metric",
    "Optimizer.clip_norm": "training.clipNorm",
    "Optimizer.clip_norm_global": "training.clipNorm",
    "Optimizer.grad_clip": "training.clipNorm",
    "Optimizer.lr.decay_epochs": "training.schedule.boundaries",
    "Optimizer.lr.gamma": "training.schedule.factor",
    "Optimizer.lr.learning_rate": "training.learningRate",
    "Optimizer.lr.name": "training.schedule.name",
    "Optimizer.lr.values": "training.schedule.factor",
    "Optimizer.lr.warmup_epoch": "training.schedule.warmupEpochs",
    "Optimizer.regularizer": "training.weightDecay",
    "Optimizer.weight_decay": "training.weightDecay",
    "Train.dataset.data_dir": "dataset.train[].uri",
    "Train.dataset.ds_width": "model.name",
    "Train.dataset.label_file_list": "dataset.train[].listFile",
    "Train.dataset.ratio_list": "dataset.train[].weight",
    "Train.loader.batch_size_per_card": "training.batchSize",
    "Train.loader.num_workers": "training.workers",
    "Train.sampler.first_bs": "training.batchSize",
}
"""Keys of PaddleOCR, or what they begin with, for which the manifest has a field, and that field."""

_KEYS = frozenset(override.key for override in OVERRIDES)


def values(config: Mapping[str, Any]) -> dict[str, Any]:
    """The values of `training.config` by their full keys, however deeply they were nested.

    Raises:
        ValueError: A key is written twice.
    """
    found: dict[str, Any] = {}
    for key, value in (pair for name, inner in config.items() for pair in _flat(inner, str(name))):
        if key in found:
            raise ValueError(f"{key} is written twice")
        found[key] = value
    return found


def problems(config: Mapping[str, Any]) -> list[str]:
    """What is wrong with the keys and values themselves, whatever the model; one sentence each."""
    try:
        written = values(config)
    except ValueError as error:
        return [str(error)]
    found = []
    for key, value in written.items():
        readers = [override for override in OVERRIDES if override.key == key]
        if not readers:
            found.append(f"{key} {_why_not(key)}")
            continue
        try:
            readers[0].read(value)
        except ValueError as error:
            found.append(f"{key}: {error}; it holds {readers[0].allowed}")
    low, high = (
        written.get(f"{_TRANSFORMS}.MakeBorderMap.thresh_{name}", d) for name, d in (("min", 0.3), ("max", 0.7))
    )
    if not found and low >= high:
        found.append(f"{_TRANSFORMS}.MakeBorderMap: thresh_min {low} must be below thresh_max {high}")
    return found


def problems_for(config: Mapping[str, Any], info: ModelInfo, *, guided: bool, augmented: bool) -> list[str]:
    """What of a faultless `training.config` would change nothing in a run; one sentence each.

    Args:
        config: The field.
        info: The model.
        guided: Whether its guided branch is trained.
        augmented: Whether pictures are changed at random.
    """
    found = []
    written = values(config)
    for key in written:
        readers = [override for override in OVERRIDES if override.key == key]
        mine = next((override for override in readers if override.kind is info.kind), None)
        if mine is None:
            kinds = " and ".join(dict.fromkeys(override.kind.value for override in readers))
            found.append(f"{key} is for {kinds} models; {info.name} is a {info.kind} model")
        elif mine.guided and not guided:
            found.append(f"{key} needs the guided branch; write model.guidance: keep, or remove it")
        elif mine.part in (Part.PAGES, Part.LINES) and not augmented:
            found.append(f"{key} changes nothing with training.augmentation: none; remove one of them")
        elif key in _NOT_V6 and info.name.startswith("PP-OCRv6"):
            found.append(f"{key} is not part of the loss of {info.name}")
        elif key == "Loss.ohem_ratio" and written.get("Loss.main_loss_type") != "BCELoss":
            found.append(
                f"{key} changes nothing with DiceLoss, which is one number for all pixels; write Loss.main_loss_type: "
                "BCELoss too, or remove it"
            )
    return found


def settings(config: Mapping[str, Any], part: Part, kind: Kind) -> dict[str, Any]:
    """What `training.config` changes of a part of the trainer, under that part's own names; empty if nothing."""
    found: dict[str, Any] = {}
    for key, value in values(config).items():
        for override in OVERRIDES:
            if override.key == key and override.part is part and override.kind is kind:
                found |= override.read(value)
    return found


def _flat(value: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    if prefix in _KEYS or not isinstance(value, Mapping | list) or not value:
        yield prefix, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(inner, f"{prefix}.{key}")
    elif all(isinstance(entry, Mapping) for entry in value) and not _twin(prefix):
        for entry in value:
            yield from _flat(entry, prefix)
    else:
        yield prefix, value


def _twin(key: str) -> str:
    parts = key.split(".")
    beginnings: Sequence[str] = [".".join(parts[:count]) for count in range(len(parts), 0, -1)]
    return next((TWINS[beginning] for beginning in beginnings if beginning in TWINS), "")


def _why_not(key: str) -> str:
    twin = _twin(key)
    if twin:
        return f"has a field of its own in the manifest: write {twin}"
    last = key.rpartition(".")[2]
    same_end = sorted(known for known in _KEYS if known.endswith(f".{key}") or known.rpartition(".")[2] == last)
    near = same_end or difflib.get_close_matches(key, sorted(_KEYS), n=1, cutoff=0.6)
    return f"is no expert setting; did you mean {' or '.join(near[:3])}?" if near else f"is no expert setting; {_HINT}"
