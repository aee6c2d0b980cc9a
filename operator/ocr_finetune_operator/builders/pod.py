"""The pod of a stage: what the contract with the trainer needs, around what the run says about its pods."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from kubernetes.utils.quantity import parse_quantity

from ocr_finetune_api.plan import Stage
from ocr_finetune_api.spec import CredentialSpec, PodsSpec
from ocr_finetune_api.values import seconds
from ocr_finetune_operator import names
from ocr_finetune_operator.builders import addresses
from ocr_finetune_operator.builders.attempt import AttemptPlan
from ocr_finetune_operator.constants import (
    CONFIG_FILE,
    CONFIG_FOLDER,
    CONTAINER,
    CREDENTIALS_FOLDER,
    KUEUE_TOPOLOGY_PREFERRED,
    KUEUE_TOPOLOGY_REQUIRED,
    LABEL_ATTEMPT,
    LABEL_JOB_INDEX,
    LABEL_MANAGED_BY,
    LABEL_RUN,
    LABEL_STAGE,
    SHARED_MEMORY_FOLDER,
    WORKSPACE_FOLDER,
)

Manifest = dict[str, Any]

_WITH_CREDENTIALS = (Stage.PREPARE, Stage.EXPORT)
_OUR_LABELS = (LABEL_RUN, LABEL_STAGE, LABEL_ATTEMPT, LABEL_MANAGED_BY)
_OUR_SPEC = ("restartPolicy", "hostname", "subdomain", "setHostnameAsFQDN", "hostNetwork", "activeDeadlineSeconds",
             "terminationGracePeriodSeconds", "automountServiceAccountToken", "shareProcessNamespace")  # fmt: skip
_OUR_CONTAINER = ("command", "args", "image", "ports", "terminationMessagePath", "terminationMessagePolicy", "tty")
_OUR_ENV = ("PADDLE_", "OCRFT_", "JOB_COMPLETION_INDEX", "MASTER_ADDR", "MASTER_PORT")
# Where weights come from is an administrator's or a user's to say.
_USERS_ENV = ("OCRFT_MODEL_",)
_OUR_VOLUMES = ("workspace", "run-config", "shared-memory")
_OUR_VOLUME_PREFIXES = ("claim-", "credentials-")
_OUR_PATHS = (CONFIG_FOLDER, CREDENTIALS_FOLDER, WORKSPACE_FOLDER, SHARED_MEMORY_FOLDER)


def clashes(pods: PodsSpec) -> list[str]:
    """What a run says about its pods although it is the operator's to say; one sentence each."""
    template = pods.pod_template
    spec = _mapping(template.get("spec"))
    found = [f"pods.podTemplate.{key}: there is no such part of a pod template" for key in template
             if key not in ("metadata", "spec")]  # fmt: skip
    found += [f"pods.podTemplate.spec.{key} is set by the operator; remove it" for key in _OUR_SPEC if key in spec]
    labels = _mapping(_mapping(template.get("metadata")).get("labels"))
    found += [
        f"pods.podTemplate.metadata.labels[{key}] is set by the operator; remove it"
        for key in _OUR_LABELS
        if key in labels
    ]
    for container in _list(spec.get("containers")):
        if container.get("name") == CONTAINER:
            found += [
                f"pods.podTemplate.spec.containers[{CONTAINER}].{key} is set by the operator; "
                + ("write pods.image instead" if key == "image" else "remove it")
                for key in _OUR_CONTAINER
                if key in container
            ]
            found += _env_clashes(container.get("env"), f"pods.podTemplate.spec.containers[{CONTAINER}].env")
            found += [
                f"pods.podTemplate.spec.containers[{CONTAINER}].volumeMounts: {mount.get('mountPath')} is the "
                "operator's; mount it elsewhere"
                for mount in _list(container.get("volumeMounts"))
                if str(mount.get("mountPath")).rstrip("/") in _OUR_PATHS
            ]
    found += [
        f"pods.podTemplate.spec.volumes[{name}]: the operator has a volume of this name; take another"
        for name in (str(volume.get("name")) for volume in _list(spec.get("volumes")))
        if name in _OUR_VOLUMES or name.startswith(_OUR_VOLUME_PREFIXES)
    ]
    return found + _env_clashes(pods.env, "pods.env")


