"""What only the cluster knows about a run before it starts: does what it names exist, and can it ever fit."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

from kubernetes.utils.quantity import parse_quantity

from ocr_finetune_api.plan import Stage, plan
from ocr_finetune_api.spec import OCRFineTuneSpec
from ocr_finetune_operator import names, profiles
from ocr_finetune_operator.builders import addresses, job, pod
from ocr_finetune_operator.builders.attempt import AttemptPlan, Owner
from ocr_finetune_operator.kube.client import Client
from ocr_finetune_operator.kube.errors import ConflictError, ForbiddenError, InvalidError
from ocr_finetune_operator.reconcile.node_list import NodeList
from ocr_finetune_operator.reconcile.observation import Observation, Problem
from ocr_finetune_operator.reconcile.views import owner_of

Manifest = dict[str, Any]


async def check(
    client: Client, observation: Observation, spec: OCRFineTuneSpec, *, nodes: NodeList | None
) -> list[Problem]:
    """Finds all reasons why a run can't be accepted.

    Args:
        client: To ask with.
        observation: The run.
        spec: Its spec, with the profile's defaults.
        nodes: The cluster's nodes; None where it does not matter whether one is large enough.
    """
    owner, rules = observation.owner, observation.rules
    problems = [*_profile(spec, rules.profiles), *_values(spec)]
    problems += [Problem(reason="InvalidPodTemplate", message=clash) for clash in pod.clashes(spec.pods)]
    problems += await _workspace(client, owner, spec)
    problems += await _claims(client, owner.namespace, spec)
    problems += await _secrets(client, owner.namespace, spec)
    if nodes is not None and not {problem.reason for problem in problems} & {"InvalidQuantity", "InvalidPodTemplate"}:
        problems += await _nodes(nodes, observation, spec)
    if not problems:
        problems += await _dry_run(client, observation, spec)
    return problems


def _profile(spec: OCRFineTuneSpec, known: Mapping[str, profiles.Profile]) -> list[Problem]:
    if not spec.profile or spec.profile in known:
        return []
    near = difflib.get_close_matches(spec.profile, known, n=1)
    there = f"did you mean {near[0]}?" if near else f"there are: {', '.join(sorted(known)) or 'none'}"
    return [Problem(reason="ProfileUnknown", message=f"profile: there is no profile {spec.profile!r}; {there}")]


def _values(spec: OCRFineTuneSpec) -> list[Problem]:
    """Quantities that Kubernetes would not understand."""
    given = {"pods.sharedMemory": spec.pods.shared_memory, "workspace.size": spec.workspace.size}
    for stage, resources in spec.pods.resources.items():
        for kind in ("requests", "limits"):
            for name, quantity in getattr(resources, kind).items():
                given[f"pods.resources.{stage}.{kind}[{name}]"] = quantity
    problems = []
    for field, quantity in given.items():
        if quantity == "" and field == "workspace.size":
            continue
        try:
            parse_quantity(str(quantity))
        except (ValueError, ArithmeticError):
            message = f"{field}: {str(quantity)[:40]!r} is not a quantity such as 8Gi, 500m or 4"
            problems.append(Problem(reason="InvalidQuantity", message=message))
    return problems


async def _workspace(client: Client, owner: Owner, spec: OCRFineTuneSpec) -> list[Problem]:
    workspace, nodes = spec.workspace, spec.distributed.nodes
    if not workspace.claim_name and not workspace.size:
        message = (
            "workspace: on a cluster give claimName (an existing PersistentVolumeClaim) or size (of one to be made)"
        )
        return [Problem(reason="WorkspaceMissing", message=message)]
    if workspace.claim_name:
        found = await client.get("PersistentVolumeClaim", workspace.claim_name, owner.namespace)
        if found is None:
            message = f"workspace.claimName: there is no claim {workspace.claim_name!r} in {owner.namespace}; make it"
            return [Problem(reason="ClaimMissing", message=message)]
        modes = found["spec"].get("accessModes") or []
        if nodes > 1 and "ReadWriteMany" not in modes:
            message = (
                f"workspace.claimName: {workspace.claim_name} is {', '.join(modes)}, but {nodes} nodes write to the "
                "workspace together, which needs ReadWriteMany; name another claim, or set distributed.nodes to 1"
            )
            return [Problem(reason="ClaimNotShared", message=message)]
        return []
    problems: list[Problem] = []
    name = names.claim(owner.name)
    found = await client.get("PersistentVolumeClaim", name, owner.namespace)
    labels = found["metadata"].get("labels") or {} if found else {}
    if found is not None and owner_of(found) not in ("", owner.uid):
        problems.append(Problem(reason="NameConflict", message=f"the claim {name} belongs to another object"))
    elif found is not None and labels.get("ocrfinetune.dev/run") != owner.name:
        message = f"there is a claim {name} that is not of a run; write workspace.claimName: {name} to use it"
        problems.append(Problem(reason="NameConflict", message=message))
    storage_class = workspace.storage_class_name
    if storage_class and found is None:
        try:
            exists = await client.get("StorageClass", storage_class) is not None
        except ForbiddenError:
            exists = True  # an operator of one namespace has no right to look
        if not exists:
            message = f"workspace.storageClassName: there is no storage class {storage_class!r}"
            problems.append(Problem(reason="StorageClassMissing", message=message))
    return problems


async def _claims(client: Client, namespace: str, spec: OCRFineTuneSpec) -> list[Problem]:
    problems: list[Problem] = []
    for name in addresses.all_claims(spec):
        if name == spec.workspace.claim_name:
            continue
        if await client.get("PersistentVolumeClaim", name, namespace) is None:
            message = f"pvc://{name}: there is no claim {name!r} in {namespace}"
            problems.append(Problem(reason="ClaimMissing", message=message))
    return problems


async def _secrets(client: Client, namespace: str, spec: OCRFineTuneSpec) -> list[Problem]:
    problems: list[Problem] = []
    for name, field in _named_secrets(spec):
        try:
            found = await client.get("Secret", name, namespace, metadata_only=True)
        except ForbiddenError:
            return problems  # an installation may keep Secrets from the operator; pods then say what is missing
        if found is None:
            message = f"{field}: there is no Secret {name!r} in {namespace}"
            problems.append(Problem(reason="SecretMissing", message=message))
    return problems


def _named_secrets(spec: OCRFineTuneSpec) -> Iterable[tuple[str, str]]:
    found: dict[str, str] = {}
    for number, credential in enumerate(spec.credentials):
        found.setdefault(credential.secret_name, f"credentials[{number}].secretName")
    for number, entry in enumerate(spec.pods.env_from):
        reference = entry.get("secretRef")
        if isinstance(reference, Mapping) and not reference.get("optional"):
            found.setdefault(str(reference.get("name", "")), f"pods.envFrom[{number}].secretRef.name")
    for number, entry in enumerate(spec.pods.env):
        source = entry.get("valueFrom")
        reference = source.get("secretKeyRef") if isinstance(source, Mapping) else None
        if isinstance(reference, Mapping) and not reference.get("optional"):
            found.setdefault(str(reference.get("name", "")), f"pods.env[{number}].valueFrom.secretKeyRef.name")
    return [(name, field) for name, field in found.items() if name]


async def _nodes(nodes: NodeList, observation: Observation, spec: OCRFineTuneSpec) -> list[Problem]:
    """Whether for each stage there is a node that is large enough when it is empty; a queue knows better."""
    known = await nodes.all()
    if known is None:
        return []
    problems: dict[str, Problem] = {}
    for stage in Stage:
        if spec.queue.name or spec.queue.stages.get(stage.value):
            continue
        template = _job(observation, spec, stage)["spec"]["template"]["spec"]
        selector = template.get("nodeSelector") or {}
        sizes = [size for labels, size in known if all(labels.get(key) == value for key, value in selector.items())]
        wanted = _requests(template)
        if any(all(_quantity(size.get(name, "0")) >= amount for name, amount in wanted.items()) for size in sizes):
            continue
        for name, amount in wanted.items():
            largest = max((_quantity(size.get(name, "0")) for size in sizes), default=Decimal(0))
            if largest < amount and name not in problems:
                problems[name] = _too_small(spec, stage, name, amount=amount, largest=largest, selector=selector)
        if wanted and not problems:
            message = f"pods.resources.{stage.value}: no node has all of what a pod wants at once"
            problems[""] = Problem(reason="NodeTooSmall", message=message)
    return list(problems.values())


def _too_small(
    spec: OCRFineTuneSpec, stage: Stage, name: str, *, amount: Decimal, largest: Decimal, selector: Mapping[str, str]
) -> Problem:
    where = f" with {', '.join(f'{k}={v}' for k, v in selector.items())}" if selector else ""
    device = name == spec.distributed.resource_name
    field = "distributed.devicesPerNode" if device else f"pods.resources.{stage.value}"
    advice = "Ask for fewer, set distributed.device: cpu," if device else "Ask for less,"
    message = (
        f"{field}: no node{where} has {amount:f} of {name}; the largest has {largest:f}. {advice} or, where nodes are "
        "made on demand, have the administrator turn off the check of nodes"
    )
    return Problem(reason="NodeTooSmall", message=message)


def _requests(template: Mapping[str, Any]) -> dict[str, Decimal]:
    """What all containers of a pod request together; a limit without a request is one."""
    found: dict[str, Decimal] = {}
    for container in template["containers"]:
        resources = container.get("resources") or {}
        for name, amount in ((resources.get("limits") or {}) | (resources.get("requests") or {})).items():
            found[name] = found.get(name, Decimal(0)) + _quantity(amount)
    return found


def _quantity(text: Any) -> Decimal:
    try:
        return Decimal(parse_quantity(str(text)))
    except (ValueError, ArithmeticError):
        return Decimal(0)


def _job(observation: Observation, spec: OCRFineTuneSpec, stage: Stage) -> Manifest:
    """The Job of the first attempt at a stage."""
    planned = plan(addresses.in_pod(spec))[stage]
    device = "cpu" if spec.distributed.device == "cpu" else "gpu"
    attempt = AttemptPlan(
        owner=observation.owner,
        spec=spec,
        stage=stage,
        number=1,
        nodes=planned.nodes,
        devices_per_node=planned.devices_per_node,
        device=device if pod.uses_device(stage, device) else "cpu",
        image=spec.pods.image or observation.rules.trainer_image,
        claim=spec.workspace.claim_name or names.claim(observation.owner.name),
        input_hash=planned.input_hash,
        installation=observation.rules.installation,
    )
    return job.build(attempt)


async def _dry_run(client: Client, observation: Observation, spec: OCRFineTuneSpec) -> list[Problem]:
    """Lets the API server check the largest of the Jobs to come."""
    manifest = _job(observation, spec, Stage.TRAIN)
    # A name that does not change: it stands in the message, and so in the status.
    manifest["metadata"]["name"] = f"{observation.owner.name}-check"
    try:
        await client.create(manifest, dry_run=True)
    except ConflictError:
        return []  # somebody has a Job of this name; it is no business of ours
    except ForbiddenError as error:
        return [Problem(reason="Forbidden", message=f"pods: {error.message[:600]}")]
    except InvalidError as error:
        message = f"pods: Kubernetes refuses such pods: {error.message[:600]}"
        return [Problem(reason="InvalidPods", message=message)]
    return []
