"""The sum of the CTC loss and a guided branch's loss, under PaddleOCR's names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ocr_finetune_trainer.losses.ctc import CTCLoss, ctc_loss
from ocr_finetune_trainer.losses.nrtr import nrtr_loss
from ocr_finetune_trainer.losses.sar import sar_loss

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from paddle import Tensor

    from ocr_finetune_trainer.losses import Loss


class GuidedLoss:
    """CTC plus the loss of a guided branch.

    Args:
        name: What the guided branch's loss is called in the result.
        loss: The guided branch's loss, of its logits and `label_gtc`.
    """

    def __init__(self, name: str, loss: Callable[[Tensor, Tensor], Tensor]) -> None:
        self._name = name
        self._loss = loss

    def __call__(self, outputs: Mapping[str, Any], batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Reads `ctc` and `gtc` of the outputs, `label_ctc`, `label_gtc`, `length` of the batch.

        Returns:
            Scalars: `CTCLoss`, the guided branch's under its name, and their sum `loss`.
        """
        ctc = ctc_loss(outputs["ctc"], labels=batch["label_ctc"], lengths=batch["length"]).mean()
        guided = self._loss(outputs["gtc"], batch["label_gtc"])
        return {"CTCLoss": ctc, self._name: guided, "loss": ctc + guided}


def ctc_and_nrtr(*, guided: bool) -> Loss:
    """The loss of PP-OCRv4 and v5 recognisers: with guidance CTC and NRTR, without it CTC alone."""
    return GuidedLoss("NRTRLoss", nrtr_loss) if guided else CTCLoss()


def ctc_and_sar(*, guided: bool) -> Loss:
    """The loss of PP-OCRv3's recogniser: with guidance CTC and SAR, without it CTC alone."""
    return GuidedLoss("SARLoss", sar_loss) if guided else CTCLoss()