def build(attempt: AttemptPlan) -> Manifest:
    """The pod template of an attempt."""
    pods = attempt.spec.pods
    template = copy.deepcopy(dict(pods.pod_template))
    metadata = _mapping(template.get("metadata"))
    labels = _mapping(metadata.get("labels")) | attempt.labels()
    annotations = {"sidecar.istio.io/inject": "false", "linkerd.io/inject": "disabled"}
    annotations |= _mapping(metadata.get("annotations")) | _topology_annotations(attempt)
    spec = _mapping(template.get("spec"))
    others = [container for container in _list(spec.get("containers")) if container.get("name") != CONTAINER]
    own = next((c for c in _list(spec.get("containers")) if c.get("name") == CONTAINER), {})
    spec["securityContext"] = _pod_security(attempt) | _mapping(spec.get("securityContext"))
    spec |= _placement(attempt, spec)
    spec |= {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": seconds(attempt.spec.policy.grace_period),
        "containers": [_container(attempt, own), *others],
        "volumes": [*_volumes(attempt), *_list(spec.get("volumes"))],
    }
    spec.setdefault("enableServiceLinks", False)
    if attempt.stage is Stage.TRAIN:
        spec["subdomain"] = names.service(attempt.owner.name)
    return {"metadata": {"labels": labels, "annotations": annotations}, "spec": spec}


def _container(attempt: AttemptPlan, own: Manifest) -> Manifest:
    pods, stage = attempt.spec.pods, attempt.stage
    security = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    container = {
        **own,
        "name": CONTAINER,
        "image": attempt.image,
        # An init process: it hands signals on and reaps what a dying launcher leaves.
        "command": ["tini", "--", "ocrft", "stage", stage.value, "--config", CONFIG_FILE,
                    "--workspace", WORKSPACE_FOLDER],
        "env": [*_env(), *_list(own.get("env")), *(dict(entry) for entry in pods.env)],
        "ports": [{"name": "metrics", "containerPort": attempt.installation.metrics_port}],
        "resources": _resources(attempt, _mapping(own.get("resources"))),
        "securityContext": security | _mapping(own.get("securityContext")),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [*_mounts(attempt), *_list(own.get("volumeMounts"))],
    }  # fmt: skip
    if pods.env_from or own.get("envFrom"):
        container["envFrom"] = [*_list(own.get("envFrom")), *(dict(entry) for entry in pods.env_from)]
    if stage is Stage.TRAIN:
        container["ports"].append({"name": "rendezvous", "containerPort": attempt.installation.rendezvous_port})
    return container


def _env() -> list[Manifest]:
    def field(name: str, path: str) -> Manifest:
        return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}

    return [
        field("OCRFT_NODE_RANK", f"metadata.labels['{LABEL_JOB_INDEX}']"),
        field("OCRFT_POD_IP", "status.podIP"),
        field("OCRFT_POD_NAME", "metadata.name"),
        field("OCRFT_NODE_NAME", "spec.nodeName"),
        {"name": "OCRFT_CREDENTIALS", "value": CREDENTIALS_FOLDER},
    ]


def uses_device(stage: Stage, device: str) -> bool:
    """Whether a stage holds devices: preparing and exporting don't, so that they wait in no queue for them."""
    return device != "cpu" and stage in (Stage.TRAIN, Stage.EVALUATE)


