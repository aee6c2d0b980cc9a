"""From ``kubectl apply`` to a model that ``paddleocr`` reads with, on two nodes, seen by Prometheus."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from charts import render
from cluster_testing import dashboards, images
from cluster_testing.cluster import CHART
from cluster_testing.prometheus import Prometheus
from cluster_testing.runs import EXAMPLE, Run, seconds
from kube_testing import binaries
from kube_testing.client import condition
from kube_testing.processes import wait_for
from monitoring import queries, used

if TYPE_CHECKING:
    from cluster_testing.cluster import Cluster
    from cluster_testing.volumes import SharedVolumes

_READ = """
import json, sys, warnings
warnings.simplefilter("ignore")
from paddleocr import TextRecognition
import yaml
name = yaml.safe_load(open(f"{sys.argv[1]}/inference.yml"))["Global"]["model_name"]
reader = TextRecognition(model_name=name, model_dir=sys.argv[1])
print(json.dumps([result["rec_text"] for result in reader.predict(sys.argv[2:], batch_size=16)]))
"""


class Finished:
    """A run that has been to its end, and when."""

    def __init__(
        self, run: Run, status: dict[str, Any], *, began: float, nodes: set[str], prometheus: Prometheus
    ) -> None:
        self.run = run
        self.status = status
        self.began = began
        self.nodes = nodes
        self.prometheus = prometheus


def _monitors() -> list[dict[str, Any]]:
    """The chart's ServiceMonitor and PodMonitor."""
    wanted = {"serviceMonitor": {"enabled": True}, "podMonitor": {"enabled": True}}
    return [one for one in render({"monitoring": wanted}) if one["kind"] in {"ServiceMonitor", "PodMonitor"}]


@pytest.fixture(scope="module")
def finished(cluster: Cluster, operator: str, volumes: SharedVolumes, digits: Path) -> Finished:
    """The example, applied as a user does, and followed to its end."""
    namespace = f"first-run-{secrets.token_hex(3)}"
    cluster.plane.create_namespace(namespace, labels={"pod-security.kubernetes.io/enforce": "restricted"})
    prometheus = Prometheus(cluster, _monitors())
    # A rate needs a point from before: the first pod may run within a second.
    wait_for(lambda: prometheus.query("ocrfinetune_leader == 1"), describe="the operator to be scraped")
    volumes.fill("digits", namespace, digits)
    run = Run(cluster, namespace, volumes.claim("ocr-work", namespace))
    began = time.time()
    cluster.plane.kubectl("apply", "--namespace", namespace, "--validate=strict", "-f", str(EXAMPLE))
    run.wait_phase("Training")
    run.wait(lambda _: len(run.pods()) == 2, describe="two training pods")
    nodes = {pod["spec"]["nodeName"] for pod in run.pods()}
    status = run.wait_phase("Succeeded")
    return Finished(run, status, began=began, nodes=nodes, prometheus=prometheus)


def test_both_nodes_take_part_and_every_stage_needs_one_attempt(finished: Finished) -> None:
    assert finished.nodes == {"node-0", "node-1"}
    assert condition(finished.run.get(), "Complete")
    assert [(one["stage"], one["outcome"]) for one in finished.status["attempts"]] == [
        (stage, "Succeeded") for stage in ("prepare", "train", "evaluate", "export")
    ]
    assert finished.status["metrics"]["best"]["accuracy"] > 0.95


