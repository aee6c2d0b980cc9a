"""The chart: what it renders is valid in every combination, minimal in rights, and refuses wrong values by name."""

from __future__ import annotations

import functools
import itertools
import json
import operator
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from charts import CHART, NAMESPACE, RELEASE, Manifest, one, render
from helm_python import Chart, HelmError, lint

from ocr_finetune_operator import rbac, settings

_NAME = f"{RELEASE}-ocr-finetune-operator"
_EXAMPLES = CHART.parents[1] / "examples" / "chart"
_OF_OTHERS = {"ServiceMonitor", "PodMonitor", "PrometheusRule"}
_TOGGLES = (
    "crds.enabled",
    "crds.keep",
    "rbac.create",
    "rbac.aggregate",
    "serviceAccount.create",
    "podDisruptionBudget.enabled",
    "networkPolicy.enabled",
    "monitoring.serviceMonitor.enabled",
    "monitoring.podMonitor.enabled",
    "monitoring.prometheusRule.enabled",
    "monitoring.dashboards.enabled",
)
_EVERYTHING: dict[str, Any] = {
    "commonLabels": {"team": "ocr"},
    "imagePullSecrets": [{"name": "registry"}],
    "image": {"digest": "sha256:" + "0" * 64},
    "watchNamespaces": ["team-a", "team-b"],
    "trainer": {"imagePullSecrets": ["registry"], "runAsUser": 1000, "fsGroup": None},
    "profiles": {"a100": {"pods": {"nodeSelector": {"gpu": "a100"}}, "env": {"HF_HUB_OFFLINE": "1"}}},
    "settings": {"workers": 32, "checkNodes": False, "backoffBase": 0.5},
    "serviceAccount": {"annotations": {"a": "b"}},
    "deploymentAnnotations": {"a": "b"},
    "podAnnotations": {"a": "b"},
    "podLabels": {"a": "b"},
    "priorityClassName": "high",
    "nodeSelector": {"kubernetes.io/arch": "amd64"},
    "tolerations": [{"key": "a", "operator": "Exists"}],
    "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
    "topologySpreadConstraints": [],
    "extraArgs": ["--workers=8"],
    "extraEnv": [{"name": "A", "value": "b"}],
    "extraEnvFrom": [{"configMapRef": {"name": "more"}}],
    "extraVolumes": [{"name": "more", "emptyDir": {}}],
    "extraVolumeMounts": [{"name": "more", "mountPath": "/more"}],
    "httpProxy": "http://proxy:3128",
    "httpsProxy": "http://proxy:3128",
    "noProxy": "10.0.0.0/8",
    "service": {"annotations": {"a": "b"}, "port": 9000},
    "networkPolicy": {"enabled": True, "from": [{"namespaceSelector": {}}]},
}


@pytest.fixture(scope="module")
def chart() -> Chart:
    return Chart.load(CHART)


@functools.cache
def _check(document: str) -> None:
    for version in ("1.31", "1.35"):
        kubernetes_validate.validate(json.loads(document), version, strict=True)


