"""Mistakes are told at `kubectl apply`, or where only the cluster can know, within seconds as a condition."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from kube_testing.client import ApiError, Manifest
from kube_testing.processes import wait_for
from operator_testing import ROOT, Operator, World, make_claim, manifest

from ocr_finetune_api import crd
from ocr_finetune_api.spec import OCRFineTuneSpec

TRAIN = {"train": [{"uri": "pvc://work/plates"}]}
TWO = [{"name": "a", "uri": "pvc://a", "weight": 1}, {"name": "b", "uri": "pvc://b"}]

# What is wrong, and what the API server says about it.
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "unknown field": ({"trainig": {}}, "unknown field"),
    "unknown model": ({"model": {"name": "PP-OCRv9"}}, 'Unsupported value: "PP-OCRv9"'),
    "no data": ({"dataset": {"train": []}}, "spec.dataset.train"),
    "duration": ({"policy": {"gracePeriod": "2 minutes"}}, "spec.policy.gracePeriod"),
    "rate": ({"training": {"learningRate": "fast"}}, "spec.training.learningRate"),
    "negative rate": ({"training": {"learningRate": -1}}, "spec.training.learningRate"),
    "rate as an object": ({"training": {"learningRate": {"a": 1}}}, "spec.training.learningRate"),
    "epochs": ({"training": {"epochs": 0}}, "spec.training.epochs"),
    "half an epoch": ({"training": {"epochs": 1.5}}, "spec.training.epochs"),
    "format": ({"dataset": {"train": [{"uri": "x", "format": "zip"}]}}, "Unsupported value"),
    "fraction and uri": (
        {"dataset": TRAIN | {"validation": {"fraction": 0.1, "uri": "x"}}},
        "give either a fraction of the training data or a uri of its own, not both",
    ),
    "some weights": ({"dataset": {"train": TWO}}, "give a weight to each source of dataset.train or to none"),
    "rare characters and weights": (
        {"dataset": {"train": [{"name": "a", "uri": "x", "weight": 1}], "rareCharacters": "oversample"}},
        "dataset.rareCharacters and weights of sources can't be combined",
    ),
    "equal names": (
        {"dataset": {"train": [{"name": "a", "uri": "x"}, {"name": "a", "uri": "y"}]}},
        "the names of dataset.train must differ",
    ),
    "min nodes": ({"distributed": {"nodes": 1, "minNodes": 2}}, "minNodes must not be above nodes"),
    "two workspaces": ({"workspace": {"claimName": "a", "size": "1Gi"}}, "give either the name of a claim or the size"),
    "workspace of one node": (
        {"workspace": {"size": "1Gi", "accessModes": ["ReadWriteOnce"]}, "distributed": {"nodes": 2}},
        "which needs ReadWriteMany",
    ),
    "precision": (
        {"distributed": {"device": "cpu"}, "training": {"precision": "bf16"}},
        "training.precision: CPUs train in fp32",
    ),
    "long name": ({}, "metadata.name: at most 40"),
    "1000 sources": ({"dataset": {"train": [{"name": f"s{n}", "uri": "x"} for n in range(1000)]}}, "at most 32 items"),
    "a long address": ({"dataset": {"train": [{"uri": "x" * 20000}]}}, "Too long"),
}


def _rules(*, of_changes: bool = False) -> set[str]:
    """The messages of all CEL rules that hold for a new object, or for a change."""

    def walk(schema: Any) -> Any:
        if isinstance(schema, dict):
            for rule in schema.get("x-kubernetes-validations", ()):
                if ("oldSelf" in rule["rule"]) == of_changes:
                    yield rule["message"]
            for value in schema.values():
                yield from walk(value)
        elif isinstance(schema, list):
            for value in schema:
                yield from walk(value)

    return set(walk(crd.crd()))


def test_every_mistake_is_refused_with_its_message(world: World) -> None:
    said = ""
    for name, (spec, words) in REFUSED.items():
        run = manifest(world.namespace, "a" * 41 if name == "long name" else "plates", **spec)
        with pytest.raises(ApiError, match=re.escape(words)) as refused:
            world.kube.create(run)
        said += refused.value.message
    assert not {message for message in _rules() if message not in said}


@pytest.mark.parametrize("name", ["Plates", "1plates", "plates-", "pla.tes"])
def test_names_that_no_service_could_have_are_refused(world: World, name: str) -> None:
    with pytest.raises(ApiError):
        world.create(name)


def test_the_api_server_fills_in_the_same_defaults_as_ocrft(world: World) -> None:
    written = manifest(world.namespace)["spec"]
    stored = world.create()["spec"]
    assert OCRFineTuneSpec.model_validate(stored) == OCRFineTuneSpec.model_validate(written)


@pytest.mark.parametrize(
    "path",
    sorted((ROOT / "examples").glob("*/*.yaml")),
    ids=lambda path: f"{path.parent.name}/{path.stem}",
)
def test_examples_are_accepted(world: World, path: Path) -> None:
    for document in yaml.safe_load_all(path.read_text()):
        # Kueue's resources are not installed here, and values are no objects.
        if document and "kind" in document and "kueue" not in document["apiVersion"]:
            text = yaml.safe_dump(document)
            done = world.plane.kubectl(
                "create", "--validate=strict", "--dry-run=server", "-n", world.namespace, "-f", "-", manifest=text
            )
            assert "created" in done.stdout


def test_explain_reads_well(world: World) -> None:
    said = world.plane.kubectl("explain", "ocrft.spec.policy.stallTimeout").stdout
    assert "Without a step." in said
    assert "FIELD: stallTimeout <string>" in said


# What only the cluster knows: reason and words of the condition.
NOT_ACCEPTED: dict[str, tuple[dict[str, Any], str, str]] = {
    "workspace": ({"workspace": {}}, "WorkspaceMissing", "give claimName"),
    "claim": ({"workspace": {"claimName": "nowhere"}}, "ClaimMissing", "there is no claim 'nowhere'"),
    "data": ({"dataset": {"train": [{"uri": "pvc://lost/x"}]}}, "ClaimMissing", "pvc://lost"),
    "shared": (
        {"workspace": {"claimName": "single"}, "distributed": {"nodes": 2}},
        "ClaimNotShared",
        "needs ReadWriteMany",
    ),
    "secret": ({"credentials": [{"prefix": "s3://a", "secretName": "minio"}]}, "SecretMissing", "'minio'"),
    "class": ({"workspace": {"size": "1Gi", "storageClassName": "fast"}}, "StorageClassMissing", "'fast'"),
    "node": ({"distributed": {"device": "gpu", "devicesPerNode": 64}}, "NodeTooSmall", "the largest has 8"),
    "memory": (
        {"pods": {"resources": {"evaluate": {"requests": {"memory": "1Ti"}}}}},
        "NodeTooSmall",
        "pods.resources.evaluate: no node has 1099511627776 of memory",
    ),
    "limit": (
        {"pods": {"sharedMemory": "1Ti", "resources": {"train": {"limits": {"memory": "8Gi"}}}}},
        "NodeTooSmall",
        "pods.resources.train: no node has",
    ),
    "profile": ({"profile": "a100"}, "ProfileUnknown", "there is no profile 'a100'"),
    "template": (
        {"pods": {"podTemplate": {"spec": {"restartPolicy": "Always", "hostNetwork": True}}}},
        "InvalidPodTemplate",
        "podTemplate.spec.hostNetwork is set by the operator",
    ),
    "environment": ({"pods": {"env": [{"name": "PADDLE_MASTER", "value": "x"}]}}, "InvalidPodTemplate", "PADDLE_"),
    "quantity": ({"pods": {"sharedMemory": "a lot"}}, "InvalidQuantity", "is not a quantity"),
    "pods": ({"pods": {"nodeSelector": {"no good key!": "x"}}}, "InvalidPods", "Kubernetes refuses such pods"),
}


# What is changed, of a run in which evaluation goes on, and what the API server says about it.
FIXED: dict[str, tuple[dict[str, Any], str]] = {
    "profile": ({"profile": "other"}, "spec.profile is fixed once the run is accepted"),
    "model": ({"model": {"guidance": "drop"}}, "spec.model is fixed once the run is accepted"),
    "dataset": ({"dataset": {"groupBy": "none"}}, "spec.dataset is fixed once the run is accepted"),
    "workspace": ({"workspace": {"claimName": "other"}}, "spec.workspace is fixed once the run is accepted"),
    "credentials": (
        {"credentials": [{"prefix": "s3://", "secretName": "a"}]},
        "spec.credentials is fixed once the run is accepted",
    ),
    "training": ({"training": {"batchSize": 8}}, "spec.training is fixed once the run is accepted; only epochs"),
    "more epochs": ({"training": {"epochs": 20}}, "spec.training.epochs may only be raised, and only until"),
    "fewer epochs": ({"training": {"epochs": 5}}, "spec.training.epochs may only be raised, and only until"),
    "distributed": ({"distributed": {"nodes": 2}}, "spec.distributed may change only while the run is pending"),
    "queue": ({"queue": {"name": "other"}}, "spec.queue may change only while the run is pending or suspended"),
    "pods": ({"pods": {"image": "other"}}, "spec.pods may change only while the run is pending or suspended"),
    "evaluation": ({"evaluation": {"gate": {"min": 0.1}}}, "spec.evaluation is fixed once its stage has started"),
}


@pytest.mark.usefixtures("alone")
def test_every_change_that_may_not_be_is_refused_with_its_message(world: World) -> None:
    """No operator works here, or it would put right what the test says in its place."""
    world.create(training={"epochs": 10})
    stages = [{"name": "train", "state": "Succeeded"}, {"name": "evaluate", "state": "Running"}]
    status = {"specHash": "x", "phase": "Evaluating", "stages": stages}

    def becomes(**changes: Any) -> None:
        world.kube.patch("OCRFineTune", "plates", world.namespace, {"status": status | changes}, subresource="status")

    said = ""

    def refused(spec: dict[str, Any], words: str) -> str:
        with pytest.raises(ApiError, match=re.escape(words)) as refusal:
            world.patch(spec)
        return refusal.value.message

    becomes()
    for spec, words in FIXED.values():
        said += refused(spec, words)
    world.patch({"policy": {"maxRestarts": 9}, "export": {"quantize": "int8"}})
    becomes(stages=[{"name": "export", "state": "Running"}])
    said += refused({"export": {"quantize": "none"}}, "spec.export is fixed once its stage has started")
    assert not {message for message in _rules(of_changes=True) if message not in said}
    becomes(phase="Training", stages=[{"name": "train", "state": "Running"}])
    world.patch({"training": {"epochs": 20}, "evaluation": {"gate": {"min": 0.1}}})
    becomes(phase="Suspended", stages=[{"name": "train", "state": "Running"}])
    world.patch({"distributed": {"nodes": 2}, "queue": {"name": "other"}, "pods": {"image": "other"}})
    becomes(specHash=None, phase="Pending", stages=None)
    world.patch({"model": {"guidance": "drop"}})  # not accepted yet: a draft


def test_what_only_the_cluster_knows_is_told_within_seconds_without_a_loop(operator: Operator, world: World) -> None:
    make_claim(world.plane, world.namespace, "single", mode="ReadWriteOnce")
    for name, (spec, _, _) in NOT_ACCEPTED.items():
        world.create(name, **spec)
    for name, (_, reason, words) in NOT_ACCEPTED.items():
        said = world.condition("Accepted", "False", name)
        assert (name, said["reason"]) == (name, reason)
        assert words in said["message"]
    before = {name: _version(world, name) for name in NOT_ACCEPTED}
    assert world.kube.list("Job", world.namespace) == []
    wait_for(lambda: len(world.events("ClaimMissing")) == 2, describe="one event each")
    # What was missing comes, or what was wrong is mended: nothing else has to be done.
    make_claim(world.plane, world.namespace, "nowhere")
    world.patch({"pods": {"sharedMemory": "1Gi"}}, "quantity")
    for name in ("claim", "quantity"):
        world.condition("Accepted", name=name)
        world.job(f"{name}-prepare-1")
    for name in set(NOT_ACCEPTED) - {"claim", "quantity"}:
        assert _version(world, name) == before[name]


def _version(world: World, name: str) -> str:
    found = world.kube.get("OCRFineTune", name, world.namespace)
    assert found is not None
    version: str = found["metadata"]["resourceVersion"]
    return version


def test_a_claim_that_kubernetes_refuses_is_told(operator: Operator, world: World) -> None:
    world.create(workspace={"size": "1Gi", "storageClassName": "Not A Name"})
    world.create("quota", workspace={"size": "5Gi"})
    said = world.condition("Accepted", "False")
    assert said["reason"] in ("StorageClassMissing", "Refused")
    world.condition("Accepted", name="quota")
    limit: Manifest = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "storage", "namespace": world.namespace},
        "spec": {"hard": {"requests.storage": "6Gi"}},
    }
    _limit(world, limit)
    large: Manifest = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "large", "namespace": world.namespace},
        "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "50Gi"}}},
    }
    wait_for(lambda: world.kube.would_create(large) == requests.codes.forbidden, describe="the quota to hold")
    world.create("greedy", workspace={"size": "50Gi"})
    said = world.condition("Accepted", "False", "greedy")
    assert said["reason"] == "Forbidden"
    assert "exceeded quota" in said["message"]
    # Nor are Jobs allowed any more.
    limit["metadata"]["name"], limit["spec"] = "jobs", {"hard": {"count/jobs.batch": "0"}}
    _limit(world, limit)
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "one", "namespace": world.namespace},
        "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "a", "image": "b"}]}}},
    }
    wait_for(lambda: world.kube.would_create(job) == requests.codes.forbidden, describe="the quota of Jobs to hold")
    world.create("jobless")
    said = world.condition("Accepted", "False", "jobless")
    assert said["reason"] == "Forbidden"
    assert "exceeded quota: jobs" in said["message"]


def _limit(world: World, quota: Manifest) -> None:
    """Makes a quota and waits until what is used of it is known; whether it holds yet is another question."""
    world.kube.create(quota)
    name = quota["metadata"]["name"]
    world.kube.wait("ResourceQuota", name, world.namespace, lambda one: one.get("status", {}).get("used"))


def test_what_gets_past_the_schema_is_unparseable_and_harmless(operator: Operator, world: World) -> None:
    # The schema has no type for "auto or a fraction": true gets through.
    world.create("odd", training={"ema": True})
    world.create(training={"clipNorm": 2})
    assert world.job("plates-prepare-1")
    said = world.condition("Accepted", "False", "odd")
    assert said["reason"] == "Unparseable"
    assert "spec.training.ema" in said["message"]
    world.patch({"training": {"ema": 0.99}}, "odd")
    assert world.job("odd-prepare-1")
