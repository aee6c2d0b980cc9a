"""All that a decision may look at: values, read before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ocr_finetune_operator.builders.attempt import Installation, Owner
from ocr_finetune_operator.profiles import Profile
from ocr_finetune_operator.reconcile.policies.drift import Accepted
from ocr_finetune_operator.reconcile.policies.progress import Pulled
from ocr_finetune_operator.reconcile.views import JobView, NodeView, PodView, RunView


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Why a run can't be accepted.

    Attributes:
        reason: A stable word.
        message: What is wrong, and what to do.
    """

    reason: str
    message: str


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What has to be asked for only in some cases; None and absent mean that nobody has asked yet.

    Attributes:
        problems: What the preflight found.
        snapshot: The spec that was accepted; `lost` if there is none any more.
        gone_jobs: Jobs of which the API server says that they don't exist.
        nodes: Nodes that were looked at.
        logs: The last lines of pods' logs, by the pod's name.
        workloads: Why queued Jobs wait, by their UID; empty where nobody says.
        read_pods: Jobs whose pods were read from the API server.
        blocked: Why the API server did not let the next attempt be made, a moment ago.
        refused: Why it never will.
        repair_due: It is time to look whether all that an attempt consists of is still there.
    """

    problems: tuple[Problem, ...] | None = None
    snapshot: Accepted | None = None
    snapshot_lost: bool = False
    gone_jobs: frozenset[str] = frozenset()
    nodes: Mapping[str, NodeView] = field(default_factory=dict)
    logs: Mapping[str, str] = field(default_factory=dict)
    workloads: Mapping[str, str] = field(default_factory=dict)
    read_pods: frozenset[str] = frozenset()
    blocked: Problem | None = None
    refused: str = ""
    repair_due: bool = False


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What the installation decides about decisions. Durations in seconds."""

    operator_version: str = ""
    trainer_image: str = ""
    profiles: Mapping[str, Profile] = field(default_factory=dict)
    installation: Installation = field(default_factory=Installation)
    network_policy: bool = True
    progress_interval: float = 30.0
    recheck_interval: float = 60.0
    repair_interval: float = 600.0
    backoff_base: float = 30.0
    backoff_limit: float = 600.0


@dataclass(frozen=True, kw_only=True)
class Observation:
    """One look at a run."""

    run: RunView
    jobs: Sequence[JobView]
    pods: Sequence[PodView]
    now: float
    rules: Rules
    facts: Facts = Facts()
    progress: Pulled | None = None

    @property
    def owner(self) -> Owner:
        """The run, for builders."""
        return Owner(name=self.run.name, namespace=self.run.namespace, uid=self.run.uid)


@dataclass(frozen=True, kw_only=True)
class Need:
    """Something to ask the API server for before a decision can be made.

    Attributes:
        what: preflight, snapshot, job, pods, workload, node or log.
        name: Of what.
    """

    what: str
    name: str = ""