def _resources(attempt: AttemptPlan, own: Manifest) -> Manifest:
    given = attempt.spec.pods.resources.get(attempt.stage.value)
    requests = _mapping(own.get("requests")) | (dict(given.requests) if given else {})
    limits = _mapping(own.get("limits")) | (dict(given.limits) if given else {})
    if uses_device(attempt.stage, attempt.device):
        name = attempt.spec.distributed.resource_name
        count = str(attempt.devices_per_node)
        limits[name] = count
        requests[name] = count
    if "memory" in limits:
        # Pages of /dev/shm count as the container's memory.
        limits["memory"] = _sum(str(limits["memory"]), attempt.spec.pods.shared_memory)
    resources = {"requests": _strings(requests), "limits": _strings(limits)}
    claims = [{"name": str(claim.get("name"))} for claim in attempt.spec.pods.resource_claims]
    return {key: value for key, value in resources.items() if value} | ({"claims": claims} if claims else {})


def _strings(quantities: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(quantity) for name, quantity in quantities.items()}


def _sum(first: str, second: str) -> str:
    """The sum of two quantities in whole bytes."""
    return str(int(parse_quantity(first) + parse_quantity(second)))


def _mounts(attempt: AttemptPlan) -> list[Manifest]:
    mounts: list[Manifest] = [
        {"name": "run-config", "mountPath": CONFIG_FOLDER, "readOnly": True},
        {"name": "workspace", "mountPath": WORKSPACE_FOLDER},
        {"name": "shared-memory", "mountPath": SHARED_MEMORY_FOLDER},
    ]
    for number, mount in enumerate(addresses.claims(attempt.spec, attempt.stage)):
        name = "workspace" if mount.claim == attempt.claim else f"claim-{number}"
        mounts.append({"name": name, "mountPath": mount.folder, "readOnly": mount.read_only})
    if attempt.stage in _WITH_CREDENTIALS:
        mounts += [
            {"name": f"credentials-{number}", "mountPath": f"{CREDENTIALS_FOLDER}/{secret}", "readOnly": True}
            for number, secret in enumerate(_secrets(attempt.spec.credentials))
        ]
    return mounts


def _volumes(attempt: AttemptPlan) -> list[Manifest]:
    volumes: list[Manifest] = [
        {
            "name": "run-config",
            "configMap": {"name": names.job(attempt.owner.name, attempt.stage, attempt.number)},
        },
        {"name": "workspace", "persistentVolumeClaim": {"claimName": attempt.claim}},
        {
            "name": "shared-memory",
            "emptyDir": {"medium": "Memory", "sizeLimit": attempt.spec.pods.shared_memory},
        },
    ]
    for number, mount in enumerate(addresses.claims(attempt.spec, attempt.stage)):
        if mount.claim != attempt.claim:
            claim = {"claimName": mount.claim, "readOnly": mount.read_only}
            volumes.append({"name": f"claim-{number}", "persistentVolumeClaim": claim})
    if attempt.stage in _WITH_CREDENTIALS:
        volumes += [
            {"name": f"credentials-{number}", "secret": {"secretName": secret, "defaultMode": 0o440}}
            for number, secret in enumerate(_secrets(attempt.spec.credentials))
        ]
    return volumes


def _secrets(credentials: list[CredentialSpec]) -> list[str]:
    return list(dict.fromkeys(credential.secret_name for credential in credentials))


def _pod_security(attempt: AttemptPlan) -> Manifest:
    context: Manifest = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    if attempt.installation.run_as_user is not None:
        context["runAsUser"] = attempt.installation.run_as_user
    if attempt.installation.fs_group is not None:
        # Else the kubelet changes the owner of every file of a large workspace at every start.
        context |= {"fsGroup": attempt.installation.fs_group, "fsGroupChangePolicy": "OnRootMismatch"}
    return context


