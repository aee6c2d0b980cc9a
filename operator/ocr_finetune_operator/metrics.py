"""The operator's own metrics, `ocrfinetune_*`. Labels are bounded: what users write becomes one only up to a limit."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from ocr_finetune_api.conditions import Phase
from ocr_finetune_api.exit_codes import FailureClass
from ocr_finetune_api.plan import Stage
from ocr_finetune_api.status import Outcome

_FAST = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_WAIT = (0.1, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)
_LONG = (5, 15, 60, 300, 900, 3600, 3 * 3600, 6 * 3600, 12 * 3600, 24 * 3600, 72 * 3600)
_REASONS = ("conflict", "forbidden", "invalid", "busy", "unreachable", "internal")

RunKey = tuple[str, str]


class Metrics:
    """All metrics of one operator process."""

    def __init__(self, *, max_runs: int = 1000) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self._max_runs = max_runs
        self._shown: dict[RunKey, tuple[str, str]] = {}
        registry = self.registry
        self.runs = Gauge("ocrfinetune_runs", f"Runs by phase: {', '.join(Phase)}.", ["phase"], registry=registry)
        self.reconcile_seconds = Histogram(
            "ocrfinetune_reconcile_duration_seconds", "Time of one look at a run.", buckets=_FAST, registry=registry
        )
        self.reconcile_errors = Counter(
            "ocrfinetune_reconcile_errors_total",
            f"Looks at a run that failed, by reason: {', '.join(_REASONS)}.",
            ["reason"],
            registry=registry,
        )
        self.queue_depth = Gauge("ocrfinetune_queue_depth", "Runs waiting for a look.", registry=registry)
        self.queue_age = Gauge(
            "ocrfinetune_queue_age_seconds", "For how long the oldest of them waits.", registry=registry
        )
        self.queue_wait = Histogram(
            "ocrfinetune_queue_wait_seconds", "How long a run waited for a look.", buckets=_WAIT, registry=registry
        )
        self.requests = Counter(
            "ocrfinetune_api_requests_total",
            "Requests to the API server, by verb (GET, POST, PUT, PATCH, DELETE) and code.",
            ["verb", "code"],
            registry=registry,
        )
        self.attempts = Counter(
            "ocrfinetune_attempts_total",
            "Ended attempts by stage, outcome (Succeeded, Failed, Disrupted, Suspended, Repeated) and failure class.",
            ["stage", "outcome", "failure_class"],
            registry=registry,
        )
        self.stage_seconds = Histogram(
            "ocrfinetune_stage_duration_seconds",
            "Time from a stage's first attempt to its success.",
            ["stage"],
            buckets=_LONG,
            registry=registry,
        )
        self.first_pod_seconds = Histogram(
            "ocrfinetune_first_pod_seconds",
            "Time from a run's creation to its first running pod.",
            buckets=_WAIT,
            registry=registry,
        )
        self.leader = Gauge("ocrfinetune_leader", "1 where this replica is the one that works.", registry=registry)
        self.progress = Gauge(
            "ocrfinetune_run_progress_ratio",
            "Progress of the current stage of an active run, 0 to 1.",
            ["namespace", "run", "stage"],
            registry=registry,
        )
        self.best = Gauge(
            "ocrfinetune_run_best_metric",
            "Best value of an active run on its validation set.",
            ["namespace", "run", "metric"],
            registry=registry,
        )
        self.not_shown = Gauge(
            "ocrfinetune_runs_without_series",
            "Active runs beyond the limit of runs with series of their own.",
            registry=registry,
        )
        self._without: set[RunKey] = set()
        self._begin_at_zero()

    def _begin_at_zero(self) -> None:
        """Makes the series whose labels are known: of one that begins with its first event, no rate shows that event."""
        for phase in Phase:
            self.runs.labels(phase.value).set(0)
        for reason in _REASONS:
            self.reconcile_errors.labels(reason)
        for stage in Stage:
            self.stage_seconds.labels(stage.value)
            self.attempts.labels(stage.value, Outcome.SUCCEEDED.value, "")
            for failure in FailureClass:
                self.attempts.labels(stage.value, Outcome.FAILED.value, failure.value)
            for failure in (FailureClass.NODE_LOST, FailureClass.PREEMPTED, FailureClass.STOPPED):
                self.attempts.labels(stage.value, Outcome.DISRUPTED.value, failure.value)

    def request(self, *, method: str, code: str) -> None:
        """Counts an API request."""
        self.requests.labels(method, code).inc()

    def phases(self, phases: Iterable[str]) -> None:
        """Sets how many runs are in which phase."""
        tally: Mapping[str, int] = Tally(phases)
        for phase in Phase:
            self.runs.labels(phase.value).set(tally.get(phase.value, 0))

    def show(self, key: RunKey, *, stage: str, percent: float, metric: str, best: float | None) -> None:
        """Shows the progress of an active run, if the limit allows."""
        before = self._shown.get(key)
        if before is None and len(self._shown) >= self._max_runs:
            self._without.add(key)
            self.not_shown.set(len(self._without))
            return
        if before is not None and before != (stage, metric):
            self.hide(key)
        self._shown[key] = (stage, metric)
        self.progress.labels(*key, stage).set(percent / 100)
        if best is not None and metric:
            self.best.labels(*key, metric).set(best)

    def hide(self, key: RunKey) -> None:
        """Removes the series of a run that ended or is gone."""
        if key in self._without:
            self._without.discard(key)
            self.not_shown.set(len(self._without))
        shown = self._shown.pop(key, None)
        if shown is None:
            return
        stage, metric = shown
        self.progress.remove(*key, stage)
        if metric and (*key, metric) in self.best._metrics:  # noqa: SLF001 - there is no public way to ask
            self.best.remove(*key, metric)

    def text(self) -> bytes:
        """The exposition."""
        return generate_latest(self.registry)
