"""What the operator needs of a cluster, looked at when it starts: all that is missing is told in one go.

Nothing that is missing ends the operator. Without the resource, or without the right to watch in any namespace, it
waits; in the namespaces where it may watch it works, whatever it may not do in others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ocr_finetune_api import GROUP, PLURAL, VERSION
from ocr_finetune_operator import rbac
from ocr_finetune_operator.kube.client import Client

# `podReplacementPolicy` of Jobs and the CRD's validation rules behave as the operator counts on since this version.
OLDEST = (1, 31)
_REVIEWS_AT_ONCE = 8


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a look at the cluster found.

    Attributes:
        lacks: What is missing, a sentence each.
        namespaces: Where the operator may watch; ("",) means the whole cluster.
        usable: Whether there is anything to do: version and resource are right, and there is a namespace to watch.
    """

    lacks: tuple[str, ...]
    namespaces: tuple[str, ...]
    usable: bool


@dataclass(frozen=True, kw_only=True)
class _Access:
    """One question to the API server: may I?"""

    right: rbac.Right
    namespace: str
    resource: str
    verb: str

    @property
    def words(self) -> str:
        where = f"namespace {self.namespace}" if self.namespace else "the whole cluster"
        group = f".{self.right.group}" if self.right.group else ""
        return f"may not {self.verb} {self.resource}{group} in {where}; without it nobody {self.right.why}"


async def look(client: Client, *, namespaces: Sequence[str], own_namespace: str, leases: bool, nodes: bool) -> Found:
    """Asks the API server for everything that the operator counts on.

    Args:
        client: With the operator's rights.
        namespaces: Those to work in; empty means all.
        own_namespace: Where the Lease lies.
        leases: Whether the operator shares work with other replicas.
        nodes: Whether it looks at what belongs to the cluster as a whole.

    Raises:
        ApiError: The API server refuses to answer.
        UnreachableError: It can't be reached.
    """
    version = await client.version()
    lacks = []
    if version < OLDEST:
        lacks.append(f"Kubernetes {version[0]}.{version[1]} is too old: {OLDEST[0]}.{OLDEST[1]} or newer is needed")
    served = await client.serves(f"apis/{GROUP}/{VERSION}", PLURAL)
    if not served:
        lacks.append(
            f"the cluster has no resource {PLURAL}.{GROUP}/{VERSION}: install the chart with crds.enabled=true, or "
            "apply the file in crds/"
        )
    wanted = tuple(namespaces) or ("",)
    refused = await _refused(client, _questions(wanted, own_namespace=own_namespace, leases=leases, nodes=nodes))
    blind = {
        access.namespace for access in refused if "watch" in access.right.verbs and access.verb in ("list", "watch")
    }
    seen = tuple(namespace for namespace in wanted if namespace not in blind)
    return Found(
        lacks=(*lacks, *(access.words for access in refused)),
        namespaces=seen,
        usable=version >= OLDEST and served and bool(seen),
    )


def _questions(namespaces: Iterable[str], *, own_namespace: str, leases: bool, nodes: bool) -> list[_Access]:
    asked = []
    for right in rbac.RIGHTS:
        if (right.own_namespace and not leases) or (right.cluster and not nodes):
            continue
        places = [own_namespace] if right.own_namespace else [""] if right.cluster else namespaces
        asked += [
            _Access(right=right, namespace=place, resource=resource, verb=verb)
            for place in places
            for resource in right.resources
            for verb in right.verbs
        ]
    return asked


async def _refused(client: Client, asked: Iterable[_Access]) -> list[_Access]:
    gate = asyncio.Semaphore(_REVIEWS_AT_ONCE)

    async def ask(access: _Access) -> bool:
        async with gate:
            return await client.may(
                access.verb, group=access.right.group, resource=access.resource, namespace=access.namespace
            )

    asked = list(asked)
    answers = await asyncio.gather(*(ask(access) for access in asked))
    return [access for access, allowed in zip(asked, answers, strict=True) if not allowed]
