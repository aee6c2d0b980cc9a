"""The sum of the CTC loss and a guided branch's loss, under PaddleOCR's names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ocr_finetune_trainer.losses.ctc import CTCLoss, ctc_loss, focal
from ocr_finetune_trainer.losses.nrtr import nrtr_loss
from ocr_finetune_trainer.losses.sar import sar_loss

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from paddle import Tensor

    from ocr_finetune_trainer.losses import Loss


@dataclass(frozen=True, kw_only=True)
class GuidedLoss:
    """CTC plus the loss of a guided branch.

    Attributes:
        name: What the guided branch's loss is called in the result.
        loss: The guided branch's loss, of its logits and `label_gtc`.
        ctc_weight: Weight of the CTC loss, `weight_1` in PaddleOCR.
        guided_weight: Weight of the guided branch's loss, `weight_2` in PaddleOCR.
        focal: As for `CTCLoss`.
    """

    name: str
    loss: Callable[[Tensor, Tensor], Tensor]
    ctc_weight: float = 1.0
    guided_weight: float = 1.0
    focal: bool = False

    def __call__(self, outputs: Mapping[str, Any], batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Reads `ctc` and `gtc` of the outputs, `label_ctc`, `label_gtc`, `length` of the batch.

        Returns:
            Scalars: `CTCLoss`, the guided branch's under its name, both weighted, and their sum `loss`.
        """
        by_sample = ctc_loss(outputs["ctc"], labels=batch["label_ctc"], lengths=batch["length"])
        ctc = self.ctc_weight * (focal(by_sample) if self.focal else by_sample).mean()
        guided = self.guided_weight * self.loss(outputs["gtc"], batch["label_gtc"])
        return {"CTCLoss": ctc, self.name: guided, "loss": ctc + guided}


def ctc_and_nrtr(*, guided: bool) -> Loss:
    """The loss of PP-OCRv4 and v5 recognisers: with guidance CTC and NRTR, without it CTC alone."""
    return GuidedLoss(name="NRTRLoss", loss=nrtr_loss) if guided else CTCLoss()


def ctc_and_sar(*, guided: bool) -> Loss:
    """The loss of PP-OCRv3's recogniser: with guidance CTC and SAR, without it CTC alone."""
    return GuidedLoss(name="SARLoss", loss=sar_loss) if guided else CTCLoss()
