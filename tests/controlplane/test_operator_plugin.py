"""`kubectl ocrft` with a user's rights, through the real kubectl."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from kube_testing import binaries
from kube_testing.processes import wait_for
from operator_testing import ROOT, Operator, World, fails, progress_server, result, succeeds

from ocr_finetune_api.plan import Stage

# What the role `edit` gives in a namespace, as far as runs are concerned.
USER = [
    {"apiGroups": ["ocrfinetune.dev"], "resources": ["ocrfinetunes"], "verbs": ["get", "list", "patch"]},
    {"apiGroups": [""], "resources": ["pods", "pods/log"], "verbs": ["get", "list", "watch", "create", "delete"]},
    {"apiGroups": [""], "resources": ["pods/exec"], "verbs": ["create", "get"]},
]


class User:
    """Somebody with kubectl, the plugin, and rights in one namespace."""

    def __init__(self, world: World, folder: Path) -> None:
        self._kubeconfig = world.plane.service_account(
            name="user", namespace=world.namespace, rules=USER, only_namespace=True
        )
        self._namespace = world.namespace
        for name, call in (("kubectl-ocrft", "main"), ("kubectl_complete-ocrft", "complete")):
            script = folder / name
            script.write_text(
                f"#!{sys.executable}\nimport sys\nsys.argv[0] = 'kubectl ocrft'\n"
                f"from ocr_finetune_operator.plugin import cli\ncli.{call}()\n"
            )
            script.chmod(0o755)
        (folder / "kubectl").symlink_to(binaries.find("kubectl"))
        self._path = f"{folder}:{os.environ['PATH']}"

    def ocrft(self, *arguments: str, ok: bool = True, program: str = "kubectl ocrft") -> str:
        """What `kubectl ocrft …` prints, both channels."""
        where = [] if "complete" in program else ["-n", self._namespace]
        done = subprocess.run(
            [*program.split(), *where, *arguments],
            env=os.environ | {"PATH": self._path, "KUBECONFIG": str(self._kubeconfig), "COLUMNS": "160"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode == 0) == ok, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout + done.stderr


@pytest.fixture
def user(world: World, tmp_path: Path) -> User:
    """A user."""
    return User(world, tmp_path)


def test_the_life_of_a_run_from_a_terminal(operator: Operator, world: World, user: User) -> None:
    succeeds(world.pods, Stage.PREPARE)
    world.pods.log("step 1\nstep 2")
    world.create()
    (pod,) = world.running("plates-train-1")
    document = {"stage": "train", "attempt": 1, "activity": "training", "percent": 12.5, "step": 5, "steps": 40}
    with progress_server(pod["status"]["podIP"], lambda: document):
        world.wait(lambda s: s.get("progress", {}).get("step") == 5)
    assert "plates" in user.ocrft("status")
    said = user.ocrft("status", "plates")
    assert "✓ prepare" in said
    assert "12.5 %, step 5 of 40" in said
    assert wait_for(lambda: "step 2" in user.ocrft("logs", "plates", "--rank", "0", "--tail", "1"), describe="the log")
    assert "train" in user.ocrft("attempts", "plates")
    assert "no such attempt" in user.ocrft("logs", "plates", "--attempt", "7", ok=False)
    assert "has no report on the evaluation yet" in user.ocrft("report", "plates", ok=False)
    user.ocrft("suspend", "plates")
    world.wait_phase("Suspended")
    assert "has not failed" in user.ocrft("retry", "plates", ok=False)
    user.ocrft("resume", "plates")
    world.running("plates-train-2")
    assert "step 1" in user.ocrft("logs", "plates", "--stage", "train")
    user.ocrft("stop", "plates")
    world.wait_phase("Failed")
    assert "somebody asked for a stop" in user.ocrft("status", "plates", "--watch")
    user.ocrft("retry", "plates")
    world.running("plates-train-3")


def test_a_failure_is_shown_with_its_place_log_and_hint(operator: Operator, world: World, user: User) -> None:
    world.pods.log("the last words")
    fails(world.pods, Stage.PREPARE, 65, message="3 of 4 labels name no picture", hint="write them as paths")
    world.create()
    world.wait_phase("Failed")
    said = user.ocrft("status", "plates")
    for words in ("Data in prepare: 3 of 4 labels name no picture", "hint: write them as paths", "the last words"):
        assert words in said


def test_a_report_is_asked_for_and_nothing_is_left_behind(
    operator: Operator, world: World, user: User, tmp_path: Path
) -> None:
    succeeds(world.pods, Stage.TRAIN, Stage.EVALUATE, Stage.EXPORT)
    message = result(Stage.PREPARE, artifacts={"report": "data/report.html"})
    world.pods.succeeds(message=message, labels={"ocrfinetune.dev/stage": "prepare"})
    world.create()
    status = world.wait_phase("Succeeded")
    assert status["artifacts"]["dataReport"].endswith("/data/report.html")
    # There is no kubelet here to run `cat`: the error is told, and the pod is gone.
    user.ocrft("report", "plates", "--data", "-o", str(tmp_path / "report.html"), ok=False)
    pods = [pod["metadata"]["name"] for pod in world.kube.list("Pod", world.namespace)]
    assert not [name for name in pods if "report" in name]


def test_mistakes_are_one_clear_message(world: World, user: User) -> None:
    assert "not found" in user.ocrft("status", "nowhere", ok=False)
    assert "NotFound" in user.ocrft("suspend", "nowhere", ok=False)


def test_completion_knows_commands_and_runs(operator: Operator, world: World, user: User) -> None:
    said = user.ocrft("su", program="kubectl_complete-ocrft")
    assert said.splitlines() == ["suspend", ":4"]


def test_render_needs_no_cluster(user: User, tmp_path: Path) -> None:
    source = ROOT / "examples" / "digits" / "kubernetes.yaml"
    made = list(yaml.safe_load_all(user.ocrft("render", str(source))))
    kinds = [(one["kind"], one["metadata"]["name"]) for one in made]
    assert ("Job", "digits-train-1") in kinds
    assert len(kinds) == len(set(kinds)) == 10