@pytest.mark.parametrize("path", sorted(_EXAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_values_of_the_examples_are_valid(path: Path) -> None:
    objects = render(yaml.safe_load(path.read_text()))
    _validate(objects)
    mounted = one(objects, "ConfigMap", "-profiles")["data"]["profiles.yaml"]
    assert yaml.safe_load(mounted) == yaml.safe_load(path.read_text())["profiles"]


def _validate(objects: list[Manifest]) -> None:
    seen = [(item["kind"], item["metadata"].get("namespace"), item["metadata"]["name"]) for item in objects]
    assert len(seen) == len(set(seen))
    for item in objects:
        if item["kind"] not in _OF_OTHERS | {"CustomResourceDefinition"}:
            _check(json.dumps(item, sort_keys=True))


def test_helm_finds_nothing_to_criticise() -> None:
    for values in ({}, _EVERYTHING):
        report = lint(CHART, values, strict=True)
        assert report["errors"] == []
        assert [message for message in report["messages"] if message["severity"] > 1] == []


@pytest.mark.parametrize("base", [{}, _EVERYTHING, {"replicaCount": 1}], ids=["defaults", "everything", "one replica"])
def test_every_combination_of_toggles_is_valid(chart: Chart, base: dict[str, Any]) -> None:
    for setting in itertools.product((False, True), repeat=len(_TOGGLES)):
        values = json.loads(json.dumps(base))
        for path, value in zip(_TOGGLES, setting, strict=True):
            *parents, key = path.split(".")
            functools.reduce(lambda level, part: level.setdefault(part, {}), parents, values)[key] = value
        _validate(render(values, chart=chart))


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"replicaCount": "two"}, "replicaCount"),
        ({"replicas": 2}, "replicas"),
        ({"image": {"digest": "0815"}}, "digest"),
        ({"logging": {"format": "xml"}}, "format"),
        ({"watchNamespaces": "team-a"}, "watchNamespaces"),
        ({"profiles": {"a100": {"pod": {}}}}, "pod"),
        ({"monitoring": {"serviceMonitor": {"enabled": "yes"}}}, "enabled"),
    ],
)
def test_a_wrong_value_is_refused_by_its_name(chart: Chart, values: dict[str, Any], named: str) -> None:
    with pytest.raises(HelmError, match=named):
        render(values, chart=chart)


def test_the_roles_are_the_rights_that_the_operator_lists_and_no_more(chart: Chart) -> None:
    objects = render(chart=chart)
    own = [right.rule() for right in rbac.RIGHTS if right.own_namespace]
    everywhere = [right.rule() for right in rbac.RIGHTS if not right.own_namespace]
    by_key = operator.itemgetter("apiGroups", "resources")
    assert sorted(one(objects, "ClusterRole", _NAME)["rules"], key=by_key) == sorted(everywhere, key=by_key)
    assert one(objects, "Role")["rules"] == own


def test_an_installation_for_some_namespaces_has_no_right_in_others(chart: Chart) -> None:
    objects = render({"watchNamespaces": ["team-a", "team-b"]}, chart=chart)
    assert [item for item in objects if item["kind"] == "ClusterRoleBinding"] == []
    roles = {
        (item["metadata"]["namespace"], item["metadata"]["name"]): item for item in objects if item["kind"] == "Role"
    }
    assert set(roles) == {("team-a", _NAME), ("team-b", _NAME), (NAMESPACE, f"{_NAME}-leader")}
    by_key = operator.itemgetter("apiGroups", "resources")
    expected = [right.rule() for right in rbac.RIGHTS if not right.cluster and not right.own_namespace]
    assert sorted(roles["team-a", _NAME]["rules"], key=by_key) == sorted(expected, key=by_key)


@pytest.mark.parametrize("values", [{}, _EVERYTHING], ids=["defaults", "everything"])
def test_the_operator_understands_the_settings_that_the_chart_gives_it(
    chart: Chart, values: dict[str, Any], tmp_path: Path
) -> None:
    objects = render(values, chart=chart)
    container = one(objects, "Deployment")["spec"]["template"]["spec"]["containers"][0]
    environment = {item["name"]: item["value"] for item in container["env"] if "value" in item}
    unknown = [
        name
        for name in environment
        if name.startswith(settings.PREFIX)
        and name.removeprefix(settings.PREFIX).lower() not in settings.Settings.model_fields
    ]
    assert unknown == []
    if "OCRFT_OPERATOR_PROFILES" in environment:
        mounted = one(objects, "ConfigMap", "-profiles")["data"]["profiles.yaml"]
        (tmp_path / "profiles.yaml").write_text(mounted)
        environment["OCRFT_OPERATOR_PROFILES"] = str(tmp_path / "profiles.yaml")
    loaded = settings.load([], environment)
    assert loaded.leader_election
    if values:
        assert loaded.namespaces == ("team-a", "team-b")
        assert (loaded.workers, loaded.backoff_base, loaded.run_as_user, loaded.fs_group) == (32, 0.5, 1000, None)
        assert loaded.trainer_image == "ocr-finetune-trainer:0.1.0"