def test_paddleocr_reads_digits_with_the_model_that_was_fetched(
    cluster: Cluster, finished: Finished, digits: Path, tmp_path: Path
) -> None:
    """As the first day's document says: through the pod that has the claims."""
    namespace = finished.run.namespace
    documents = yaml.safe_load_all((EXAMPLE.parent / "claims.yaml").read_text())
    pod = next(document for document in documents if document["kind"] == "Pod")
    pod["metadata"]["namespace"] = namespace
    pod["spec"]["containers"][0]["image"] = images.reference("trainer")
    cluster.kube.create(pod)
    cluster.kube.wait("Pod", "files", namespace, lambda pod: pod["status"].get("phase") == "Running", timeout=60)
    name = finished.run.folder().name
    assert name in cluster.plane.kubectl("exec", "-n", namespace, "files", "--", "ls", "/work").stdout.split()
    cluster.plane.kubectl("cp", f"{namespace}/files:/work/{name}/export", str(tmp_path / "export"))
    cluster.kube.delete("Pod", "files", namespace, grace=0)
    pictures = [min(folder.glob("*.png")) for folder in sorted((digits / "binarized_data").iterdir())]
    model = tmp_path / "export" / "paddle"
    done = subprocess.run([sys.executable, "-c", _READ, model, *pictures], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    read = json.loads(done.stdout.splitlines()[-1])
    assert sum(text == str(digit) for digit, text in enumerate(read)) >= 9, read


def test_every_panel_of_the_dashboards_shows_something(cluster: Cluster, finished: Finished) -> None:
    # Nothing failed, there is one source, and CPUs have no memory of their own.
    empty_when_well = {
        "Failures by class",
        "Loss by source of the data",
        "Device memory by run",
    }
    replaced = {
        "$namespace": finished.run.namespace,
        "$run": finished.run.name,
        "$__rate_interval": "10s",
        "[1h]": "[5m]",
    }

    now = time.time()

    def ask(query: str) -> list[dict[str, Any]]:
        for variable, value in replaced.items():
            query = query.replace(variable, value)
        return finished.prometheus.over(query, start=finished.began, end=now)

    # For people to look at, with a browser.
    for board in sorted((CHART / "files" / "dashboards").glob("*.json")):
        (cluster.folder / f"{board.stem}.html").write_text(dashboards.draw(board, ask=ask))
    empty = [name for name, query in queries().items() if not dashboards.points_of(ask(query))]
    assert [name for name in empty if name.split("/")[1] not in empty_when_well] == []


def test_every_metric_that_a_dashboard_or_an_alert_asks_for_is_scraped(finished: Finished) -> None:
    expression = 'count by (__name__) ({__name__=~"ocrft_.+|ocrfinetune_.+"})'
    scraped = {
        one["metric"]["__name__"] for one in finished.prometheus.over(expression, start=finished.began, end=time.time())
    }
    # Told only where the data has several sources.
    assert used() - scraped <= {"ocrft_train_source_loss"}


def test_the_operator_tells_people_what_happened(cluster: Cluster, finished: Finished) -> None:
    events = cluster.kube.list("Event", finished.run.namespace)
    told = [one["reason"] for one in events if one["involvedObject"]["kind"] == "OCRFineTune"]
    assert {"Accepted", "Succeeded"} <= set(told), told
    table = cluster.plane.kubectl("get", "ocrft", "--namespace", finished.run.namespace).stdout
    assert "Succeeded" in table


def test_kubectl_ocrft_shows_logs_and_fetches_reports(cluster: Cluster, finished: Finished, tmp_path: Path) -> None:
    programs = f"{binaries.find('kubectl').parent}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {"PATH": programs, "KUBECONFIG": str(cluster.plane.kubeconfig("admin"))}
    name = finished.run.name

    def ocrft(*arguments: str) -> str:
        command = ["kubectl", "ocrft", "--namespace", finished.run.namespace, *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=180)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert "✓ export" in ocrft("status", name)
    assert ocrft("attempts", name).count("Succeeded") == 4
    for attempt in finished.status["attempts"]:
        assert ocrft("logs", name, "--stage", attempt["stage"]).strip()
    assert ocrft("logs", name, "--stage", "train", "--rank", "1").strip()
    for flags in ((), ("--data",)):
        target = tmp_path / "report.html"
        ocrft("report", name, *flags, "--output", str(target))
        assert "<html" in target.read_text()
        target.unlink()

    def readers() -> list[str]:
        pods = cluster.kube.list("Pod", finished.run.namespace)
        return [pod["metadata"]["name"] for pod in pods if "-report-" in pod["metadata"]["name"]]

    wait_for(lambda: not readers(), describe="the pods that read the claim to be gone", timeout=60)


def test_the_way_to_the_first_step_and_the_operators_share_are_reported(
    finished: Finished, figures: dict[str, str]
) -> None:
    attempts = {one["stage"]: one for one in finished.status["attempts"]}
    results = {name: finished.run.result(name) for name in attempts}
    prepare, train = attempts["prepare"], attempts["train"]
    first = finished.run.events("evaluated")[0]["time"]
    stepped = finished.prometheus.over(
        f'max(ocrft_train_step{{namespace="{finished.run.namespace}"}}) > 0', start=finished.began, end=time.time()
    )
    marks = (
        ("kubectl apply until preparing is decided on", finished.began, seconds(prepare["startedAt"])),
        ("its pod scheduled and started", seconds(prepare["startedAt"]), seconds(prepare["runningAt"])),
        ("interpreter", seconds(prepare["runningAt"]), seconds(results["prepare"]["startedAt"])),
        ("preparing", seconds(results["prepare"]["startedAt"]), seconds(results["prepare"]["finishedAt"])),
        ("until training is decided on", seconds(results["prepare"]["finishedAt"]), seconds(train["startedAt"])),
        ("its pods scheduled and started", seconds(train["startedAt"]), seconds(train["runningAt"])),
        ("interpreter", seconds(train["runningAt"]), seconds(results["train"]["startedAt"])),
        ("import of Paddle, rendezvous, data, first evaluation", seconds(results["train"]["startedAt"]), first),
        ("until a first step is seen", first, stepped[0]["values"][0][0]),
    )
    figures["kubectl apply until the first step"] = f"{marks[-1][2] - finished.began:.1f} s, of it" + "".join(
        f"\n    {name}: {end - begin:.1f} s" for name, begin, end in marks
    )
    # The trainer tells when it began and ended itself; what is left is the cluster's and the operator's.
    share = {
        name: seconds(stage["finishedAt"])
        - seconds(stage["startedAt"])
        - (seconds(results[name]["finishedAt"]) - seconds(results[name]["startedAt"]))
        for name, stage in ((one["name"], one) for one in finished.status["stages"])
    }
    figures["beside the trainer's own time, a stage"] = ", ".join(
        f"{name} {took:.0f} s" for name, took in share.items()
    )
