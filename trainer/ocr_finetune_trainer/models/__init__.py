"""Every model behind two functions: `build` makes one by its name, `train_forward` runs it on a training batch.

A model is one module of this package, named as in the model table with `-` and `.` written `_` and in lower case
(`PP-OCRv5_mobile_rec` is `pp_ocrv5_mobile_rec`). The module has one function `build(*, characters, guided)`.
Parameter names and shapes equal PaddleOCR's, so official `.pdparams` files load without a key mapping.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ocr_finetune_api.model_table import lookup

if TYPE_CHECKING:
    import paddle
    from paddle import nn

__all__ = ["build", "train_forward"]


def build(name: str, *, characters: int = 0, guided: bool | None = None) -> nn.Layer:
    """Builds an untrained model.

    Args:
        name: A name of the model table.
        characters: How many characters the dictionary has, with the space if it is used, without blank and special
            classes. Recognition models have `characters + 1` CTC classes. Other kinds ignore it.
        guided: Whether a recognition model gets its guided (GTC) branch; `None` builds the model as it was released,
            with the branch if it has one. What fine-tuning prefers stands in the model table.

    Returns:
        The layer, in training mode, with PaddleOCR's parameter names and shapes.

    Raises:
        KeyError: The model table has no such name; the message names the nearest one.
    """
    info = lookup(name)
    module = import_module(f"{__name__}.{info.module}")
    layer: nn.Layer = module.build(characters=characters, guided=info.can_guide if guided is None else guided)
    return layer


def train_forward(model: nn.Layer, x: paddle.Tensor, batch: Mapping[str, paddle.Tensor]) -> dict[str, Any]:
    """Runs the forward pass of training.

    Args:
        model: A layer made by `build`, in training mode.
        x: Pictures, float32, (N, 3, H, W), normalised as the model's geometry says.
        batch: The targets. Guided recognition reads `label_gtc` (N, L); other models read none of them here.

    Returns:
        Named outputs, as the model's loss (`ocr_finetune_trainer.losses.build`) reads them.
    """
    outputs: dict[str, Any] = model.train_forward(x, batch)
    return outputs
