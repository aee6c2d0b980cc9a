"""Puts a training together from a run's files: model, data, optimizer, checkpoints, metrics."""

from __future__ import annotations

import logging
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import paddle
from paddle import nn
from prometheus_client import CollectorRegistry

from ocr_finetune_api import overrides
from ocr_finetune_api.exit_codes import StopRequested
from ocr_finetune_api.overrides import Part
from ocr_finetune_api.values import seconds
from ocr_finetune_trainer import losses
from ocr_finetune_trainer.evaluation.subjects import postprocess_of
from ocr_finetune_trainer.models.freezing import Freezing
from ocr_finetune_trainer.telemetry import memory
from ocr_finetune_trainer.telemetry.trackers import Tracker, open_trackers
from ocr_finetune_trainer.telemetry.training_metrics import TrainingMetrics
from ocr_finetune_trainer.training import checkpoint, validate
from ocr_finetune_trainer.training.average import Average
from ocr_finetune_trainer.training.building import guided_branch, load_pretrained, new_model, set_modes
from ocr_finetune_trainer.training.checkpoint import Fence, Manifest, Progress
from ocr_finetune_trainer.training.choices import Facts, Settings, choose
from ocr_finetune_trainer.training.devices import choose_device, cores_a_process
from ocr_finetune_trainer.training.failures import out_of_memory
from ocr_finetune_trainer.training.feed import DataFeed, make_order, make_transform
from ocr_finetune_trainer.training.identity import identity_of, planned_batch
from ocr_finetune_trainer.training.inputs import read as read_inputs
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
    gpu = choose_device(config, local_rank=ranks.local_rank)
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
        self.metric = validate.metric_of(spec.model.kind, spec.evaluation.metric)
        self.guided = guided_branch(spec.model)
        self.inputs = read_inputs(spec, workspace)
        self.identity = identity_of(
            spec, guided=self.guided, dictionary=self.inputs.dictionary, data=self.inputs.train.content_hash
        )
        self.fence = Fence(workspace.fence, attempt=config.attempt, execution=execution)
        self.trackers = self._open_trackers()
        facts = self._facts()
        # What can't work is refused before older checkpoints are set aside for it.
        choose(spec, facts)
        self.start = self._locate()
        self.settings = self._choose(facts)
        self.writer = self._writer() if ranks.first else None
        self.loaded: LoadReport | None = None
        self.model = self._build_model()
        self.average_model = new_model(spec, self.inputs.dictionary) if self.settings.ema else None
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

    def _facts(self) -> Facts:
        return Facts(
            samples=len(self.inputs.train),
            validation_samples=len(self.inputs.validation),
            gpu=self.gpu,
            bf16=self.gpu and paddle.amp.is_bfloat16_supported(),
            new_characters=self.inputs.new_characters,
            cores=cores_a_process(self.config.devices_per_node),
        )

    def _choose(self, facts: Facts) -> Settings:
        # A training that goes on keeps what was chosen when it began, whatever it runs on now.
        going_on = self.start.checkpoint if self.start.progress is not None else None
        before = going_on.manifest.settings if going_on is not None else {}
        total = before.get("global_batch") or choose(self.spec, facts).global_batch
        self.order = make_order(self.inputs.train, self.spec, geometry=self.inputs.geometry, batch_size=total)
        settings = choose(self.spec, facts, steps_per_epoch=self.order.steps_per_epoch, global_batch=total)
        settings = keep_settings(settings, before)
        self.steps = settings.epochs * self.order.steps_per_epoch
        return settings

    def _changes(self, part: Part) -> dict[str, Any]:
        """What `training.config` changes of a part."""
        return overrides.settings(self.spec.training.config, part, self.spec.model.kind)

    def _build_model(self) -> nn.Layer:
        paddle.seed(self.spec.training.seed)
        model = new_model(self.spec, self.inputs.dictionary)
        if self.spec.model.pretrained != "none":
            self.loaded = load_pretrained(model, self.workspace.weights, self.inputs.dictionary, tell=self.ranks.first)
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
            sources=self.inputs.train.source_names,
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
            normalization=self.inputs.geometry.normalization,
            settings=settings,
            ranks=self.ranks,
            gpu=self.gpu,
            seed=spec.training.seed,
            most_pixels=self.inputs.most_pixels(settings.batch_size),
            look_at_samples=len(self.inputs.train.source_names) > 1,
        )
        state = TrainingState(
            model=self.model,
            average=average,
            optimizer=optimizer,
            scale=step.scale,
            ranks=self.ranks,
            folder=self.workspace.checkpoints,
            writer=self.writer,
            patience=float(self.config.stall_timeout_seconds),
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
            name_samples=lambda indices: [self.inputs.train.origin(index) for index in indices],
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
        inputs = self.inputs
        transform = make_transform(
            self.spec,
            geometry=inputs.geometry,
            dictionary=inputs.dictionary,
            guided=self.guided,
            longest=inputs.longest,
        )
        return DataFeed(
            inputs.train,
            self.order,
            transform,
            rank=self.ranks.rank,
            world=self.ranks.world,
            workers=self.settings.workers,
            seed=self.spec.training.seed,
            steps=self.steps,
        )

    def _measure(self, model: nn.Layer) -> dict[str, Any]:
        return validate.measure_on_all_ranks(
            model,
            self.inputs.validation,
            geometry=self.inputs.geometry,
            dictionary=self.inputs.dictionary,
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
                "warnings": [*self.settings.warnings, *self.start.restarted, *self.start.skipped],
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
