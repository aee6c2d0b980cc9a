"""The Prometheus metrics of a training process, one set a rank."""

from __future__ import annotations

import math
from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

__all__ = ["TrainingMetrics"]

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class TrainingMetrics:
    """Metrics named `ocrft_train_*`, labelled with the rank."""

    def __init__(self, registry: CollectorRegistry, *, rank: int) -> None:
        """Registers them.

        Args:
            registry: Where they go.
            rank: Of this process.
        """

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(f"ocrft_train_{name}", text, ["rank"], registry=registry).labels(str(rank))

        self._samples = Counter(
            "ocrft_train_samples", "Samples trained by this process.", ["rank"], registry=registry
        ).labels(str(rank))
        self._unusable = Counter(
            "ocrft_train_unusable_steps", "Steps whose gradients were no numbers.", ["rank"], registry=registry
        ).labels(str(rank))
        self._parts = Histogram(
            "ocrft_train_part_seconds",
            "Time by part: data (waiting for a batch), compute, agree (waiting for other ranks), evaluate, checkpoint.",
            ["rank", "part"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._rank = str(rank)
        self._step = gauge("step", "Steps trained.")
        self._epoch = gauge("epoch", "Epochs trained.")
        self._rate = gauge("learning_rate", "Learning rate.")
        self._norm = gauge("gradient_norm", "L2 norm of all gradients before clipping.")
        self._scale = gauge("loss_scale", "Loss scaling of fp16; 1 otherwise.")
        self._loss = Gauge(
            "ocrft_train_loss",
            "The loss (term=loss) and its terms, over all ranks.",
            ["rank", "term"],
            registry=registry,
        )
        self._source_loss = Gauge(
            "ocrft_train_source_loss", "The loss by source of the samples.", ["rank", "source"], registry=registry
        )
        self._source_samples = Counter(
            "ocrft_train_source_samples",
            "Samples trained by this process, by source: their rates are the mix of the sources.",
            ["rank", "source"],
            registry=registry,
        )
        self._validation = Gauge(
            "ocrft_validation", "Figures on the validation set.", ["rank", "metric"], registry=registry
        )
        self._best = gauge("best_metric", "The best value of the metric that chooses.")
        self._stale = gauge("stale_evaluations", "Evaluations since the metric that chooses has improved.")
        self._checkpoint = gauge("checkpoint_step", "Step of the newest checkpoint.")
        self._skew = gauge("rank_skew_seconds", "How much longer this rank computed a step than the fastest one.")
        self._memory = Gauge(
            "ocrft_train_memory_bytes",
            "Memory: host (resident), device (allocated) and deviceTotal (what the device has).",
            ["rank", "kind"],
            registry=registry,
        )

    def part(self, part: str, seconds: float) -> None:
        """A part of a step took so long."""
        self._parts.labels(self._rank, part).observe(seconds)

    def stepped(self, *, samples: int, rate: float, step: int, epoch: float) -> None:
        """A step was trained."""
        self._samples.inc(samples)
        self._rate.set(rate)
        self._step.set(step)
        self._epoch.set(epoch)

    def looked(self, *, terms: Mapping[str, float], norm: float, finite: bool, scale: float) -> None:
        """The numbers of a step are known."""
        if not finite:
            self._unusable.inc()
        for name, value in terms.items():
            self._loss.labels(self._rank, name).set(value)
        self._norm.set(norm)
        self._scale.set(scale)

    def evaluated(self, numbers: Mapping[str, float], *, stale: int) -> None:
        """The weights were measured; the metric that chooses has not improved for `stale` times."""
        self._stale.set(stale)
        for name, value in numbers.items():
            self._validation.labels(self._rank, name).set(value)

    def drawn(self, samples: Mapping[str, int]) -> None:
        """So many samples of each source were in a step."""
        for name, count in samples.items():
            self._source_samples.labels(self._rank, name).inc(count)

    def by_source(self, losses: Mapping[str, float]) -> None:
        """The loss of each source is known."""
        for name, value in losses.items():
            if math.isfinite(value):
                self._source_loss.labels(self._rank, name).set(value)

    def memory(self, usage: Mapping[str, int]) -> None:
        """How much memory is used, in bytes by kind."""
        for kind, count in usage.items():
            self._memory.labels(self._rank, kind).set(count)

    def skew(self, seconds: float) -> None:
        """How far behind the fastest rank this one was in the last step."""
        self._skew.set(seconds)

    def saved(self, step: int) -> None:
        """A checkpoint was written."""
        self._checkpoint.set(step)

    def best(self, value: float) -> None:
        """The best value of the metric that chooses, so far."""
        self._best.set(value)
