"""What `auto` stands for: every value that training chooses by itself, each with its reason.

Pure functions of the manifest and of a few facts. The figures are those of PaddleOCR's guide to fine-tuning and of the
practitioners' notes that go with it, unless the reason says otherwise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from ocr_finetune_api.exit_codes import ConfigurationError
from ocr_finetune_api.model_table import Kind
from ocr_finetune_api.results import Choice
from ocr_finetune_api.spec import OCRFineTuneSpec
from ocr_finetune_api.values import interval
from ocr_finetune_trainer.training.schedule import Schedule

__all__ = ["Facts", "Settings", "choose"]

FEW_SAMPLES = 10_000
MANY_SAMPLES = 100_000
LEAST = {Kind.RECOGNITION: 5_000, Kind.DETECTION: 500}
UNITS = {Kind.RECOGNITION: "lines", Kind.DETECTION: "pages", Kind.TABLE: "tables", Kind.ORIENTATION: "lines"}
BATCHES = {Kind.DETECTION: 8, Kind.TABLE: 8}
LINEAR_UP_TO_DEVICES = 8
SAMPLES_FOR_BATCH_NORM = 16
FORWARD_SHARE = 1 / 3  # what evaluating a sample costs, as a part of training on it
EVALUATION_SHARE = 0.1

# Rate and the total batch that it is meant for.
_FINE_TUNING = {Kind.RECOGNITION: (1e-4, 128), Kind.DETECTION: (1e-4, 8), Kind.TABLE: (1e-4, 48)}
_FROM_SCRATCH = {Kind.RECOGNITION: (1e-3, 1024), Kind.DETECTION: (1e-3, 64), Kind.TABLE: (1e-3, 48)}
# Measured here: models so small that they bear, and need, a higher rate.
_SMALL_MODELS = {"MobileNetV3_small_ctc": (5e-3, 64)}
_FEW_LINES = (2e-5, 64)

T = TypeVar("T")
Precision = Literal["fp32", "bf16", "fp16"]
BatchNorm = Literal["local", "sync", "frozen"]


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What the choices depend on beside the manifest.

    Attributes:
        samples: Training samples.
        validation_samples: Samples that each evaluation reads.
        gpu: Whether devices are GPUs.
        bf16: Whether they compute in bf16.
        new_characters: Part of the dictionary that the pretrained head does not know.
        cores: CPU cores a process may use.
    """

    samples: int
    validation_samples: int
    gpu: bool = False
    bf16: bool = False
    new_characters: float = 0.0
    cores: int = 1


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that decides how training goes, with no `auto` left.

    Attributes:
        epochs: Passes over the data.
        global_batch: Samples a step, over all devices and accumulated batches.
        batch_size: Samples of one forward pass on one device.
        peak_rate: The highest learning rate.
        warmup_epochs: Epochs of linear warm-up.
        weight_decay: Decay of weights.
        clip_norm: Largest norm of all gradients; 0 clips nothing.
        precision: What the model computes in.
        batch_norm: Where batch-norm statistics come from.
        ema: Decay of the moving average; 0 keeps none.
        layer_decay: Factor of the rate from one stage to the one below it.
        head_rate: Factor of the head's rate.
        workers: Data-loading processes a device.
        evaluate_every: Steps between evaluations.
        choices: What was chosen, and why.
        warnings: What a person should know.
    """

    epochs: int
    global_batch: int
    batch_size: int
    peak_rate: float
    warmup_epochs: float
    weight_decay: float
    clip_norm: float
    precision: Precision
    batch_norm: BatchNorm
    ema: float
    layer_decay: float
    head_rate: float
    workers: int
    evaluate_every: int
    choices: tuple[Choice, ...] = ()
    warnings: tuple[str, ...] = ()

    def schedule(self, spec: OCRFineTuneSpec, *, steps_per_epoch: int, extended_from: int = 0) -> Schedule:
        """The learning rate of each step."""
        wanted = spec.training.schedule
        steps = self.epochs * steps_per_epoch
        planned = extended_from or steps
        return Schedule(
            shape=wanted.name,
            peak=self.peak_rate,
            steps=steps,
            warmup=round(self.warmup_epochs * steps_per_epoch),
            boundaries=tuple(round(part * planned) for part in (wanted.boundaries or [0.8])),
            factor=wanted.factor,
            extended_from=extended_from,
        )


@dataclass
class _Chooser:
    spec: OCRFineTuneSpec
    facts: Facts
    choices: list[Choice] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def kind(self) -> Kind:
        return self.spec.model.kind

    @property
    def unit(self) -> str:
        return UNITS.get(self.kind, "samples")

    @property
    def devices(self) -> int:
        return self.spec.distributed.nodes * self.spec.distributed.devices_per_node

    @property
    def from_scratch(self) -> bool:
        return self.spec.model.pretrained == "none"

    def note(self, name: str, value: T, reason: str) -> T:
        text = f"{value:.3g}" if isinstance(value, float) else str(value)
        self.choices.append(Choice(name=name, value=text, reason=reason))
        return value

    def epochs(self) -> int:
        wanted = self.spec.training.epochs
        if wanted != "auto":
            return int(wanted)
        count = self.facts.samples
        if count < FEW_SAMPLES:
            return self.note("epochs", 100, f"{count} {self.unit} are under {FEW_SAMPLES}")
        return self.note("epochs", 50, f"{count} {self.unit} are {FEW_SAMPLES} or more")

    def batch_size(self) -> int:
        wanted = self.spec.training.batch_size
        parts = self.devices * self.spec.training.gradient_accumulation
        if wanted != "auto":
            total = int(wanted) * parts
            if total > self.facts.samples:
                raise ConfigurationError(
                    f"training.batchSize: a step takes {wanted} × {parts} = {total} samples, but there are only "
                    f"{self.facts.samples} to train on",
                    hint=f"write batchSize: {max(self.facts.samples // parts, 1)} or less, use fewer devices, "
                    "or leave it at auto",
                )
            return int(wanted)
        usual = BATCHES.get(self.kind, 64)
        fitting = max(self.facts.samples // parts // 4, 1)
        if fitting < usual:
            return self.note("batchSize", fitting, f"{self.facts.samples} samples give at least 4 steps an epoch")
        return self.note("batchSize", usual, f"the usual one for {self.unit}")

    def rate(self, total: int) -> float:
        wanted = self.spec.training.learning_rate
        if wanted != "auto":
            return float(wanted)
        name = self.spec.model.name
        few = self.kind is Kind.RECOGNITION and self.facts.samples < FEW_SAMPLES
        if self.from_scratch and name in _SMALL_MODELS:
            rate, batch = _SMALL_MODELS[name]
            why = "measured for this small model from scratch"
        elif self.from_scratch:
            rate, batch = _FROM_SCRATCH.get(self.kind, _FROM_SCRATCH[Kind.RECOGNITION])
            why = "the guide's figure from scratch"
        elif few:
            rate, batch = _FEW_LINES
            why = f"fine-tuning on under {FEW_SAMPLES} lines"
        else:
            rate, batch = _FINE_TUNING.get(self.kind, _FINE_TUNING[Kind.RECOGNITION])
            why = "the guide's figure for fine-tuning"
        devices = self.devices
        scale = total / batch
        how = f"{rate:g} at a batch of {batch}, in proportion to the batch of {total}"
        if devices > LINEAR_UP_TO_DEVICES:
            scale *= math.sqrt(LINEAR_UP_TO_DEVICES / devices)
            how += f", by the square root beyond {LINEAR_UP_TO_DEVICES} devices"
        return self.note("learningRate", rate * scale, f"{why}: {how}")

    def warmup(self, epochs: int) -> float:
        wanted = self.spec.training.schedule.warmup_epochs
        if wanted != "auto":
            return float(wanted)
        if self.from_scratch:
            return self.note("schedule.warmupEpochs", epochs * 0.05, "a twentieth of training from scratch")
        if self.facts.samples < FEW_SAMPLES:
            return self.note(
                "schedule.warmupEpochs", min(5.0, epochs / 10), f"fine-tuning on under {FEW_SAMPLES} samples"
            )
        return self.note("schedule.warmupEpochs", min(1.0, epochs / 10), "one epoch, a tenth of training at most")

    def precision(self) -> Precision:
        wanted = self.spec.training.precision
        if not self.facts.gpu:
            if wanted in ("fp16", "bf16"):
                raise ConfigurationError(
                    f"training.precision: {wanted} needs a GPU, and this run is on CPUs",
                    hint="write precision: auto, or device: gpu",
                )
            return "fp32" if wanted == "fp32" else self.note("precision", "fp32", "CPUs compute in fp32")
        if wanted == "bf16" and not self.facts.bf16:
            raise ConfigurationError("training.precision: this GPU can't compute in bf16", hint="write precision: fp16")
        if wanted != "auto":
            return wanted
        if self.facts.bf16:
            return self.note("precision", "bf16", "the GPU has it, and it needs no loss scaling")
        return self.note("precision", "fp16", "the GPU has no bf16; with dynamic loss scaling")

    def batch_norm(self, batch_size: int) -> BatchNorm:
        wanted = self.spec.training.batch_norm
        if wanted == "sync" and not self.facts.gpu:
            raise ConfigurationError(
                "training.batchNorm: sync has no implementation for CPUs in PaddlePaddle",
                hint="write batchNorm: auto; statistics are averaged over ranks before they are used either way",
            )
        if wanted != "auto":
            return wanted
        if not self.from_scratch and batch_size < SAMPLES_FOR_BATCH_NORM:
            return self.note(
                "batchNorm",
                "frozen",
                f"fine-tuning with {batch_size} samples a device: statistics of under {SAMPLES_FOR_BATCH_NORM} are noise",
            )
        return self.note("batchNorm", "local", "each device has enough samples")

    def ema(self, steps: int) -> float:
        wanted = self.spec.training.ema
        if wanted != "auto":
            return float(wanted)
        horizon = min(max(steps / 40, 10), 2000)
        return self.note("ema", round(1 - 1 / horizon, 5), f"an average over about {horizon:.0f} of {steps} steps")

    def number(self, name: str, wanted: float | Literal["auto"], value: float, reason: str) -> float:
        return self.note(name, value, reason) if wanted == "auto" else float(wanted)

    def head_rate(self) -> float:
        if self.from_scratch or self.facts.new_characters <= 0.2:
            return 1.0
        part = f"{self.facts.new_characters:.0%}"
        return self.note("headRate", 5.0, f"{part} of the characters are new to the head, which has most to learn")

    def workers(self) -> int:
        wanted = self.spec.training.workers
        if wanted != "auto":
            return int(wanted)
        cores = self.facts.cores
        if self.facts.gpu:
            return self.note("workers", max(min(cores - 1, 8), 1), f"{cores} cores a device")
        if cores > 1:
            return self.note("workers", 1, f"{cores} cores: one prepares data, the model has the others")
        return self.note("workers", 0, "one core: a process of its own would only take turns with the model")

    def evaluate_every(self, *, steps_per_epoch: int, steps: int, total: int) -> int:
        wanted = self.spec.training.evaluate.every
        if wanted != "auto":
            count, unit = interval(wanted)
            return min(count * (steps_per_epoch if unit == "epoch" else 1), steps)
        cost = self.facts.validation_samples * FORWARD_SHARE  # in samples trained
        least = cost / EVALUATION_SHARE / total
        every = steps_per_epoch * max(math.ceil(least / steps_per_epoch), 1)
        if every > steps_per_epoch or steps_per_epoch <= 1000:
            text = f"{every // steps_per_epoch} epoch(s): under a tenth of the time by the number of samples"
            return self.note("evaluate.every", min(every, steps), text)
        part = max(math.ceil(least), 1000)
        return self.note("evaluate.every", min(part, steps), "epochs are long; under a tenth of the time")

    def warn_if_few(self) -> None:
        least = LEAST.get(self.kind)
        if least and self.facts.samples < least and not self.from_scratch:
            self.warnings.append(
                f"{self.facts.samples} {self.unit} to train on are few: {least} is the least that the guide advises"
            )


def choose(
    spec: OCRFineTuneSpec, facts: Facts, *, steps_per_epoch: int | None = None, global_batch: int | None = None
) -> Settings:
    """Replaces every `auto` of `training`.

    Args:
        spec: The run's spec.
        facts: What the choices depend on.
        steps_per_epoch: As the order of samples has it; by default the samples divided by the batch.
        global_batch: Samples a step of a training that goes on, perhaps on another number of devices.

    Raises:
        ConfigurationError: A value that was given can't work.
    """
    chooser = _Chooser(spec, facts)
    chooser.warn_if_few()
    batch_size = chooser.batch_size()
    total = global_batch or batch_size * chooser.devices * spec.training.gradient_accumulation
    epochs = chooser.epochs()
    per_epoch = steps_per_epoch or max(math.ceil(facts.samples / total), 1)
    steps = epochs * per_epoch
    training = spec.training
    return Settings(
        epochs=epochs,
        global_batch=total,
        batch_size=batch_size,
        peak_rate=chooser.rate(total),
        warmup_epochs=chooser.warmup(epochs),
        weight_decay=chooser.number("weightDecay", training.weight_decay, 0.01, "the usual one of AdamW"),
        clip_norm=chooser.number(
            "clipNorm", training.clip_norm, 5.0, "stops single bad batches, rarely felt otherwise"
        ),
        precision=chooser.precision(),
        batch_norm=chooser.batch_norm(batch_size),
        ema=chooser.ema(steps),
        layer_decay=chooser.number("layerDecay", training.layer_decay, 1.0, "the models are small: one rate for all"),
        head_rate=chooser.head_rate(),
        workers=chooser.workers(),
        evaluate_every=chooser.evaluate_every(steps_per_epoch=per_epoch, steps=steps, total=total),
        choices=tuple(chooser.choices),
        warnings=tuple(chooser.warnings),
    )
