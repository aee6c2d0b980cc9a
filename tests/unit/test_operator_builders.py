"""What the operator makes of a spec, against golden files: `UPDATE_GOLDEN=1 pytest …` writes them anew."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from ocr_finetune_api.plan import Stage, plan
from ocr_finetune_api.run_config import RunConfig
from ocr_finetune_api.spec import OCRFineTuneSpec, PodsSpec
from ocr_finetune_operator import names
from ocr_finetune_operator.builders import addresses, claim, config_map, job, network_policy, pod, service
from ocr_finetune_operator.builders.attempt import AttemptPlan, Installation, Owner

GOLDEN = Path(__file__).parent / "golden"
OWNER = Owner(name="plates", namespace="ocr", uid="12345678-1234-1234-1234-123456789012")
SPEC: dict[str, Any] = {
    "model": {"name": "PP-OCRv5_mobile_rec", "pretrained": "pvc://models/best.pdparams"},
    "dataset": {
        "train": [
            {"name": "plates", "uri": "pvc://plates/train", "weight": 1},
            {"name": "general", "uri": "s3://general/lsvt", "weight": 1},
        ]
    },
    "distributed": {"nodes": 2, "devicesPerNode": 8, "topology": {"preferred": "topology.kubernetes.io/zone"}},
    "export": {"destination": "pvc://models/out"},
    "workspace": {"claimName": "work"},
    "credentials": [{"prefix": "s3://general", "secretName": "minio"}],
    "queue": {"name": "gpus", "stages": {"prepare": "cpus"}, "priorityClass": "high"},
    "pods": {
        "resources": {"train": {"limits": {"memory": "64Gi", "cpu": 16}}},
        "nodeSelector": {"gpu": "a100"},
        "env": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}],
        "podTemplate": {
            "metadata": {"labels": {"team": "ocr"}},
            "spec": {
                "priorityClassName": "low",
                "containers": [
                    {"name": "trainer", "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}]},
                    {"name": "sidecar", "image": "sidecar:1"},
                ],
                "volumes": [{"name": "scratch", "emptyDir": {}}],
            },
        },
    },
}


def _attempt(stage: Stage, **fields: Any) -> AttemptPlan:
    spec = OCRFineTuneSpec.model_validate(SPEC | fields.pop("spec", {}))
    planned = plan(addresses.in_pod(spec))[stage]
    values: dict[str, Any] = {
        "owner": OWNER,
        "spec": spec,
        "stage": stage,
        "number": 1,
        "nodes": planned.nodes,
        "devices_per_node": planned.devices_per_node,
        "device": "gpu",
        "image": "ocr-finetune-trainer:0.1.0",
        "claim": "work",
        "input_hash": "0" * 16,
    }
    return AttemptPlan(**(values | fields))


def _same(name: str, document: Any) -> None:
    path = GOLDEN / f"{name}.yaml"
    text = yaml.safe_dump(document, sort_keys=False)
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDEN.mkdir(exist_ok=True)
        path.write_text(text)
    assert path.read_text() == text


@pytest.mark.parametrize("stage", list(Stage))
def test_the_job_of_a_stage(stage: Stage) -> None:
    _same(f"job-{stage.value}", job.build(_attempt(stage)))


def test_service_network_policy_and_claim() -> None:
    spec = OCRFineTuneSpec.model_validate(
        SPEC | {"workspace": {"size": "50Gi", "storageClassName": "nfs", "reclaimPolicy": "Delete"}}
    )
    made = [
        service.build(OWNER, Installation()),
        network_policy.build(OWNER, Installation()),
        claim.build(OWNER, spec.workspace),
    ]
    _same("others", made)


def test_a_kept_claim_has_no_owner() -> None:
    spec = OCRFineTuneSpec.model_validate(SPEC | {"workspace": {"size": "50Gi"}})
    assert "ownerReferences" not in claim.build(OWNER, spec.workspace)["metadata"]


def test_the_run_configuration_is_what_the_trainer_reads() -> None:
    made = config_map.build(_attempt(Stage.TRAIN, number=3))
    assert made["immutable"] is True
    read = RunConfig.model_validate(yaml.safe_load(made["data"]["run.yaml"]))
    assert read.spec.dataset.train[0].uri == "/claims/plates/train"
    assert read.spec.dataset.train[1].uri == "s3://general/lsvt"
    assert read.rendezvous.host == "plates-train-3-0.plates-train"
    assert read.rendezvous.timeout_seconds == 40 * 60
    assert (read.nodes, read.devices_per_node, read.attempt, read.device) == (2, 8, 3, "gpu")


def test_names_fit_into_what_kubernetes_allows() -> None:
    longest = names.job("a" * 40, Stage.EVALUATE, 9999)
    assert len(longest) <= 57  # with -<index>: a host name of 63 characters
    assert len(names.rendezvous_host("a" * 40, 9999).split(".")[0]) <= 63


def test_no_path_leads_out_of_its_claim() -> None:
    spec = OCRFineTuneSpec.model_validate(SPEC | {"dataset": {"train": [{"uri": "pvc://plates/../../etc/passwd"}]}})
    assert addresses.in_pod(spec).dataset.train[0].uri == "/claims/plates/etc/passwd"


def test_shared_memory_counts_as_memory() -> None:
    (trainer, _) = job.build(_attempt(Stage.TRAIN))["spec"]["template"]["spec"]["containers"]
    assert trainer["resources"]["limits"]["memory"] == str((64 + 8) * 2**30)


def test_pods_keep_off_nodes_also_with_terms_of_the_users_own() -> None:
    terms = [{"matchExpressions": [{"key": "a", "operator": "Exists"}]}, {"matchExpressions": []}]
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}
    attempt = _attempt(Stage.TRAIN, spec={"pods": {"affinity": affinity}}, avoid_nodes=("bad",))
    required = pod.build(attempt)["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert all(
        term["matchFields"] == [{"key": "metadata.name", "operator": "NotIn", "values": ["bad"]}]
        for term in required["nodeSelectorTerms"]
    )


def test_clashes_of_the_pod_template_are_all_named() -> None:
    pods = PodsSpec.model_validate(
        {
            "env": [{"name": "OCRFT_X", "value": "1"}, {"name": "OCRFT_MODEL_HOME", "value": "/models"}],
            "podTemplate": {
                "spec": {
                    "restartPolicy": "Always",
                    "volumes": [{"name": "workspace", "emptyDir": {}}],
                    "containers": [{"name": "trainer", "command": ["sh"], "image": "x",
                                    "volumeMounts": [{"name": "a", "mountPath": "/dev/shm/"}]}],
                },
                "metadata": {"labels": {"ocrfinetune.dev/run": "other"}},
                "status": {},
            },
        }
    )  # fmt: skip
    said = "\n".join(pod.clashes(pods))
    for words in ("restartPolicy", "volumes[workspace]", "command", "write pods.image", "/dev/shm", "labels", "status",
                  "OCRFT_X"):  # fmt: skip
        assert words in said
    assert "OCRFT_MODEL_HOME" not in said
