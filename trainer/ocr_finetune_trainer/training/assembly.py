"""Puts a training together from a run's files: model, data, optimizer, checkpoints, metrics."""

from __future__ import annotations

import logging
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import paddle
from paddle import nn
from prometheus_client import CollectorRegistry

from ocr_finetune_api import overrides, results
from ocr_finetune_api.exit_codes import DeviceError, InputMissingError, StopRequested
from ocr_finetune_api.model_table import Kind, lookup
from ocr_finetune_api.overrides import Part
from ocr_finetune_api.plan import Stage
from ocr_finetune_api.values import seconds
from ocr_finetune_trainer import losses
from ocr_finetune_trainer.data.store import DataSet
from ocr_finetune_trainer.dictionary import Dictionary
from ocr_finetune_trainer.evaluation.subjects import postprocess_of
from ocr_finetune_trainer.geometry import DetectionGeometry, geometry_for
from ocr_finetune_trainer.models.freezing import Freezing
from ocr_finetune_trainer.telemetry import memory
from ocr_finetune_trainer.telemetry.trackers import Tracker, open_trackers
from ocr_finetune_trainer.telemetry.training_metrics import TrainingMetrics
from ocr_finetune_trainer.training import checkpoint, validate
from ocr_finetune_trainer.training.average import Average
from ocr_finetune_trainer.training.building import guided_branch, load_pretrained, new_model
from ocr_finetune_trainer.training.checkpoint import Fence, Manifest, Progress
from ocr_finetune_trainer.training.choices import Facts, Settings, choose
from ocr_finetune_trainer.training.failures import out_of_memory
from ocr_finetune_trainer.training.feed import DataFeed, make_order, make_transform
from ocr_finetune_trainer.training.identity import identity_of, planned_batch
from ocr_finetune_trainer.training.loop import Ending, Plan, Trainer
from ocr_finetune_trainer.training.optimizer import Optimizer, trainable
from ocr_finetune_trainer.training.profiling import Profiling
from ocr_finetune_trainer.training.pulse import Outcome
from ocr_finetune_trainer.training.recorder import Recorder
from ocr_finetune_trainer.training.resume import Start, keep_settings, locate
from ocr_finetune_trainer.training.saver import TrainingState
from ocr_finetune_trainer.training.step import TrainStep
from ocr_finetune_trainer.training.writer import CheckpointWriter

if TYPE_CHECKING:
    from ocr_finetune_api.run_config import RunConfig
    from ocr_finetune_api.workspace import Workspace
    from ocr_finetune_trainer.models.weights import LoadReport
    from ocr_finetune_trainer.training.pulse import Pulse
    from ocr_finetune_trainer.training.ranks import Ranks

__all__ = ["train"]

logger = logging.getLogger(__name__)
# Paddle's signal handlers would hide what ended a process.
paddle.disable_signal_handler()

# A batch twice as wide as the narrowest still goes through at once; wider ones are taken in parts.
_WIDER = 2
_OWN_DEVICE = "FLAGS_selected_gpus"  # the launcher's word for it
TRACKERS = "OCRFT_TRACKERS"
_LEAST_STORAGE_PATIENCE = 900.0


def train(
    config: RunConfig, *, workspace: Workspace, ranks: Ranks, pulse: Pulse, folder: Path, execution: str
) -> Outcome:
    """Trains a run to its end.

    Args:
        config: The run configuration.
        workspace: The run's files.
        ranks: The gang.
        pulse: Signs of life.
        folder: In memory, shared by the processes of this node.
        execution: This execution of the attempt.

    Returns:
        What the stage reports.

    Raises:
        OCRFineTuneError: Training can't begin or go on.
        StopRequested: Somebody asked for a stop, and a checkpoint is saved.
    """
    gpu = _choose_device(config, ranks)
    ranks.connect(gpu=gpu)
    job = _Job(config, workspace=workspace, ranks=ranks, pulse=pulse, folder=folder, execution=execution, gpu=gpu)
    try:
        return job.run()
    except Exception as error:
        full = out_of_memory(
            error, batch_size=job.settings.batch_size, accumulation=job.accumulation, used=memory.usage()
        )
        if full is not None:
            raise full from error
        raise
    finally:
        job.close()


