"""CRNN_r34_vd: ResNet34-vd, two bidirectional LSTM layers and CTC (https://arxiv.org/abs/1507.05717).

Every number is from `configs/rec/rec_r34_vd_none_bilstm_ctc.yml` of PaddleOCR.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ocr_finetune_trainer.models.backbones.resnet_vd_rec import ResNet34VdRec
from ocr_finetune_trainer.models.heads.ctc import CTCHead
from ocr_finetune_trainer.models.necks.sequence import LSTMNeck
from ocr_finetune_trainer.models.recognition import CTCModel

if TYPE_CHECKING:
    from ocr_finetune_trainer.losses import Loss


def build(*, characters: int, guided: bool) -> CTCModel:  # noqa: ARG001 - there is no guided branch
    """Builds the model for `characters` characters; input (N, 3, 32, W), W / 4 frames."""
    backbone = ResNet34VdRec()
    neck = LSTMNeck(backbone.out_channels, hidden=256)
    return CTCModel(backbone=backbone, neck=neck, head=CTCHead(neck.out_channels, characters + 1, decay=0.0))


def build_loss(*, guided: bool) -> Loss:  # noqa: ARG001 - there is no guided branch
    """CTC loss alone."""
    from ocr_finetune_trainer.losses.ctc import CTCLoss

    return CTCLoss()
