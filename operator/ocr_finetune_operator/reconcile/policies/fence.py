"""The fence between two attempts: the next one starts only when nothing of the earlier ones runs any more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ocr_finetune_operator.reconcile.views import JobView, NodeView, PodView


@dataclass(frozen=True, kw_only=True)
class Fence:
    """What stands between two attempts.

    Attributes:
        jobs: Jobs that have to be deleted: they have not ended, and are not wanted any more.
        alive: Pods that may still run.
        nodes: Nodes of those pods that have to be looked at.
        lost: Pods of dead nodes whose time is over.
        wait: Seconds until the next of them is given up.
    """

    jobs: tuple[JobView, ...] = ()
    alive: tuple[PodView, ...] = ()
    nodes: tuple[str, ...] = ()
    lost: tuple[PodView, ...] = ()
    wait: float | None = None

    @property
    def open(self) -> bool:
        """Whether the next attempt may start."""
        return not self.jobs and not self.alive


def look(
    jobs: Sequence[JobView],
    pods: Sequence[PodView],
    *,
    nodes: Mapping[str, NodeView],
    grace: float,
    now: float,
) -> Fence:
    """Looks at what is left of earlier attempts.

    Args:
        jobs: Jobs of earlier attempts.
        pods: Their pods.
        nodes: What is known of nodes.
        grace: Seconds after which the pods of a node that is not ready are given up.
        now: Seconds since the epoch.
    """
    stray = tuple(job for job in jobs if not job.finished and not job.deleting)
    alive = tuple(pod for pod in pods if not pod.terminal)
    lost, wait = lost_pods(alive, nodes=nodes, grace=grace, now=now)
    return Fence(
        jobs=stray,
        alive=alive,
        # A pod that is being deleted and still runs: its node may be dead.
        nodes=tuple(sorted({pod.node for pod in alive if pod.node and suspicious(pod)})),
        lost=lost,
        wait=wait,
    )


def suspicious(pod: PodView) -> bool:
    """Whether a pod looks as if its node were dead."""
    return not pod.terminal and bool(pod.node) and (pod.deleted_at is not None or (pod.running and not pod.ready))


def lost_pods(
    pods: Sequence[PodView], *, nodes: Mapping[str, NodeView], grace: float, now: float
) -> tuple[tuple[PodView, ...], float | None]:
    """The pods to give up, and how long to wait for the next one."""
    lost: list[PodView] = []
    wait: float | None = None
    for pod in pods:
        node = nodes.get(pod.node)
        if pod.terminal or node is None or node.ready:
            continue
        left = 0.0 if not node.exists else node.since + grace - now
        if left <= 0:
            lost.append(pod)
        else:
            wait = left if wait is None else min(wait, left)
    return tuple(lost), wait
