"""Folds what exists only for training, before a model is exported."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from paddle import nn

_TRAINING_ONLY = ("gtc_head", "before_gtc", "sar_head")  # guided branches
_UNUSED = ("last_conv", "fc")  # of a backbone that was once trained as a classifier


def fuse_for_inference(model: nn.Layer) -> nn.Layer:
    """Makes a model smaller and faster without changing what it computes in evaluation mode.

    Parallel convolutions become one (every layer with a method `fuse`), guided branches and a backbone's old classifier
    go. The model cannot be trained afterwards.

    Args:
        model: A model of the table; it is changed in place and left in evaluation mode.

    Returns:
        The same model.
    """
    model.eval()
    for layer in model.sublayers():
        fuse = getattr(layer, "fuse", None)
        if callable(fuse):
            fuse()
    _remove(getattr(model, "head", None), _TRAINING_ONLY)
    _remove(getattr(model, "backbone", None), _UNUSED)
    return model


def _remove(part: nn.Layer | None, names: tuple[str, ...]) -> None:
    children = dict(part.named_children()) if part is not None else {}
    for name in names:
        if name in children:
            setattr(part, name, None)
