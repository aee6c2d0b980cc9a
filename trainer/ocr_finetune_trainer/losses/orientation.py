"""The loss of the text-line orientation classifier."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from paddle.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Mapping

    from paddle import Tensor


@dataclass(frozen=True)
class OrientationLoss:
    """Cross entropy of two classes."""

    def __call__(self, outputs: Mapping[str, Any], batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Reads `logits` (N, 2) of the outputs, `turned` int64 (N,), 0 or 1, of the batch; gives `loss`, a scalar."""
        return {"loss": F.cross_entropy(outputs["logits"].astype("float32"), batch["turned"], reduction="mean")}
