"""The rights that the operator needs, and why: `python -m ocr_finetune_operator.rbac` prints them as a ClusterRole.

The chart's role is tested against this list, and the operator names the missing right when the API server refuses it.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import yaml

from ocr_finetune_api import GROUP, PLURAL


@dataclass(frozen=True, kw_only=True)
class Right:
    """One rule.

    Attributes:
        group: API group; empty for the core group.
        resources: Resources and subresources.
        verbs: What is done with them.
        why: What does not work without it.
        cluster: Whether it is about resources without a namespace: an installation for some namespaces has it not.
        own_namespace: Whether it is needed in the operator's own namespace only.
    """

    group: str
    resources: tuple[str, ...]
    verbs: tuple[str, ...]
    why: str
    cluster: bool = False
    own_namespace: bool = False

    def rule(self) -> dict[str, Any]:
        """As a rule of a Role."""
        return {"apiGroups": [self.group], "resources": list(self.resources), "verbs": list(self.verbs)}


RIGHTS: tuple[Right, ...] = (
    Right(group=GROUP, resources=(PLURAL,), verbs=("get", "list", "watch"), why="sees the runs"),
    Right(group=GROUP, resources=(f"{PLURAL}/status",), verbs=("patch",), why="writes how a run stands"),
    Right(
        group=GROUP,
        resources=(f"{PLURAL}/finalizers",),
        verbs=("update",),
        why="makes objects that block the deletion of their run, where the cluster checks that (OpenShift)",
    ),
    Right(
        group="batch",
        resources=("jobs",),
        verbs=("get", "list", "watch", "create", "delete"),
        why="runs each attempt at a stage as a Job",
    ),
    Right(
        group="",
        resources=("pods",),
        verbs=("get", "list", "watch", "delete"),
        why="sees why an attempt failed, and gives up pods of dead nodes",
    ),
    Right(group="", resources=("pods/log",), verbs=("get",), why="shows the last lines of a failed pod"),
    Right(
        group="",
        resources=("configmaps",),
        verbs=("get", "create", "delete"),
        why="hands each attempt its run configuration",
    ),
    Right(
        group="",
        resources=("services",),
        verbs=("get", "create", "patch", "delete"),
        why="gives training pods host names",
    ),
    Right(
        group="networking.k8s.io",
        resources=("networkpolicies",),
        verbs=("get", "create", "patch", "delete"),
        why="keeps others away from the pods of a run",
    ),
    Right(
        group="",
        resources=("persistentvolumeclaims",),
        verbs=("get", "create"),
        why="finds or makes the workspace",
    ),
    Right(
        group="",
        resources=("secrets",),
        verbs=("get",),
        why="sees whether a named Secret exists; asks for its metadata only, and does without where it is refused",
    ),
    Right(group="", resources=("events",), verbs=("create", "patch"), why="tells people what happens"),
    Right(
        group="",
        resources=("nodes",),
        verbs=("get", "list"),
        why="tells a lost node from a slow one, and a request that no node can ever meet",
        cluster=True,
    ),
    Right(
        group="kueue.x-k8s.io",
        resources=("workloads",),
        verbs=("list",),
        why="tells what a queued run waits for; does without it where there is no Kueue",
    ),
    Right(
        group="storage.k8s.io",
        resources=("storageclasses",),
        verbs=("get",),
        why="sees whether a named storage class exists",
        cluster=True,
    ),
    Right(
        group="coordination.k8s.io",
        resources=("leases",),
        verbs=("get", "create", "update"),
        why="agrees with other replicas on which one works",
        own_namespace=True,
    ),
)


def rules(*, cluster: bool = True) -> list[dict[str, Any]]:
    """The rules of a ClusterRole, or of a Role for one namespace."""
    return [right.rule() for right in RIGHTS if cluster or not right.cluster]


def cluster_role(name: str = "ocr-finetune-operator") -> dict[str, Any]:
    """A ClusterRole with all rights."""
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": name},
        "rules": rules(),
    }


def why(*, group: str, resource: str, verb: str) -> str:
    """What a right is for; empty if it is none of the operator's."""
    for right in RIGHTS:
        if right.group == group and resource in right.resources and verb in right.verbs:
            return right.why
    return ""


if __name__ == "__main__":
    sys.stdout.write(yaml.safe_dump(cluster_role(), sort_keys=False))
