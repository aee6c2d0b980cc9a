"""Decides from the reports of all nodes whether a gang is over, and whose fault it was. Pure: no clock, no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any

from ocr_finetune_api.exit_codes import ExitCode, FailureClass
from ocr_finetune_trainer.training.pulse import Outcome, State

__all__ = ["Report", "WorkerReport", "judge"]

# Phases in which a rank that keeps the others waiting is in the way; evaluation and checkpoints have limits of their own.
_QUICK = frozenset({"data", "compute"})
_START_SECONDS = 60.0  # loading libraries holds up every thread of a process
_BROKEN_SECONDS = 10.0  # a collective gives up after 30: who was silent for so long meanwhile is why
_HINT = "the log of that rank says more; run again to go on from the newest checkpoint"


@dataclass(frozen=True, kw_only=True)
class WorkerReport:
    """A worker as its node sees it, in durations: the clocks of nodes differ.

    Attributes:
        rank: Which one.
        phase: What it is doing.
        waiting: Whether it waits for others.
        step: Steps trained.
        done: Part of the backward pass of the step after these that is computed.
        since: Seconds since phase, waiting or done changed.
        silent: Seconds since its last sign of life.
        alive: Whether its process exists.
    """

    rank: int
    phase: str
    waiting: bool
    step: int
    since: float
    silent: float
    done: float = 0.0
    alive: bool = True

    @property
    def position(self) -> tuple[int, float]:
        """How far it has come: it only ever grows, but for a return to a checkpoint."""
        return self.step, self.done


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a node says of its workers.

    Attributes:
        workers: They.
        outcome: How its part ended; None while it goes on.
    """

    workers: tuple[WorkerReport, ...] = ()
    outcome: Outcome | None = None

    @classmethod
    def of(cls, states: Sequence[State], outcome: Outcome | None, *, now: float) -> Report:
        """A report from the states of workers."""
        return cls(
            workers=tuple(
                WorkerReport(
                    rank=state.rank,
                    phase=state.phase,
                    waiting=state.waiting,
                    step=state.step,
                    done=state.done,
                    since=max(now - state.since, 0.0),
                    silent=max(now - state.beat, 0.0),
                )
                for state in states
            ),
            outcome=outcome,
        )

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Report:
        """A report as it came over the line."""
        outcome = values.get("outcome")
        return cls(
            workers=tuple(WorkerReport(**worker) for worker in values.get("workers", ())),
            outcome=Outcome(**outcome) if outcome else None,
        )


def judge(
    reports: Mapping[int, Report],
    *,
    silent: Mapping[int, float],
    lost: Set[int],
    peer_timeout: float,
    processes: int,
) -> Outcome | None:
    """How the gang ended.

    Args:
        reports: The last report of each node.
        silent: Seconds since each node's last report.
        lost: Nodes whose line is closed.
        peer_timeout: Seconds without a sign of life after which a node or a worker counts as gone.
        processes: Workers of a node.

    Returns:
        None while it goes on, or ends well. Failures that a worker understood itself keep their exit code; whatever else
        ends a worker is exit 69 and names the rank. A connection that broke is a consequence: where nothing better is
        known yet, `peer` is set, and it is worth waiting for the report of the cause.
    """
    own = [
        (node, report.outcome)
        for node, report in sorted(reports.items())
        if report.outcome is not None
        and not report.outcome.peer
        and report.outcome.exit_code not in (ExitCode.OK, ExitCode.STOPPED)
    ]
    if own:
        node, outcome = own[0]
        return _told(node, outcome)
    for node in sorted(lost):
        if reports[node].outcome is None:
            return _gone(node, processes, "is gone: its line broke")
    for node, seconds in sorted(silent.items()):
        if seconds > peer_timeout and reports[node].outcome is None and node not in lost:
            return _gone(node, processes, f"has been silent for {seconds:.0f} s")
    workers = [
        (node, worker)
        for node, report in sorted(reports.items())
        if report.outcome is None
        for worker in report.workers
    ]
    patience = min(peer_timeout, _BROKEN_SECONDS) if _is_broken(reports) else peer_timeout
    for node, worker in workers:
        limit = max(peer_timeout, _START_SECONDS) if worker.phase == "start" else patience
        if worker.silent > limit and worker.phase != "done":
            return _fault(node, worker, f"has given no sign of life for {worker.silent:.0f} s: it hangs or is stopped")
    return _slow(workers, reports, peer_timeout=peer_timeout)


def _slow(
    workers: Sequence[tuple[int, WorkerReport]], reports: Mapping[int, Report], *, peer_timeout: float
) -> Outcome | None:
    """A rank that others wait for: one that is behind those that wait, or that does not wait itself.

    In a backward pass all ranks may wait for others, for it is there that gradients are reduced; who has computed less of
    it than those that stand still is the one they wait for.
    """
    broken = _is_broken(reports)
    everyone = [worker for report in reports.values() for worker in report.workers]
    stuck = everyone if broken else [w for _, w in workers if w.waiting and w.since > peer_timeout]
    front = max((worker.position for worker in stuck), default=None)
    if front is None and not broken:
        return None
    late = [
        (node, worker)
        for node, worker in workers
        if worker.phase in _QUICK
        and (
            (front is not None and worker.position < front)
            or (not worker.waiting and (broken or worker.since > peer_timeout))
        )
    ]
    if late:
        node, worker = min(late, key=lambda item: (item[1].position, -item[1].since))
        return replace(_fault(node, worker, "keeps the others waiting: it is too slow or hangs"), peer=broken)
    if broken:
        node, report = next(item for item in sorted(reports.items()) if item[1].outcome and item[1].outcome.peer)
        assert report.outcome is not None
        return Outcome(
            exit_code=int(ExitCode.PEER_UNAVAILABLE),
            problems=[f"node {node}: {problem}" for problem in report.outcome.problems],
            hint=_HINT,
            peer=True,
            values=report.outcome.values,
        )
    return None


def _is_broken(reports: Mapping[int, Report]) -> bool:
    """Whether a node has lost the connection to a peer."""
    return any(report.outcome is not None and report.outcome.peer for report in reports.values())


def _told(node: int, outcome: Outcome) -> Outcome:
    understood = outcome.exit_code != ExitCode.INTERNAL or bool(outcome.hint)
    return Outcome(
        exit_code=outcome.exit_code if understood else int(ExitCode.PEER_UNAVAILABLE),
        problems=[f"node {node}: {problem}" for problem in outcome.problems],
        hint=outcome.hint or _HINT,
        values={**outcome.values, "node": node},
    )


def _gone(node: int, processes: int, how: str) -> Outcome:
    first = node * processes
    ranks = f"rank {first}" if processes == 1 else f"ranks {first} to {first + processes - 1}"
    return Outcome(
        exit_code=int(ExitCode.PEER_UNAVAILABLE),
        problems=[f"node {node} ({ranks}) {how}"],
        hint=_HINT,
        values={"node": node},
    )


def _fault(node: int, worker: WorkerReport, what: str) -> Outcome:
    return Outcome(
        exit_code=int(ExitCode.PEER_UNAVAILABLE),
        problems=[f"rank {worker.rank} (node {node}), at {worker.phase!r} of step {worker.step}, {what}"],
        hint=_HINT,
        values={"failureClass": FailureClass.STALLED.value, "node": node},
    )
