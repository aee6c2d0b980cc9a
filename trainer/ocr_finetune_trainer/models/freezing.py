"""Which part of a model stands still in training.

A frozen layer gets no gradient, and its batch normalisations keep the statistics they came with: left in training mode
they would go on moving and change what the frozen weights compute.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from paddle import nn

from ocr_finetune_api.exit_codes import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

_LISTS = ("stages", "block_list", "blocks")  # backbones that keep their stages in one list
_CLASSIFIER = ("last_conv", "fc")  # of a backbone that was once trained as a classifier: not used here


def backbone_stages(model: nn.Layer) -> list[list[nn.Layer]]:
    """The stages of a model's backbone from the picture on; the first is what comes before its first block.

    Layers that belong together by name (`conv1_1`, `conv1_2`; `bb_0_0`, `bb_0_1`) are one stage.
    """
    stages: dict[str, list[nn.Layer]] = {}
    for name, layer in model.backbone.named_children():
        if name in _CLASSIFIER or not layer.parameters():
            continue
        if name in _LISTS:
            for number, part in layer.named_children():
                stages[f"{name}.{number}"] = [part]
        else:
            group = re.match(r"(bb_\d+|conv\d+)_\d+$", name)
            stages.setdefault(group[1] if group else name, []).append(layer)
    return list(stages.values())


def frozen_layers(model: nn.Layer, freeze: str) -> Sequence[nn.Layer]:
    """The layers that `freeze` names.

    Args:
        model: A model of the table.
        freeze: `none`, `backbone`, `body` for all but the head, or `stages:N` for the backbone's first N stages.

    Raises:
        ConfigurationError: The backbone has fewer stages.
    """
    if freeze == "none":
        return []
    if freeze == "backbone":
        return [model.backbone]
    if freeze == "body":
        return [layer for name, layer in model.named_children() if name != "head"]
    count = int(freeze.removeprefix("stages:"))
    stages = backbone_stages(model)
    if count > len(stages):
        raise ConfigurationError(
            f"model.freeze: {freeze}, but this model's backbone has {len(stages)} stages",
            hint=f"write stages:1 to stages:{len(stages)}, backbone or body",
        )
    return [layer for stage in stages[:count] for layer in stage]


class Freezing:
    """Keeps a part of a model still.

    Args:
        model: A model of the table.
        freeze: As for `frozen_layers`.

    Attributes:
        active: Whether anything is frozen now.
    """

    def __init__(self, model: nn.Layer, freeze: str) -> None:
        self._layers = frozen_layers(model, freeze)
        self._trainable = [p for layer in self._layers for p in layer.parameters() if not p.stop_gradient]
        self.active = bool(self._layers)
        for parameter in self._trainable:
            parameter.stop_gradient = True

    def hold(self) -> None:
        """Puts the frozen layers into evaluation mode; call it after each `model.train()`."""
        if self.active:
            for layer in self._layers:
                layer.eval()

    def thaw(self) -> None:
        """Lets everything train again."""
        for parameter in self._trainable:
            parameter.stop_gradient = False
        for layer in self._layers:
            layer.train()
        self.active = False
