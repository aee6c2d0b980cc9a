"""CTC guided by a second, stronger decoder (GTC, https://arxiv.org/abs/2002.01276): PaddleOCR's `MultiHead`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from paddle import nn

if TYPE_CHECKING:
    from collections.abc import Mapping

    from paddle import Tensor

    from ocr_finetune_trainer.models.heads.ctc import CTCHead
    from ocr_finetune_trainer.models.heads.nrtr import NRTRHead
    from ocr_finetune_trainer.models.heads.sar import SARHead


class _ToFrames(nn.Layer):
    # (N, C, T) to (N, T, width)
    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        self.fc = nn.Linear(in_channels, width, bias_attr=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.transpose([0, 2, 1]))


class _CTCBranch(nn.Layer):
    def __init__(self, *, ctc_encoder: nn.Layer, ctc_head: CTCHead) -> None:
        super().__init__()
        self.ctc_encoder = ctc_encoder
        self.ctc_head = ctc_head

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, 1, W) to CTC logits (N, W, classes)."""
        return self.ctc_head(self.ctc_encoder(x))


class GuidedHead(_CTCBranch):
    """A CTC branch and, in training, an NRTR branch on the same feature map.

    Parameters `ctc_encoder.*`, `ctc_head.*`, and with guidance `before_gtc.1.fc.weight`, `gtc_head.*`.

    Args:
        in_channels: Channels of the feature map.
        ctc_encoder: Neck of the CTC branch.
        ctc_head: Head of the CTC branch.
        gtc_head: Decoder of the guided branch; without one the head is CTC alone under the same names.
        gtc_width: Width of the guided branch's frames.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        ctc_encoder: nn.Layer,
        ctc_head: CTCHead,
        gtc_head: NRTRHead | None,
        gtc_width: int,
    ) -> None:
        super().__init__(ctc_encoder=ctc_encoder, ctc_head=ctc_head)
        self.gtc_head = gtc_head
        if gtc_head is not None:
            self.before_gtc = nn.Sequential(nn.Flatten(2), _ToFrames(in_channels, gtc_width))

    def train_forward(self, x: Tensor, batch: Mapping[str, Tensor]) -> dict[str, Any]:
        """Both branches.

        Args:
            x: (N, in_channels, 1, W).
            batch: `label_gtc` (N, L), for the guided branch.

        Returns:
            `ctc`: logits (N, W, classes), and with guidance `gtc`: logits (N, L - 1, classes of the guided branch).
        """
        outputs = {"ctc": self(x)}
        if self.gtc_head is not None:
            outputs["gtc"] = self.gtc_head(self.before_gtc(x), batch["label_gtc"])
        return outputs


class SARGuidedHead(_CTCBranch):
    """A CTC branch and, in training, a SAR branch on the same feature map.

    Parameters `ctc_encoder.*`, `ctc_head.*`, and with guidance `sar_head.*`.

    Args:
        ctc_encoder: Neck of the CTC branch.
        ctc_head: Head of the CTC branch.
        sar_head: Decoder of the guided branch; without one the head is CTC alone under the same names.
    """

    def __init__(self, *, ctc_encoder: nn.Layer, ctc_head: CTCHead, sar_head: SARHead | None) -> None:
        super().__init__(ctc_encoder=ctc_encoder, ctc_head=ctc_head)
        self.sar_head = sar_head

    def train_forward(self, x: Tensor, batch: Mapping[str, Tensor]) -> dict[str, Any]:
        """Both branches.

        Args:
            x: (N, in_channels, 1, W).
            batch: For the guided branch `label_gtc` (N, L) and perhaps `valid_ratio` (N,).

        Returns:
            `ctc`: logits (N, W, classes), and with guidance `gtc`: logits (N, L - 1, characters + 2).
        """
        outputs = {"ctc": self(x)}
        if self.sar_head is not None:
            outputs["gtc"] = self.sar_head(x, batch["label_gtc"], valid_ratio=batch.get("valid_ratio"))
        return outputs
