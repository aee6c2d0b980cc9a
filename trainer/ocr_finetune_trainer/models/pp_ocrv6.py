"""What the three sizes of PP-OCRv6 share, recognisers and detectors.

Every number is from `configs/rec/PP-OCRv6` and `configs/det/PP-OCRv6` of PaddleOCR 3.7.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ocr_finetune_trainer.models.backbones.lcnetv4 import LCNetV4Det, LCNetV4Rec
from ocr_finetune_trainer.models.detection import DetectionModel
from ocr_finetune_trainer.models.heads.ctc import CTCHead
from ocr_finetune_trainer.models.heads.ctc_local import LocalCTCHead
from ocr_finetune_trainer.models.heads.db_supervised import SupervisedDBHead
from ocr_finetune_trainer.models.heads.guided import GuidedHead
from ocr_finetune_trainer.models.heads.nrtr import NRTRHead
from ocr_finetune_trainer.models.necks.light_svtr import LightSVTRNeck
from ocr_finetune_trainer.models.necks.sequence import Reshape
from ocr_finetune_trainer.models.recognition import GuidedModel

if TYPE_CHECKING:
    from collections.abc import Mapping

    from paddle import Tensor

    from ocr_finetune_trainer.models.necks.rep_pyramid import RepLKFPN, RepLKPAN

_DECAY = 1e-5  # fc_decay


def attending_recogniser(
    size: str, *, characters: int, guided: bool, width: int, mlp_ratio: float, guided_width: int
) -> GuidedModel:
    """PP-LCNetV4, light SVTR and CTC, guided by NRTR: the small and the medium recogniser.

    Unlike in PP-OCRv4 and v5, CTC trains the backbone too where there is a guided branch.

    Args:
        size: `small` or `medium`.
        characters: Characters of the dictionary, with the space if used.
        guided: Whether there is a guided branch.
        width: Width of a frame after the encoder.
        mlp_ratio: Width between a block's linear layers, in multiples of `width`.
        guided_width: Width of the guided branch.
    """
    backbone = LCNetV4Rec(size)
    encoder = LightSVTRNeck(backbone.out_channels, width=width, depth=2, mlp_ratio=mlp_ratio)
    return _Recogniser(
        backbone=backbone,
        head=GuidedHead(
            backbone.out_channels,
            ctc_encoder=encoder,
            ctc_head=CTCHead(encoder.out_channels, characters + 1, decay=_DECAY),
            gtc_head=NRTRHead(characters=characters, width=guided_width) if guided else None,
            gtc_width=guided_width,
        ),
    )


def local_recogniser(size: str, *, characters: int, guided: bool, hidden: int, guided_width: int) -> GuidedModel:
    """PP-LCNetV4 and a CTC head of convolutions, guided by NRTR: the tiny recogniser.

    Args:
        size: `tiny`.
        characters: Characters of the dictionary, with the space if used.
        guided: Whether there is a guided branch.
        hidden: Width between the head's linear layers.
        guided_width: Width of the guided branch.
    """
    backbone = LCNetV4Rec(size)
    encoder = Reshape(backbone.out_channels)
    return _Recogniser(
        backbone=backbone,
        head=GuidedHead(
            backbone.out_channels,
            ctc_encoder=encoder,
            ctc_head=LocalCTCHead(encoder.out_channels, characters + 1, hidden=hidden, decay=_DECAY),
            gtc_head=NRTRHead(characters=characters, width=guided_width) if guided else None,
            gtc_width=guided_width,
        ),
    )


class _Recogniser(GuidedModel):
    def train_forward(self, x: Tensor, batch: Mapping[str, Tensor]) -> dict[str, Any]:
        """As `GuidedModel`, and columns of `label_gtc` beyond the longest label are left out: they only cost time."""
        if "label_gtc" in batch and "length" in batch:
            longest = int(batch["length"].max())
            batch = {**batch, "label_gtc": batch["label_gtc"][:, : longest + 2]}
        return super().train_forward(x, batch)


class SupervisedDetector(DetectionModel):
    """A detector whose pyramid's levels have heads of their own in training.

    Args:
        backbone: Pictures to four maps at a quarter to a thirty-second.
        neck: Four maps to one at a quarter, and its levels.
    """

    def __init__(self, *, backbone: LCNetV4Det, neck: RepLKFPN | RepLKPAN) -> None:
        super().__init__(backbone=backbone, neck=neck, head=SupervisedDBHead(neck.out_channels))

    def train_forward(self, x: Tensor, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:  # noqa: ARG002 - all models take the batch
        """Pages (N, 3, H, W) to `maps` and `aux_maps_p2` to `aux_maps_p4`, each (N, 3, H, W)."""
        fused, levels = self.neck.with_levels(self.backbone(x))
        outputs: dict[str, Tensor] = self.head.train_on_levels(fused, levels)
        return outputs
