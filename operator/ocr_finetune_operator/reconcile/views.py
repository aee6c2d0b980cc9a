"""What the operator keeps of objects: the few fields that decisions need, as plain values.

Whole objects would not fit: ten thousand finished runs, or the managed fields of a thousand pods, are hundreds of
megabytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from ocr_finetune_api.plan import Stage
from ocr_finetune_operator.constants import (
    CONTAINER,
    LABEL_ATTEMPT,
    LABEL_JOB_INDEX,
    LABEL_JOB_NAME,
    LABEL_RUN,
    LABEL_STAGE,
)

Manifest = dict[str, Any]

_JOB_CONTROLLER = "kubernetes.io/job-controller"


def timestamp(text: str | None) -> float | None:
    """Seconds since the epoch of a Kubernetes time; None for none."""
    return datetime.fromisoformat(text).timestamp() if text else None


def iso(moment: float) -> str:
    """A time as Kubernetes writes it, to the second."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def iso_precise(moment: float) -> str:
    """A time to the millisecond."""
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(frozen=True, kw_only=True, slots=True)
class RunView:
    """An OCRFineTune.

    Attributes:
        spec: As it stands in the cluster, not checked.
        status: As it stands in the cluster, not checked.
        slim: Only the parts that a run which has ended needs; decisions to do something need the whole.
    """

    namespace: str
    name: str
    uid: str
    resource_version: str
    generation: int
    created: float
    deleting: bool
    stop: str
    spec: Mapping[str, Any] = field(default_factory=dict)
    status: Mapping[str, Any] = field(default_factory=dict)
    slim: bool = False

    @classmethod
    def of(cls, manifest: Mapping[str, Any], *, stop_annotation: str) -> RunView:
        """Takes what is needed of an object."""
        metadata = manifest["metadata"]
        spec, status = manifest.get("spec"), manifest.get("status")
        return cls(
            namespace=metadata["namespace"],
            name=metadata["name"],
            uid=metadata["uid"],
            resource_version=metadata["resourceVersion"],
            generation=metadata.get("generation", 1),
            created=timestamp(metadata.get("creationTimestamp")) or 0.0,
            deleting="deletionTimestamp" in metadata,
            stop=(metadata.get("annotations") or {}).get(stop_annotation, ""),
            spec=spec if isinstance(spec, Mapping) else {},
            status=status if isinstance(status, Mapping) else {},
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class JobView:
    """A Job of a run.

    Attributes:
        resource_version: Which state of it this is; empty for none in particular.
        managed_by: Who looks after it instead of Kubernetes' own controller; empty for nobody else.
    """

    name: str
    uid: str
    owner_uid: str
    stage: Stage | None
    attempt: int
    parallelism: int
    suspended: bool
    started: float | None
    deleting: bool
    complete: bool
    failed: bool
    failure_message: str
    created: float
    managed_by: str = ""
    resource_version: str = ""

    @property
    def finished(self) -> bool:
        """Whether it has ended, well or not."""
        return self.complete or self.failed

    @classmethod
    def of(cls, manifest: Mapping[str, Any]) -> JobView:
        """Takes what is needed of an object."""
        metadata, spec, status = manifest["metadata"], manifest["spec"], manifest.get("status") or {}
        labels = metadata.get("labels") or {}
        conditions = {c["type"]: c for c in status.get("conditions") or () if c["status"] == "True"}
        stage, attempt = labels.get(LABEL_STAGE, ""), labels.get(LABEL_ATTEMPT, "")
        return cls(
            name=metadata["name"],
            uid=metadata["uid"],
            owner_uid=_controller(metadata),
            stage=Stage(stage) if stage in Stage.__members__.values() else None,
            attempt=int(attempt) if attempt.isdigit() else 0,
            parallelism=spec.get("parallelism", 1),
            # A Job that was just resumed still has its old start time until its controller has seen it.
            suspended=bool(spec.get("suspend")) or "Suspended" in conditions,
            started=timestamp(status.get("startTime")),
            deleting="deletionTimestamp" in metadata,
            complete="Complete" in conditions,
            failed="Failed" in conditions,
            failure_message=conditions.get("Failed", {}).get("message", ""),
            created=timestamp(metadata.get("creationTimestamp")) or 0.0,
            managed_by="" if spec.get("managedBy") in (None, _JOB_CONTROLLER) else str(spec["managedBy"]),
            resource_version=metadata["resourceVersion"],
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class PodView:
    """A pod of a run.

    Attributes:
        gone: It was deleted from the cluster; this is what it was last.
        deleted_at: When it should be gone by: the end of its grace period.
        exited_at: When its container ended.
        waiting: Why its container waits, such as ImagePullBackOff.
        resource_version: Which state of it this is; empty for none in particular.
    """

    name: str
    uid: str
    job: str
    index: int
    phase: str
    node: str
    ip: str
    created: float
    deleted_at: float | None
    gone: bool
    scheduled: bool
    unschedulable: str
    running: bool
    ready: bool
    disruption: str
    disruption_message: str
    exit_code: int | None
    exited_at: float | None
    exit_reason: str
    exit_message: str
    waiting: str
    waiting_message: str
    resource_version: str = ""

    @property
    def terminal(self) -> bool:
        """Whether nothing of it runs any more."""
        return self.gone or self.phase in ("Succeeded", "Failed")

    @property
    def failed(self) -> bool:
        """Whether it ended badly."""
        return self.phase == "Failed"

    @classmethod
    def of(cls, manifest: Mapping[str, Any], *, gone: bool = False) -> PodView:
        """Takes what is needed of an object."""
        metadata, spec, status = manifest["metadata"], manifest["spec"], manifest.get("status") or {}
        labels = metadata.get("labels") or {}
        conditions = {c["type"]: c for c in status.get("conditions") or ()}
        containers = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
        ended = _ended(containers)
        waiting = _waiting(containers)
        scheduled = conditions.get("PodScheduled", {})
        disruption = conditions.get("DisruptionTarget", {})
        disrupted = disruption.get("status") == "True"
        main: Mapping[str, Any] = next((c for c in containers if c["name"] == CONTAINER), {})
        return cls(
            name=metadata["name"],
            uid=metadata["uid"],
            job=labels.get(LABEL_JOB_NAME, ""),
            index=int(labels.get(LABEL_JOB_INDEX) or 0),
            phase=status.get("phase", "Pending"),
            node=spec.get("nodeName", ""),
            ip=status.get("podIP", ""),
            created=timestamp(metadata.get("creationTimestamp")) or 0.0,
            deleted_at=timestamp(metadata.get("deletionTimestamp")),
            gone=gone,
            scheduled=bool(spec.get("nodeName")),
            unschedulable=scheduled.get("message", "") if scheduled.get("status") == "False" else "",
            running="running" in (main.get("state") or {}),
            ready=conditions.get("Ready", {}).get("status") == "True",
            disruption=disruption.get("reason", "") if disrupted else "",
            disruption_message=disruption.get("message", "") if disrupted else "",
            exit_code=ended.get("exitCode"),
            exited_at=timestamp(ended.get("finishedAt")),
            exit_reason=ended.get("reason") or status.get("reason") or "",
            exit_message=ended.get("message") or status.get("message") or "",
            waiting=waiting.get("reason", ""),
            waiting_message=waiting.get("message", ""),
            resource_version=metadata["resourceVersion"],
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeView:
    """A node, as far as pods on it are concerned."""

    name: str
    exists: bool
    ready: bool
    since: float

    @classmethod
    def of(cls, name: str, manifest: Mapping[str, Any] | None) -> NodeView:
        """Takes what is needed of an object; a node that does not exist is not ready."""
        if manifest is None:
            return cls(name=name, exists=False, ready=False, since=0.0)
        for condition in (manifest.get("status") or {}).get("conditions") or ():
            if condition["type"] == "Ready":
                since = timestamp(condition.get("lastTransitionTime")) or 0.0
                return cls(name=name, exists=True, ready=condition["status"] == "True", since=since)
        return cls(name=name, exists=True, ready=False, since=0.0)


def run_of(manifest: Mapping[str, Any]) -> str:
    """The name of the run that a child belongs to; empty for none."""
    labels = manifest["metadata"].get("labels") or {}
    name: str = labels.get(LABEL_RUN, "")
    return name


def owner_of(manifest: Mapping[str, Any]) -> str:
    """UID of the controller of an object; empty for none."""
    return _controller(manifest["metadata"])


def _controller(metadata: Mapping[str, Any]) -> str:
    for owner in metadata.get("ownerReferences") or ():
        if owner.get("controller"):
            uid: str = owner["uid"]
            return uid
    return ""


def _ended(containers: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """How the container ended that ended worst; a bad end of an init container comes first."""
    ends = [(c.get("state") or {}).get("terminated") for c in containers]
    bad: list[Mapping[str, Any]] = [end for end in ends if end and end.get("exitCode")]
    if bad:
        return bad[0]
    main: list[Mapping[str, Any]] = [
        end for c, end in zip(containers, ends, strict=True) if c["name"] == CONTAINER and end
    ]
    return main[0] if main else {}


def _waiting(containers: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    for container in containers:
        waiting = (container.get("state") or {}).get("waiting")
        if waiting:
            found: Mapping[str, Any] = waiting
            return found
    return {}