def test_the_pods_pass_the_restricted_standard(chart: Chart) -> None:
    pod = one(render(chart=chart), "Deployment")["spec"]["template"]["spec"]
    assert pod["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    (container,) = pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_digest_wins_over_tag(chart: Chart) -> None:
    digest = "sha256:" + "1" * 64
    values = {"image": {"repository": "registry.example/operator", "tag": "9", "digest": digest}}
    container = one(render(values, chart=chart), "Deployment")["spec"]["template"]["spec"]["containers"][0]
    assert container["image"] == f"registry.example/operator@{digest}"


def test_the_crd_stays_when_the_chart_goes(chart: Chart) -> None:
    crd = one(render(chart=chart), "CustomResourceDefinition")
    assert crd["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    assert (
        "annotations" not in one(render({"crds": {"keep": False}}, chart=chart), "CustomResourceDefinition")["metadata"]
    )


def test_by_default_nothing_needs_what_a_plain_cluster_lacks(chart: Chart) -> None:
    kinds = {item["kind"] for item in render(chart=chart)}
    assert kinds & _OF_OTHERS == set()
    objects = render(chart=chart)
    assert one(objects, "Deployment")["spec"]["replicas"] == 2
    assert one(objects, "PodDisruptionBudget")
    assert one(objects, "Deployment")["spec"]["template"]["spec"]["topologySpreadConstraints"]


def test_the_notes_say_what_to_type_next(chart: Chart) -> None:
    def notes(values: dict[str, Any]) -> str:
        texts = chart.render(values, name=RELEASE, namespace=NAMESPACE)
        return next(text for path, text in texts.items() if path.endswith("NOTES.txt"))

    example = CHART.parents[1] / "examples" / "digits" / "kubernetes.yaml"
    assert f"kubectl apply -f {example.relative_to(CHART.parents[1])}" in notes({})
    assert f"kubectl --namespace {NAMESPACE} rollout status deployment/{_NAME}" in notes({})
    assert example.exists()
    assert "team-a, team-b" in notes({"watchNamespaces": ["team-a", "team-b"]})
    assert "crds.enabled is false" in notes({"crds": {"enabled": False}})


def test_the_generated_files_are_current() -> None:
    crd = subprocess.run(
        [sys.executable, "-m", "ocr_finetune_api.crd"], capture_output=True, text=True, check=True
    ).stdout
    assert (CHART / "files" / "crd.yaml").read_text() == crd, "run make generate"
    readme = subprocess.run([sys.executable, CHART.parent / "generate_readme.py", "--check"], check=False)
    assert readme.returncode == 0, "run make generate"


def test_every_value_is_described_and_in_the_schema() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    schema = json.loads((CHART / "values.schema.json").read_text())
    described = set(re.findall(r"^\| `([A-Za-z.]+)` \|", (CHART / "README.md").read_text(), flags=re.MULTILINE))

    def leaves(value: Any, known: dict[str, Any], path: str) -> list[str]:
        if isinstance(value, dict) and "properties" in known and known.get("additionalProperties") is False and value:
            assert set(value) == set(known["properties"]) - {"global"}, path
            return [
                leaf
                for key, below in value.items()
                for leaf in leaves(below, known["properties"][key], f"{path}.{key}".lstrip("."))
            ]
        return [path]

    assert set(leaves(values, schema, "")) == described


def test_the_version_is_the_packages() -> None:
    project = (CHART.parents[1] / "pyproject.toml").read_text()
    version = re.search(r'^version = "(.+)"', project, flags=re.MULTILINE)
    assert version is not None
    metadata = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert metadata["version"] == metadata["appVersion"] == version[1]
