"""What an administrator's profiles make of runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kube_testing.client import Manifest
from kube_testing.control_plane import ControlPlane
from operator_testing import PATIENCE, Operator, World, succeeds

from ocr_finetune_api.plan import Stage

PROFILES: dict[str, Any] = {
    "default": {"env": {"WEIGHTS": "mirror"}},
    "a100-ib": {
        "description": "Nodes with A100 and InfiniBand",
        "pods": {
            "image": "registry.example/trainer:rdma",
            "sharedMemory": "2Gi",
            "tolerations": [{"key": "gpu", "operator": "Exists"}],
            "priorityClassName": "",
            "env": [],
        },
        "queue": {"name": "a100", "stages": {"prepare": "cpus"}},
        "distributed": {"devicesPerNode": 8, "resourceName": "nvidia.com/gpu"},
        "policy": {"maxRestarts": 7},
        "env": {"NCCL_IB_HCA": "mlx5", "OCRFT_MODEL_MIRROR": "http://mirror/weights"},
    },
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The file that the chart mounts."""
    path = tmp_path / "profiles.yaml"
    path.write_text(yaml.safe_dump(PROFILES))
    return path


@pytest.fixture
def administered(plane: ControlPlane, installed: Path, world: World, file: Path, alone: None) -> Iterator[Operator]:
    """An operator with profiles."""
    operator = Operator(plane, kubeconfig=installed, name="administered", profiles=str(file))
    yield operator.wait_ready()
    plane.forget(operator.process)


def _container(job: Manifest) -> Manifest:
    found: Manifest = job["spec"]["template"]["spec"]["containers"][0]
    return found


def _env(job: Manifest) -> dict[str, str]:
    return {entry["name"]: entry["value"] for entry in _container(job)["env"] if "value" in entry}


def test_a_profile_decides_what_the_run_leaves_open(administered: Operator, world: World) -> None:
    succeeds(world.pods)
    gpus = {"device": "gpu"}
    world.create(profile="a100-ib", distributed=gpus)
    world.create("own", profile="a100-ib", distributed=gpus, pods={"image": "mine:1"}, queue={"name": "other"})
    world.create("plain")
    prepare, train = world.job("plates-prepare-1"), world.job("plates-train-1")
    queues = [one["metadata"]["labels"].get("kueue.x-k8s.io/queue-name") for one in (prepare, train)]
    assert queues == ["cpus", "a100"]
    assert _container(train)["image"] == "registry.example/trainer:rdma"
    assert _container(train)["resources"]["limits"]["nvidia.com/gpu"] == "8"
    assert {"key": "gpu", "operator": "Exists"} in train["spec"]["template"]["spec"]["tolerations"]
    assert {"NCCL_IB_HCA": "mlx5", "OCRFT_MODEL_MIRROR": "http://mirror/weights"}.items() <= _env(train).items()
    volumes = train["spec"]["template"]["spec"]["volumes"]
    assert [one["emptyDir"]["sizeLimit"] for one in volumes if "emptyDir" in one] == ["2Gi"]
    configuration = world.kube.get("ConfigMap", "plates-train-1", world.namespace)
    assert configuration is not None
    assert "devicesPerNode: 8" in configuration["data"]["run.yaml"]
    status = world.wait_phase("Succeeded")
    assert (status["resolved"]["profile"], status["resolved"]["image"]) == (
        "a100-ib",
        "registry.example/trainer:rdma",
    )
    # What a run says itself wins; a run that names none gets the one called default.
    own = world.job("own-train-1")
    assert _container(own)["image"] == "mine:1"
    assert own["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "other"
    plain = world.job("plain-train-1")
    assert _env(plain)["WEIGHTS"] == "mirror"
    assert "NCCL_IB_HCA" not in _env(plain)


def test_a_run_keeps_the_profile_it_was_accepted_with(administered: Operator, world: World, file: Path) -> None:
    succeeds(world.pods, Stage.PREPARE)
    world.create(profile="a100-ib", distributed={"device": "gpu"})
    world.running("plates-train-1")
    file.write_text(yaml.safe_dump({"a100-ib": {"pods": {"image": "registry.example/trainer:next"}}}))
    administered.process.kill()
    administered.process.start()
    administered.wait_ready()
    world.kube.delete("Pod", world.running("plates-train-1")[0]["metadata"]["name"], world.namespace)
    assert _container(world.job("plates-train-2"))["image"] == "registry.example/trainer:rdma"
    # A profile may go: a run that has begun does not need it any more, a new one is told.
    file.write_text("{}")
    administered.process.kill()
    administered.process.start()
    administered.wait_ready()
    world.create("late", profile="a100-ib")
    assert world.condition("Accepted", "False", "late")["reason"] == "ProfileUnknown"
    world.kube.delete("Pod", world.running("plates-train-2")[0]["metadata"]["name"], world.namespace)
    assert _container(world.job("plates-train-3"))["image"] == "registry.example/trainer:rdma"


def test_mistakes_in_profiles_are_all_told_at_the_start(plane: ControlPlane, installed: Path, file: Path) -> None:
    wrong = {"a": {"pods": {"imagge": "x"}}, "b": {"policy": {"maxRestarts": -1}}, "c": {"queues": {}}}
    file.write_text(yaml.safe_dump(wrong))
    operator = Operator(plane, kubeconfig=installed, name="wrong", profiles=str(file), preloaded=False)
    assert operator.process.wait(timeout=PATIENCE) != 0
    said = operator.process.log.read_text()
    for words in ("a.pods.imagge", "b.policy.maxRestarts", "c.queues"):
        assert words in said, said
    assert "Traceback" not in said
    plane.forget(operator.process)
