"""The head that PP-OCRv4 and PP-OCRv5 recognisers share, whatever their backbone."""

from __future__ import annotations

from ocr_finetune_trainer.models.heads.ctc import CTCHead
from ocr_finetune_trainer.models.heads.guided import GuidedHead
from ocr_finetune_trainer.models.heads.nrtr import NRTRHead
from ocr_finetune_trainer.models.necks.svtr import SVTRNeck

_GUIDED_WIDTH = 384  # nrtr_dim


def nrtr_guided_head(in_channels: int, *, characters: int, guided: bool) -> GuidedHead:
    """Builds the head: SVTR encoder and CTC, and with guidance an NRTR decoder of width 384.

    The numbers stand under `Head` of PaddleOCR's `configs/rec/PP-OCRv4` and `configs/rec/PP-OCRv5`.

    Args:
        in_channels: Channels of the feature map.
        characters: Characters of the dictionary, with the space if used.
        guided: Whether there is a guided branch. It alone then trains the backbone; without it CTC does.
    """
    encoder = SVTRNeck(in_channels, width=120, hidden=120, depth=2, kernel=(1, 3), detached=guided)
    return GuidedHead(
        in_channels,
        ctc_encoder=encoder,
        ctc_head=CTCHead(encoder.out_channels, characters + 1, decay=1e-5),
        gtc_head=NRTRHead(characters=characters, width=_GUIDED_WIDTH) if guided else None,
        gtc_width=_GUIDED_WIDTH,
    )
