"""Puts weights from a file into a model, and tells exactly what became of every tensor.

PaddleOCR only warns about what does not fit and then says that loading was successful; here a file that fits less than
half of the model is an error, and everything that was not loaded is named.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import paddle

from ocr_finetune_api.exit_codes import DataError
from ocr_finetune_trainer.models.classes import carry_over, class_tensor

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray
    from paddle import nn

    from ocr_finetune_trainer.dictionary import Dictionary

_ENOUGH = 0.5  # of the model's tensors
# Of a distillation release the student is wanted (PaddleOCR's guide takes its weights out by hand); of two, the first.
_STUDENTS = ("Student.", "Student2.", "student.", "module.", "_layers.", "model.")
_TEACHER = "Teacher."  # only if nothing else fits as well
# The two layouts of a CTC model: with room for a guided branch, and CTC alone.
_LAYOUTS = (
    (),
    (("head.ctc_encoder.", "neck."), ("head.ctc_head.", "head.")),
    (("neck.", "head.ctc_encoder."), ("head.fc.", "head.ctc_head.fc.")),
)


@dataclass(frozen=True)
class LoadReport:
    """What became of every tensor of the file and of the model.

    Attributes:
        source: The file.
        prefix: What was taken off the names of the file, or `+…` what was put before them.
        loaded: Tensors of the model that the file had.
        resized: Tensors of the model that were carried over from another dictionary.
        initialised: Tensors of the model that keep their random start, each with the reason.
        ignored: Tensors of the file that the model has no place for.
    """

    source: str
    prefix: str
    loaded: tuple[str, ...]
    resized: tuple[str, ...]
    initialised: Mapping[str, str]
    ignored: tuple[str, ...]

    def lines(self) -> list[str]:
        """A few lines for people: counts, and where a group of tensors is meant, its common beginning."""
        of = f", names without {self.prefix!r}" if self.prefix and not self.prefix.startswith("+") else ""
        lines = [f"{len(self.loaded)} tensors loaded from {self.source}{of}"]
        if self.resized:
            lines.append(f"{len(self.resized)} carried over to the new dictionary: {', '.join(self.resized)}")
        if self.initialised:
            lines.append(f"{len(self.initialised)} start at random: {_groups(self.initialised)}")
        if self.ignored:
            lines.append(f"{len(self.ignored)} of the file not used: {_groups(self.ignored)}")
        return lines

    def document(self) -> dict[str, Any]:
        """Everything, for the result document."""
        return {
            "source": self.source,
            "prefix": self.prefix,
            "loaded": list(self.loaded),
            "resized": list(self.resized),
            "initialised": dict(self.initialised),
            "ignored": list(self.ignored),
        }


def load_weights(
    model: nn.Layer,
    arrays: Mapping[str, NDArray[Any]],
    *,
    source: str,
    old: Dictionary | None = None,
    new: Dictionary | None = None,
) -> LoadReport:
    """Puts arrays into a model.

    The names may carry a prefix (`Student.`, `Student2.`, `module.` …) or lack `backbone.`, and may be laid out with or
    without room for a guided branch: what fits most tensors is taken.

    Args:
        model: Gets the values in place.
        arrays: From `ocr_finetune_trainer.models.pdparams.read_weights`.
        source: The file, for the report and messages.
        old: The dictionary that the file was trained with; only recognisers need it.
        new: The model's dictionary; only recognisers need it.

    Returns:
        What became of every tensor.

    Raises:
        DataError: Less than half of the model's tensors are in the file; or its head has another number of classes than
            `old`; or no `old` is given and the number of classes differs.
    """
    state = model.state_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    prefix, found = _best_names(arrays, shapes)
    fitting = sum(_fits(value.shape, shapes[name], name) for name, (_, value) in found.items())
    if fitting < _ENOUGH * len(shapes):
        _refuse(source, arrays, shapes, matched=fitting)
    values, resized, reasons = _fitted(found, shapes, source=source, old=old, new=new)
    for name, value in values.items():
        state[name].set_value(paddle.to_tensor(value.astype(_dtype(state[name])), place=paddle.CPUPlace()))
    # an LSTM has each of its tensors under two names
    filled = {id(state[name]) for name in values}
    initialised = {
        name: reasons.get(name, "not in the file")
        for name in shapes
        if name not in values and id(state[name]) not in filled
    }
    return LoadReport(
        source=source,
        prefix=prefix,
        loaded=tuple(name for name in values if name not in resized),
        resized=tuple(resized),
        initialised=initialised,
        ignored=tuple(sorted(set(arrays) - {original for original, _ in found.values()})),
    )


def _dtype(tensor: paddle.Tensor) -> str:
    return str(tensor.dtype).rpartition(".")[2]


_Found = dict[str, tuple[str, "NDArray[Any]"]]  # name in the model: (name in the file, value)


def _best_names(arrays: Mapping[str, NDArray[Any]], shapes: Mapping[str, tuple[int, ...]]) -> tuple[str, _Found]:
    best: tuple[int, str, _Found] = (-1, "", {})
    others = {name.partition(".")[0] + "." for name in arrays} - {_TEACHER}
    for prefix in dict.fromkeys(("", *_STUDENTS, *sorted(others), _TEACHER, "+backbone.")):
        for layout in _LAYOUTS:
            renamed = _renamed(arrays, prefix, layout)
            found = {name: renamed[name] for name in shapes if name in renamed}
            fits = sum(_fits(value.shape, shapes[name], name) for name, (_, value) in found.items())
            if fits > best[0]:
                best = (fits, prefix, found)
    return best[1], best[2]


def _fits(theirs: tuple[int, ...], ours: tuple[int, ...], name: str) -> bool:
    # the same shape, up to the number of classes
    tensor = class_tensor(name)
    if tensor is None or len(theirs) != len(ours):
        return theirs == ours
    return all(a == b for axis, (a, b) in enumerate(zip(theirs, ours, strict=True)) if axis != tensor.axis)


def _renamed(arrays: Mapping[str, NDArray[Any]], prefix: str, layout: Iterable[tuple[str, str]]) -> _Found:
    renamed = {}
    for original, value in arrays.items():
        if prefix.startswith("+"):
            name = prefix[1:] + original
        elif original.startswith(prefix):
            name = original[len(prefix) :]
        else:
            continue
        for theirs, ours in layout:
            if name.startswith(theirs):
                name = ours + name[len(theirs) :]
                break
        renamed[name] = (original, value)
    return renamed


def _fitted(
    found: _Found,
    shapes: Mapping[str, tuple[int, ...]],
    *,
    source: str,
    old: Dictionary | None,
    new: Dictionary | None,
) -> tuple[dict[str, NDArray[Any]], list[str], dict[str, str]]:
    values: dict[str, NDArray[Any]] = {}
    resized: list[str] = []
    reasons: dict[str, str] = {}
    for name, (_, original) in found.items():
        value = original
        tensor = class_tensor(name) if _fits(value.shape, shapes[name], name) else None
        if tensor is not None and old is not None and new is not None and old != new:
            try:
                value = carry_over(original, tensor, old=old, new=new)
            except ValueError as error:
                raise DataError(
                    f"{source}: {error}", hint="these weights were trained with another dictionary than the one given"
                ) from None
            resized.append(name)
        if value.shape == shapes[name]:
            values[name] = value
        elif tensor is not None:
            raise DataError(
                f"{source}: {name} has {value.shape[tensor.axis]} classes, the model {shapes[name][tensor.axis]}",
                hint="give the dictionary that these weights were trained with, so that characters can be carried over",
            )
        else:
            reasons[name] = f"shape {list(value.shape)} in the file, {list(shapes[name])} in the model"
    return values, resized, reasons


def _refuse(
    source: str, arrays: Mapping[str, NDArray[Any]], shapes: Mapping[str, tuple[int, ...]], *, matched: int
) -> None:
    theirs, ours = _groups(arrays), _groups(shapes)
    raise DataError(
        f"{source}: only {matched} of the model's {len(shapes)} tensors are in this file, which has {len(arrays)}. "
        f"The file has {theirs}; the model has {ours}. The three likeliest reasons: "
        "(1) the file is of another model: check model.name against what the file was trained as; "
        "(2) it is a distillation or wrapped release whose student stands under a prefix that is not known here: take "
        "the student's tensors out; "
        "(3) it holds no training weights but an optimizer's state or an exported model (.pdopt, .pdiparams).",
        hint="start from the official weights with model.pretrained: official",
    )


def _groups(names: Iterable[str], *, depth: int = 2, most: int = 6) -> str:
    counts = Counter(".".join(name.split(".")[:depth]) for name in names)
    shown = [f"{group} ({count})" for group, count in counts.most_common(most)]
    return ", ".join(shown) + (f" and {len(counts) - most} more groups" if len(counts) > most else "")
