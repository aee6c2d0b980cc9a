"""ConfigMaps: the run configuration of an attempt, and the spec that a run was accepted with. No secrets."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal, cast

from ocr_finetune_api.plan import Stage, content_hash
from ocr_finetune_api.run_config import Rendezvous, RunConfig, RunIdentity
from ocr_finetune_api.values import seconds
from ocr_finetune_operator import names
from ocr_finetune_operator.builders.addresses import in_pod
from ocr_finetune_operator.builders.attempt import AttemptPlan, Owner
from ocr_finetune_operator.constants import ANNOTATION_CONTENT, ANNOTATION_INPUT_HASH, LABEL_ATTEMPT, LABEL_STAGE


def run_config(attempt: AttemptPlan) -> RunConfig:
    """What the trainer gets to know."""
    policy = attempt.spec.policy
    # The trainer may wait for its peers as long as they may take to start, and then to meet.
    wait = seconds(policy.startup_timeout) + seconds(policy.rendezvous_timeout)
    return RunConfig(
        run=RunIdentity(name=attempt.owner.name, uid=attempt.owner.uid, namespace=attempt.owner.namespace),
        spec=in_pod(attempt.spec),
        attempt=attempt.number,
        nodes=attempt.nodes,
        devices_per_node=attempt.devices_per_node,
        device=cast(Literal["auto", "gpu", "cpu"], attempt.device),
        rendezvous=Rendezvous(
            host=names.rendezvous_host(attempt.owner.name, attempt.number)
            if attempt.stage is Stage.TRAIN
            else "127.0.0.1",
            port=attempt.installation.rendezvous_port,
            timeout_seconds=wait,
        ),
        metrics_port=attempt.installation.metrics_port,
        grace_period_seconds=seconds(policy.grace_period),
        stall_timeout_seconds=seconds(policy.stall_timeout),
    )


def build(attempt: AttemptPlan) -> dict[str, Any]:
    """The immutable ConfigMap of an attempt."""
    name = names.job(attempt.owner.name, attempt.stage, attempt.number)
    labels = {LABEL_STAGE: attempt.stage.value, LABEL_ATTEMPT: str(attempt.number)}
    data = {"run.yaml": run_config(attempt).to_yaml()}
    metadata = attempt.owner.metadata(name, labels=labels)
    metadata["annotations"] = {ANNOTATION_INPUT_HASH: attempt.input_hash, ANNOTATION_CONTENT: content_hash(data)}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "immutable": True, "data": data}


def build_snapshot(owner: Owner, *, spec_hash: str, document: Mapping[str, Any]) -> dict[str, Any]:
    """The immutable ConfigMap of an accepted spec; its name carries the hash."""
    data = {"accepted.json": json.dumps(document, ensure_ascii=False, sort_keys=True)}
    metadata = owner.metadata(names.snapshot(owner.name, spec_hash))
    metadata["annotations"] = {ANNOTATION_CONTENT: content_hash(data)}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "immutable": True, "data": data}
