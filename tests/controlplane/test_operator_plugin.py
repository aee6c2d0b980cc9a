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
from operator_testing import PATIENCE, ROOT, Operator, World, fails, progress_server, result, succeeds

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
        self._env = {
            "PATH": f"{folder}:{os.environ['PATH']}",
            "KUBECONFIG": str(self._kubeconfig),
            # Another cluster may have been at this port before.
            "KUBECACHEDIR": str(folder / "cache"),
            "COLUMNS": "160",
        }

    def ocrft(self, *arguments: str, ok: bool = True, program: str = "kubectl ocrft") -> str:
        """What `kubectl ocrft …` prints, both channels."""
        where = ["-n", self._namespace]
        done = subprocess.run(
            [*program.split(), *where, *arguments],
            env=os.environ | self._env,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
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


def test_reports_are_fetched_and_nothing_is_left_behind(
    operator: Operator, world: World, user: User, tmp_path: Path
) -> None:
    for stage, report in ((Stage.PREPARE, "data/report.html"), (Stage.EVALUATE, "evaluation/report.html")):
        message = result(stage, artifacts={"report": report})
        world.pods.succeeds(message=message, labels={"ocrfinetune.dev/stage": stage.value})
    # No kubelet: a command runs here, in what would be the claim.
    folder = tmp_path / "claim"
    folder.mkdir()
    world.pods.runs_commands(folder)
    world.create()
    (pod,) = world.running("plates-train-1")
    look = ("exec", pod["metadata"]["name"], "-n", world.namespace, "--", "true")
    wait_for(lambda: world.plane.kubectl(*look, check=False).returncode == 0, describe="commands to be run")
    succeeds(world.pods, Stage.TRAIN, Stage.EXPORT)
    status = world.wait_phase("Succeeded")
    for name, report in (("data", status["artifacts"]["dataReport"]), ("evaluation", status["artifacts"]["report"])):
        path = folder / report
        path.parent.mkdir(parents=True)
        path.write_text(f"<html>the {name}, ähm</html>")
    for flags, words in ((["--data"], "the data, ähm"), ([], "the evaluation, ähm")):
        target = tmp_path / f"fetched{len(flags)}.html"
        assert str(target) in user.ocrft("report", "plates", *flags, "-o", str(target))
        assert target.read_text() == f"<html>{words}</html>"
    (folder / status["artifacts"]["report"]).unlink()
    target.unlink()
    assert "evaluation/report.html" in user.ocrft("report", "plates", "-o", str(target), ok=False)
    assert not target.exists()
    wait_for(
        lambda: not [pod for pod in world.kube.list("Pod", world.namespace) if "report" in pod["metadata"]["name"]],
        describe="the pods that read the claim to be gone",
    )


def test_mistakes_are_one_clear_message(world: World, user: User) -> None:
    assert "not found" in user.ocrft("status", "nowhere", ok=False)
    assert "NotFound" in user.ocrft("suspend", "nowhere", ok=False)


def test_logs_of_the_attempt_before(operator: Operator, world: World, user: User) -> None:
    world.pods.log("words of a pod")
    fails(world.pods, Stage.PREPARE, 70)
    world.create(policy={"maxRestarts": 1})
    world.wait_phase("Failed")
    newest = "batch.kubernetes.io/job-name=plates-prepare-2"
    (pod,) = world.kube.list("Pod", world.namespace, labels=newest)
    world.kube.delete("Pod", pod["metadata"]["name"], world.namespace)
    world.kube.wait_gone("Pod", pod["metadata"]["name"], world.namespace, timeout=PATIENCE)
    assert "the pod of rank 0 of plates-prepare-2 is gone" in user.ocrft("logs", "plates", ok=False)
    for flags in (("--previous",), ("--attempt", "1"), ("-p", "--stage", "prepare")):
        assert "words of a pod" in user.ocrft("logs", "plates", *flags)
    assert "rank 3 of plates-prepare-1 is gone" in user.ocrft("logs", "plates", "-p", "--rank", "3", ok=False)


def test_a_live_view_of_all_runs_ends_when_they_have(operator: Operator, world: World, user: User) -> None:
    succeeds(world.pods)
    for name in ("one", "two"):
        world.create(name)
    said = user.ocrft("status", "--watch")
    assert said.count("Succeeded") >= 2


def test_completion_knows_commands_options_and_runs(operator: Operator, world: World, user: User) -> None:
    world.create(policy={"suspend": True})
    world.create("letters", policy={"suspend": True})

    def completes(*words: str) -> list[str]:
        """What the shell gets from kubectl itself."""
        said = user.ocrft(*words, program="kubectl __complete ocrft").splitlines()
        return said[: said.index(":4")]

    assert completes("su") == ["suspend"]
    assert sorted(completes("status", "")) == ["letters", "plates"]
    assert completes("logs", "pl") == ["plates"]
    assert completes("logs", "plates", "--st") == ["--stage"]
    assert completes("logs", "plates", "--stage", "ev") == ["evaluate"]


def test_render_needs_no_cluster(user: User, tmp_path: Path) -> None:
    source = ROOT / "examples" / "digits" / "kubernetes.yaml"
    made = list(yaml.safe_load_all(user.ocrft("render", str(source))))
    kinds = [(one["kind"], one["metadata"]["name"]) for one in made]
    assert ("Job", "digits-train-1") in kinds
    assert len(kinds) == len(set(kinds)) == 10