def _placement(attempt: AttemptPlan, template: Manifest) -> Manifest:
    pods = attempt.spec.pods
    placed: Manifest = {}
    if pods.node_selector:
        placed["nodeSelector"] = _mapping(template.get("nodeSelector")) | dict(pods.node_selector)
    if pods.tolerations:
        placed["tolerations"] = [*_list(template.get("tolerations")), *(dict(t) for t in pods.tolerations)]
    affinity = copy.deepcopy(dict(pods.affinity)) or _mapping(template.get("affinity"))
    affinity = _with_topology(affinity, attempt)
    affinity = _without_nodes(affinity, attempt.avoid_nodes)
    if affinity:
        placed["affinity"] = affinity
    named = {
        "priorityClassName": pods.priority_class_name,
        "runtimeClassName": pods.runtime_class_name,
        "schedulerName": pods.scheduler_name,
        "serviceAccountName": pods.service_account_name or attempt.installation.service_account,
    }
    placed |= {key: value for key, value in named.items() if value}
    secrets = [dict(entry) for entry in pods.image_pull_secrets]
    secrets += [{"name": name} for name in attempt.installation.image_pull_secrets]
    if secrets:
        placed["imagePullSecrets"] = secrets
    if pods.resource_claims:
        placed["resourceClaims"] = [dict(claim) for claim in pods.resource_claims]
    return placed


def _topology_annotations(attempt: AttemptPlan) -> dict[str, str]:
    topology = attempt.spec.distributed.topology
    if attempt.stage is not Stage.TRAIN or not queue_of(attempt):
        return {}
    annotations = {KUEUE_TOPOLOGY_PREFERRED: topology.preferred, KUEUE_TOPOLOGY_REQUIRED: topology.required}
    return {key: value for key, value in annotations.items() if value}


def queue_of(attempt: AttemptPlan) -> str:
    """The LocalQueue of the stage; empty if it is not queued."""
    queue = attempt.spec.queue
    return queue.stages.get(attempt.stage.value) or queue.name


def _with_topology(affinity: Manifest, attempt: AttemptPlan) -> Manifest:
    """Keeps the pods of a training together; where they are queued, the queue does it."""
    topology = attempt.spec.distributed.topology
    if attempt.stage is not Stage.TRAIN or attempt.nodes == 1 or queue_of(attempt):
        return affinity
    selector = {"matchLabels": {LABEL_RUN: attempt.owner.name, LABEL_STAGE: attempt.stage.value}}
    pod_affinity = _mapping(affinity.get("podAffinity"))
    if topology.required:
        term = {"labelSelector": selector, "topologyKey": topology.required}
        key = "requiredDuringSchedulingIgnoredDuringExecution"
        pod_affinity[key] = [*_list(pod_affinity.get(key)), term]
    if topology.preferred:
        term = {"labelSelector": selector, "topologyKey": topology.preferred}
        key = "preferredDuringSchedulingIgnoredDuringExecution"
        pod_affinity[key] = [*_list(pod_affinity.get(key)), {"weight": 100, "podAffinityTerm": term}]
    return affinity | ({"podAffinity": pod_affinity} if pod_affinity else {})


def _without_nodes(affinity: Manifest, nodes: tuple[str, ...]) -> Manifest:
    if not nodes:
        return affinity
    avoid = {"key": "metadata.name", "operator": "NotIn", "values": list(nodes)}
    node_affinity = _mapping(affinity.get("nodeAffinity"))
    key = "requiredDuringSchedulingIgnoredDuringExecution"
    required = _mapping(node_affinity.get(key))
    # Terms are alternatives: each of them has to keep off the nodes.
    terms = _list(required.get("nodeSelectorTerms")) or [{}]
    required["nodeSelectorTerms"] = [
        term | {"matchFields": [*_list(term.get("matchFields")), *({**avoid, "values": [n]} for n in nodes)]}
        for term in terms
    ]
    return affinity | {"nodeAffinity": node_affinity | {key: required}}


def _env_clashes(entries: Any, where: str) -> list[str]:
    return [
        f"{where}[{name}] is set by the operator or the launcher; remove it"
        for name in (str(entry.get("name")) for entry in _list(entries))
        if name.startswith(_OUR_ENV) and not name.startswith(_USERS_ENV)
    ]


def _mapping(value: Any) -> Manifest:
    return dict(value) if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Manifest]:
    return [dict(item) for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []
