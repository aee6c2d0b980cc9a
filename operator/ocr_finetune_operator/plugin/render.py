"""The Kubernetes objects that a manifest would become, without a cluster."""

from __future__ import annotations

from typing import Any

from ocr_finetune_api.manifest import OCRFineTune
from ocr_finetune_api.plan import plan
from ocr_finetune_operator import names, profiles
from ocr_finetune_operator.builders import claim, config_map, job, network_policy, pod, service
from ocr_finetune_operator.builders.addresses import in_pod
from ocr_finetune_operator.builders.attempt import AttemptPlan, Installation, Owner

NO_UID = "00000000-0000-0000-0000-000000000000"


def objects(manifest: OCRFineTune, *, image: str, profile: profiles.Profile | None = None) -> list[dict[str, Any]]:
    """What the operator would make for the first attempt at each stage."""
    spec = profiles.apply(manifest.spec, profile)
    owner = Owner(name=manifest.metadata.name, namespace=manifest.metadata.namespace or "default", uid=NO_UID)
    installation = Installation()
    made: list[dict[str, Any]] = []
    if not spec.workspace.claim_name:
        made.append(claim.build(owner, spec.workspace))
    made += [network_policy.build(owner, installation), service.build(owner, installation)]
    device = "cpu" if spec.distributed.device == "cpu" else "gpu"
    for planned in plan(in_pod(spec)).stages:
        attempt = AttemptPlan(
            owner=owner,
            spec=spec,
            stage=planned.stage,
            number=1,
            nodes=planned.nodes,
            devices_per_node=planned.devices_per_node,
            device=device if pod.uses_device(planned.stage, device) else "cpu",
            image=spec.pods.image or image,
            claim=spec.workspace.claim_name or names.claim(owner.name),
            input_hash=planned.input_hash,
            installation=installation,
        )
        made += [config_map.build(attempt), job.build(attempt)]
    return made