class _Job:
    """The parts of a training that live as long as it does."""

    def __init__(
        self,
        config: RunConfig,
        *,
        workspace: Workspace,
        ranks: Ranks,
        pulse: Pulse,
        folder: Path,
        execution: str,
        gpu: bool,
    ) -> None:
        self.config = config
        self.spec = spec = config.spec
        self.workspace = workspace
        self.ranks = ranks
        self.pulse = pulse
        self.gpu = gpu
        self.info = lookup(spec.model.name)
        self.metric = validate.metric_of(self.info.kind, spec.evaluation.metric)
        self.guided = guided_branch(spec.model)
        self.geometry = geometry_for(spec.model.name)
        self.dictionary = Dictionary.load(workspace.dictionary) if self.info.kind is Kind.RECOGNITION else None
        self.dataset = DataSet.open(workspace.data / "train")
        if isinstance(self.geometry, DetectionGeometry):
            canvas = self._changes(Part.CANVAS)
            self.geometry = replace(self.geometry.for_pages(self.dataset.sizes), **canvas)
        self.validation = DataSet.open(workspace.data / "validation")
        if not len(self.validation):
            raise InputMissingError(f"{workspace.data / 'validation'}: is empty, so no checkpoint can be chosen")
        self.identity = identity_of(
            spec, guided=self.guided, dictionary=self.dictionary, data=self.dataset.content_hash
        )
        self.fence = Fence(workspace.fence, attempt=config.attempt, execution=execution)
        self.trackers = self._open_trackers()
        self.start = self._locate()
        self.settings = self._choose()
        self.writer = self._writer() if ranks.first else None
        self.loaded: LoadReport | None = None
        self.model = self._build_model()
        self.average_model = new_model(spec, self.dictionary) if self.settings.ema else None
        self.recorder = self._recorder(folder)
        self.announce()

    def run(self) -> Outcome:
        """Trains, and says what became of it."""
        found = self.start.checkpoint
        progress = self.start.progress or Progress(steps=self.steps)
        progress = progress.model_copy(update={"steps": self.steps, "steps_per_epoch": self.order.steps_per_epoch})
        self.pulse.progress(resumed_from_step=progress.step)
        thaw_at = self.spec.model.freeze_epochs * self.order.steps_per_epoch
        moments: dict[str, Any] = {}
        while True:
            frozen = self.spec.model.freeze != "none" and not (thaw_at and progress.step >= thaw_at)
            trainer, state = self._trainer(progress, frozen=frozen, pause_at=thaw_at if frozen else 0)
            if found is not None:
                state.restore(found)
            else:
                state.take_moments(moments)
            ending = trainer.run()
            progress = trainer.progress
            if ending is not Ending.PAUSE:
                break
            # What was frozen begins with fresh moments; everything else is in place.
            self.freezing.thaw()
            found = None
            moments = state.moments()
        if self.writer is not None:
            self.writer.wait()
        if ending is Ending.STOPPED:
            if self.ranks.first:
                self.workspace.stop_request.unlink(missing_ok=True)
            raise StopRequested(
                f"training stopped on request after step {progress.step} of {trainer.plan.steps}; a checkpoint is saved",
                hint="run again to go on from there",
            )
        return self._outcome(progress, ending)

    @property
    def accumulation(self) -> int:
        """Forward passes of a step on each device."""
        return -(-self.settings.global_batch // (self.settings.batch_size * self.ranks.world))

    def close(self) -> None:
        """Writes what is left of the metrics."""
        self.recorder.close()

    def announce(self) -> None:
        """Prints what was chosen, and why."""
        if not self.ranks.first:
            return
        for choice in self.settings.choices:
            logger.info("%s: %s (%s)", choice.name, choice.value, choice.reason)
        for key, value in overrides.values(self.spec.training.config).items():
            logger.info("training.config: %s: %s", key, value)
        for warning in self.settings.warnings:
            logger.warning("%s", warning)

    @property
    def prepared(self) -> dict[str, Any]:
        """What prepare found out."""
        result = results.read(self.workspace.result(Stage.PREPARE))
        return result.details if result is not None else {}

    def _choose(self) -> Settings:
        dictionary = self.prepared.get("dictionary", {})
        size = max(int(dictionary.get("size", 0)), 1)
        facts = Facts(
            samples=len(self.dataset),
            validation_samples=len(self.validation),
            gpu=self.gpu,
            bf16=self.gpu and paddle.amp.is_bfloat16_supported(),
            new_characters=int(dictionary.get("new", 0)) / size,
            cores=_cores_a_process(self.config.devices_per_node),
        )
        # A training that goes on keeps what was chosen when it began, whatever it runs on now.
        going_on = self.start.checkpoint if self.start.progress is not None else None
        before = going_on.manifest.settings if going_on is not None else {}
        total = before.get("global_batch") or choose(self.spec, facts).global_batch
        self.order = make_order(self.dataset, self.spec, geometry=self.geometry, batch_size=total)
        settings = choose(self.spec, facts, steps_per_epoch=self.order.steps_per_epoch, global_batch=total)
        settings = keep_settings(settings, before)
        self.steps = settings.epochs * self.order.steps_per_epoch
        return settings

    def _changes(self, part: Part) -> dict[str, Any]:
        """What `training.config` changes of a part."""
        return overrides.settings(self.spec.training.config, part, self.info.kind)

    def _build_model(self) -> nn.Layer:
        paddle.seed(self.spec.training.seed)
        model = new_model(self.spec, self.dictionary)
        if self.spec.model.pretrained != "none":
            self.loaded = load_pretrained(model, self.workspace.weights, self.dictionary, tell=self.ranks.first)
        if self.settings.batch_norm == "sync":
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        return model

    def _writer(self) -> CheckpointWriter:
        policy = self.spec.training.checkpoint
        return CheckpointWriter(
            self.workspace.checkpoints,
            fence=self.fence,
            keep_last=policy.keep_last,
            patience_seconds=max(3.0 * seconds(policy.every), _LEAST_STORAGE_PATIENCE),
            tell=self._storage_event,
            wrote=self._wrote,
        )

    def _wrote(self, step: int) -> None:
        self.pulse.update(written=step)
        self.recorder.metrics.saved(step)

    def _storage_event(self, message: str) -> None:
        logger.warning("%s", message)
        self._tell("storage", message=message)

    def _open_trackers(self) -> list[Tracker]:
        if not self.ranks.first:
            return []
        run = self.config.run
        extra = [name for name in os.environ.get(TRACKERS, "").split(",") if name]
        return open_trackers(self.workspace, run=run.name, uid=run.uid, attempt=self.config.attempt, extra=extra)

    def _recorder(self, folder: Path) -> Recorder:
        registry = CollectorRegistry()
        rank = self.ranks.rank
        metrics = TrainingMetrics(registry, rank=rank)
        self.pulse.publish(folder / f"rank-{rank}.train.prom", registry)
        self.pulse.progress(epochs=self.settings.epochs, steps=self.steps, metric_name=self.metric)
        return Recorder(
            pulse=self.pulse,
            metrics=metrics,
            trackers=self.trackers,
            sources=self.dataset.source_names,
            steps=self.steps,
            steps_per_epoch=self.order.steps_per_epoch,
            metric_name=self.metric,
        )

    def _locate(self) -> Start:
        """Where to begin, the same on all ranks: rank 0 looks first, and tidies up."""
        spec = self.spec
        if self.ranks.first:
            self.fence.claim()
            checkpoint.clean(self.workspace.checkpoints)

        def look(*, leads: bool) -> Start:
            return locate(
                self.workspace,
                identity=self.identity,
                batch=planned_batch(spec),
                resume_from=spec.training.resume_from,
                tell=self._tell if leads else lambda *_args, **_fields: None,
                begin_anew=leads,
            )

        start = look(leads=True) if self.ranks.first else Start()
        self.ranks.share("looked")
        if not self.ranks.first:
            start = look(leads=False)
        for reason in start.restarted if self.ranks.first else ():
            logger.warning("training begins anew, older checkpoints are kept aside: %s", reason)
        if start.checkpoint is not None and self.ranks.first:
            logger.info("going on from step %d: %s", start.checkpoint.step, start.checkpoint.path)
            self._tell("resumed", step=start.checkpoint.step, checkpoint=start.checkpoint.path.name)
        return start

    def _tell(self, event: str, **fields: Any) -> None:
        for tracker in self.trackers:
            tracker.event(event, fields)
        if event == "damaged-checkpoint":
            logger.warning("skipped a damaged checkpoint: %s: %s", fields["path"], fields["reason"])

    def _trainer(self, progress: Progress, *, frozen: bool, pause_at: int) -> tuple[Trainer, TrainingState]:
        settings, spec = self.settings, self.spec
        self.freezing = freezing = Freezing(self.model, spec.model.freeze if frozen else "none")
        set_modes(self.model, frozen_norms=settings.batch_norm == "frozen", freezing=freezing)
        optimizer = Optimizer(
            trainable(self.model, layer_decay=settings.layer_decay, head_rate=settings.head_rate),
            weight_decay=settings.weight_decay,
            **self._changes(Part.OPTIMIZER),
        )
        average = Average(self.average_model, of=self.model, decay=settings.ema) if self.average_model else None
        step = TrainStep(
            model=self.model,
            loss=losses.build(spec.model.name, guided=self.guided, settings=self._changes(Part.LOSS)),
            optimizer=optimizer,
            normalization=self.geometry.normalization,
            settings=settings,
            ranks=self.ranks,
            gpu=self.gpu,
            seed=spec.training.seed,
            most_pixels=self._most_pixels(),
            look_at_samples=len(self.dataset.source_names) > 1,
        )
        state = TrainingState(
            model=self.model,
            average=average,
            optimizer=optimizer,
            scale=step.scale,
            ranks=self.ranks,
            folder=self.workspace.checkpoints,
            writer=self.writer,
            manifest=Manifest(
                step=0,
                attempt=self.config.attempt,
                execution=self.fence.execution,
                metric_name=self.metric,
                identity=self.identity,
                settings={
                    name: value for name, value in asdict(settings).items() if name not in ("choices", "warnings")
                },
            ),
        )

        def evaluate() -> dict[str, Any]:
            with state.measured() as model:
                figures = self._measure(model)
            set_modes(self.model, frozen_norms=settings.batch_norm == "frozen", freezing=freezing)
            return figures

        trainer = Trainer(
            plan=self._plan(pause_at),
            progress=progress,
            ranks=self.ranks,
            pulse=self.pulse,
            feed=self._feed(),
            step=step,
            schedule=settings.schedule(
                spec, steps_per_epoch=self.order.steps_per_epoch, extended_from=progress.extended_from
            ),
            average=average,
            evaluate=evaluate,
            saver=state,
            recorder=self.recorder,
            profiling=Profiling(self.workspace.folder / "profile", pulse=self.pulse, gpu=self.gpu),
            name_samples=lambda indices: [self.dataset.origin(index) for index in indices],
        )
        return trainer, state

    def _plan(self, pause_at: int) -> Plan:
        training = self.spec.training
        return Plan(
            steps=self.steps,
            evaluate_every=self.settings.evaluate_every,
            save_every_steps=training.checkpoint.every_steps,
            save_every_seconds=float(seconds(training.checkpoint.every)),
            metric=self.metric,
            patience=training.early_stopping.patience,
            min_delta=training.early_stopping.min_delta,
            target=training.target_metric,
            budget_seconds=float(seconds(training.time_budget)),
            report_every=10 if self.gpu else 1,
            pause_at=pause_at,
        )

    def _feed(self) -> DataFeed:
        longest = int(self.prepared.get("maxTextLength") or 25)
        transform = make_transform(
            self.spec, geometry=self.geometry, dictionary=self.dictionary, guided=self.guided, longest=longest
        )
        return DataFeed(
            self.dataset,
            self.order,
            transform,
            rank=self.ranks.rank,
            world=self.ranks.world,
            workers=self.settings.workers,
            seed=self.spec.training.seed,
            steps=self.steps,
        )

    def _most_pixels(self) -> int:
        geometry = self.geometry
        if self.info.kind is Kind.TABLE:
            return self.settings.batch_size * geometry.side**2  # type: ignore[union-attr]
        if self.info.kind is Kind.ORIENTATION:
            return self.settings.batch_size * geometry.height * geometry.width  # type: ignore[union-attr]
        if self.info.kind is Kind.RECOGNITION:
            return self.settings.batch_size * geometry.height * geometry.min_width * _WIDER  # type: ignore[union-attr]
        return self.settings.batch_size * geometry.train_height * geometry.train_width  # type: ignore[union-attr]

    def _measure(self, model: nn.Layer) -> dict[str, Any]:
        return validate.measure_on_all_ranks(
            model,
            self.validation,
            geometry=self.geometry,
            dictionary=self.dictionary,
            ranks=self.ranks,
            batch_size=max(self.settings.batch_size, 32),
            timeout=float(self.config.stall_timeout_seconds),
            postprocess=postprocess_of(self.spec),
        )

    def _outcome(self, progress: Progress, ending: Ending) -> Outcome:
        best = {"metric": self.metric, "value": progress.best_metric, "step": progress.best_step}
        folder = self.workspace.checkpoints
        chosen = checkpoint.load_best(self.workspace) if self.ranks.first else None
        return Outcome(
            values={
                "metrics": {
                    "best": best,
                    "base": {"metric": self.metric, "value": progress.base_metric},
                    "steps": progress.step,
                    "epochs": round(progress.step / self.order.steps_per_epoch, 2),
                    "samples": progress.samples,
                    "seconds": round(progress.seconds, 1),
                },
                "artifacts": {"checkpoint": f"{folder.name}/{chosen.path.name}"} if chosen else {},
                "choices": [choice.model_dump() for choice in self.settings.choices],
                "warnings": [*self.settings.warnings, *self.start.restarted],
                "details": {
                    "ended": ending.value,
                    "world": self.ranks.world,
                    "globalBatch": self.settings.global_batch,
                    "rollbacks": progress.rollbacks,
                    "resumedFromStep": self.start.progress.step if self.start.progress else 0,
                    "restarted": list(self.start.restarted),
                    "pretrained": self.loaded.document() if self.loaded is not None else None,
                },
            }
        )


def set_modes(model: nn.Layer, *, frozen_norms: bool, freezing: Freezing) -> None:
    """Puts a model into training mode, but for what stands still."""
    model.train()
    freezing.hold()
    if frozen_norms:
        for layer in model.sublayers():
            if isinstance(layer, nn.BatchNorm1D | nn.BatchNorm2D | nn.BatchNorm3D | nn.SyncBatchNorm | nn.BatchNorm):
                layer.eval()


def _choose_device(config: RunConfig, ranks: Ranks) -> bool:
    """Sets this process's device; whether it is a GPU."""
    count = paddle.device.cuda.device_count() if paddle.device.is_compiled_with_cuda() else 0
    if config.device == "gpu" and not count:
        built = "" if paddle.device.is_compiled_with_cuda() else "; this PaddlePaddle is built for CPUs"
        raise DeviceError(
            f"distributed.device: gpu, but there is no GPU here{built}",
            hint="write device: cpu, or run where there are GPUs",
        )
    if config.device == "cpu" or not count:
        paddle.set_device("cpu")
        return False
    if ranks.local_rank >= count:
        raise DeviceError(
            f"distributed.devicesPerNode: {config.devices_per_node}, but this node has {count} GPUs",
            hint=f"write devicesPerNode: {count} or less",
        )
    # The launcher shows each process its own device by its number on the node.
    paddle.set_device(f"gpu:{os.environ.get(_OWN_DEVICE, str(ranks.local_rank)).split(',')[0]}")
    return True


def _cores_a_process(processes: int) -> int:
    return max(len(os.sched_getaffinity(0)) // max(processes, 1), 1)
