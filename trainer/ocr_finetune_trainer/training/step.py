"""One step of training: forward, backward, reduction over ranks, update."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import paddle
from paddle import nn

from ocr_finetune_trainer import models
from ocr_finetune_trainer.losses.ctc import ctc_loss
from ocr_finetune_trainer.training.marks import BackwardMarks
from ocr_finetune_trainer.training.scaling import LossScale
from ocr_finetune_trainer.training.schedule import SAMPLES_EVERY

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ocr_finetune_trainer.geometry import Normalization
    from ocr_finetune_trainer.training.choices import Settings
    from ocr_finetune_trainer.training.optimizer import Optimizer
    from ocr_finetune_trainer.training.ranks import Ranks

    Batch = Mapping[str, NDArray[Any]]

__all__ = ["Forward", "StepResult", "TrainStep", "normalize", "split"]

# Keys of a batch that say something about its samples and are no input of the model or the loss.
_ABOUT = frozenset({"image", "index", "valid_width", "valid_height", "source"})
_BUCKET_MEGABYTES = 25


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """What a step leaves on the device; reading it is what costs time, so it is read a few steps later.

    Attributes:
        terms: Sums of the loss and its terms over the samples of this rank, divided by the samples of all ranks.
        norm: L2 norm of all gradients before clipping, the same on all ranks.
        finite: Whether it is a number; if not, the gradients were not used.
        by_sample: The CTC loss of each sample of this rank, in steps in which it is looked at.
        sources: The source of each sample.
    """

    terms: dict[str, Any]
    norm: Any
    finite: Any
    by_sample: Any = None
    sources: Any = None


class Forward(nn.Layer):
    """The model and its loss as one layer, so that data parallelism sees one forward pass."""

    def __init__(self, model: nn.Layer, loss: Callable[..., dict[str, Any]]) -> None:
        super().__init__()
        self.model = model
        self._loss = loss

    def forward(
        self, x: Any, targets: Mapping[str, Any], amp: Mapping[str, Any], by_sample: list[Any] | None
    ) -> dict[str, Any]:
        """Pictures and targets to scalars by name.

        Args:
            x: float32 (N, 3, H, W).
            targets: What the loss reads.
            amp: Arguments of `paddle.amp.auto_cast`; losses are computed in float32 whatever the model computes in.
            by_sample: Gets the CTC loss of each sample, (N,), where there is one.
        """
        with paddle.amp.auto_cast(**amp) if amp else contextlib.nullcontext():
            outputs = _as_float32(models.train_forward(self.model, x, targets))
        if by_sample is not None and "ctc" in outputs:
            with paddle.no_grad():
                logits = outputs["ctc"].detach()
                by_sample.append(ctc_loss(logits, labels=targets["label_ctc"], lengths=targets["length"]))
        return self._loss(outputs, targets)


class TrainStep:
    """Trains on one batch at a time.

    Attributes:
        scale: Loss scaling, for fp16.
    """

    def __init__(
        self,
        *,
        model: nn.Layer,
        loss: Callable[..., dict[str, Any]],
        optimizer: Optimizer,
        normalization: Normalization,
        settings: Settings,
        ranks: Ranks,
        gpu: bool,
        seed: int,
        most_pixels: int,
        look_at_samples: bool = False,
    ) -> None:
        """Makes the model data parallel where there are several ranks: all of them must call this together.

        Args:
            model: The model, in training mode.
            loss: Its loss.
            optimizer: Changes its parameters.
            normalization: Turns uint8 values into the model's.
            settings: How training goes.
            ranks: The gang.
            gpu: Whether the device is a GPU.
            seed: Of everything random in the model.
            most_pixels: Pixels of one forward pass; wider batches are taken in parts.
            look_at_samples: Whether the loss of single samples is wanted now and then, to tell sources apart.
        """
        self._look_at_samples = look_at_samples
        self._forward = Forward(model, loss)
        self._parallel: Any = self._forward
        self._marks = None
        if ranks.world > 1:
            self._marks = BackwardMarks([p.tensor for p in optimizer.parameters], tell=ranks.computed)
            with ranks.together():
                self._parallel = paddle.DataParallel(
                    self._forward, comm_buffer_size=_BUCKET_MEGABYTES, find_unused_parameters=True
                )
        self._optimizer = optimizer
        self._normalization = normalization
        self._settings = settings
        self._ranks = ranks
        self._gpu = gpu
        self._seed = seed
        self._most_pixels = most_pixels
        self.scale = LossScale(enabled=settings.precision == "fp16")
        # At this level Paddle keeps parameters in float32, and computes layer norms, softmax and sums in it; batch norms
        # take what the convolution gave, with parameters, statistics and sums in float32.
        self._amp: dict[str, Any] = (
            {}
            if settings.precision == "fp32"
            else {"enable": True, "level": "O1", "dtype": {"bf16": "bfloat16", "fp16": "float16"}[settings.precision]}
        )

    def __call__(self, batch: Batch, *, step: int, total: int, rate: float) -> StepResult:
        """Trains on a batch.

        Args:
            batch: The samples of this rank (see `ocr_finetune_trainer.data.loader`).
            step: Number of the step; it decides the random numbers, so that a resumed run draws the same ones.
            total: Samples of the batches of all ranks together.
            rate: The learning rate.
        """
        paddle.seed((self._seed * 1_000_003 + step * 4_099 + self._ranks.rank) % (2**31))
        terms: dict[str, Any] = {}
        # A rank without samples computes something all the same: the others wait for it. It counts nothing.
        counts = len(batch["index"]) > 0
        samples: list[Any] | None = [] if counts and self._look_at_samples and step % SAMPLES_EVERY == 0 else None
        parts = split(batch, rows=self._settings.batch_size, most_pixels=self._most_pixels)
        for number, part in enumerate(parts):
            last = number == len(parts) - 1
            share = part["image"].shape[0] / total if counts else 0.0
            with self._reduced_only_if(last):
                losses = self._parallel(self._pictures(part), _targets(part), self._amp, samples)
                # Data parallelism averages over ranks; what is wanted is the sum, divided by the count of all samples.
                loss = losses["loss"] * (share * self._ranks.world * self.scale.value)
                with self._waiting_if(last):
                    loss.backward()
            for name, value in losses.items():
                weighted = value.detach() * share
                terms[name] = terms[name] + weighted if name in terms else weighted
        norm, finite = self._update(rate)
        by_sample = paddle.concat(samples) if samples else None
        return StepResult(terms=terms, norm=norm, finite=finite, by_sample=by_sample, sources=batch.get("source"))

    def _pictures(self, part: Batch) -> Any:
        return normalize(
            paddle.to_tensor(part["image"]),
            self._normalization,
            valid_width=part.get("valid_width"),
            valid_height=part.get("valid_height"),
        )

    @contextlib.contextmanager
    def _reduced_only_if(self, last: bool) -> Iterator[None]:
        with contextlib.nullcontext() if last or self._ranks.world == 1 else self._parallel.no_sync():
            yield

    @contextlib.contextmanager
    def _waiting_if(self, last: bool) -> Iterator[None]:
        if self._marks is None or not last:
            yield
            return
        with self._ranks.together(), self._marks.told():
            yield

    def _update(self, rate: float) -> tuple[Any, Any]:
        gradients = self._optimizer.gradients()
        with paddle.no_grad():
            # The operator behind ClipGradByGlobalNorm: one pass a gradient, where the public `norm` takes four.
            squares = paddle.stack([paddle._C_ops.squared_l2_norm(g).reshape([]) for g in gradients])  # noqa: SLF001
            norm = squares.astype("float32").sum().sqrt() / self.scale.value
            finite = paddle.isfinite(norm)
            if not self._gpu or self.scale.enabled:
                # Reading one number costs nothing on a CPU, and loss scaling can't do without it.
                usable = bool(finite)
                self.scale.update(finite=usable)
                if usable:
                    self._rescale(gradients, float(norm))
                    self._optimizer.step(rate)
                else:
                    self._optimizer.clear()
                return norm, finite
            factor = paddle.where(finite, self._clip(norm), paddle.zeros_like(norm))
            for gradient in gradients:
                # Unusable gradients become zeros on the device: the update that follows is that of the momentum alone.
                kept = paddle.where(finite, gradient, paddle.zeros_like(gradient))
                gradient.set_value(kept * factor.astype(gradient.dtype))
            self._optimizer.step(rate)
        return norm, finite

    def _rescale(self, gradients: list[Any], norm: float) -> None:
        limit = self._settings.clip_norm
        factor = min(limit / norm, 1.0) if limit and norm > 0 else 1.0
        factor /= self.scale.value_before
        if factor != 1.0:
            for gradient in gradients:
                gradient.scale_(factor)

    def _clip(self, norm: Any) -> Any:
        limit = self._settings.clip_norm
        return paddle.clip(limit / (norm + 1e-12), max=1.0) if limit else paddle.ones_like(norm)


def normalize(
    pictures: Any,
    normalization: Normalization,
    *,
    valid_width: NDArray[np.int32] | None,
    valid_height: NDArray[np.int32] | None = None,
) -> Any:
    """Turns uint8 pictures (N, H, W, 3) into the model's input, float32 (N, 3, H, W), on their device.

    Args:
        pictures: uint8, BGR.
        normalization: Value range of the model.
        valid_width: Columns of each picture that are no padding; padding becomes 0 *after* normalisation, as in serving.
        valid_height: Rows of each picture that are no padding.
    """
    x = pictures.astype("float32") * paddle.to_tensor(normalization.scale) + paddle.to_tensor(normalization.shift)
    if valid_width is not None:
        width = pictures.shape[2]
        if (valid_width < width).any():
            inside = np.arange(width)[None, :] < valid_width[:, None]
            x = x * paddle.to_tensor(inside[:, None, :, None].astype(np.float32))
    if valid_height is not None:
        height = pictures.shape[1]
        if (valid_height < height).any():
            inside = np.arange(height)[None, :] < valid_height[:, None]
            x = x * paddle.to_tensor(inside[:, :, None, None].astype(np.float32))
    return x.transpose([0, 3, 1, 2])


def split(batch: Batch, *, rows: int, most_pixels: int) -> list[Batch]:
    """Takes a batch apart into forward passes of at most so many rows and pixels, all of about the same size."""
    count, height, width = batch["image"].shape[:3]
    most = max(min(rows, most_pixels // (height * width)), 1)
    parts = -(-count // most)
    if parts <= 1:
        return [batch]
    edges = [count * part // parts for part in range(parts + 1)]
    return [{name: values[start:end] for name, values in batch.items()} for start, end in itertools.pairwise(edges)]


def _targets(part: Batch) -> dict[str, Any]:
    return {name: paddle.to_tensor(values) for name, values in part.items() if name not in _ABOUT}


def _as_float32(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _as_float32(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_as_float32(item) for item in value)
    if isinstance(value, paddle.Tensor) and value.dtype in (paddle.float16, paddle.bfloat16):
        return value.astype("float32")
    return value
