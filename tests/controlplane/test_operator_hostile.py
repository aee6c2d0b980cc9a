"""Hostile specs: in each string of the schema, shell characters and 20 KB; thousands of entries; deep nesting."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from kube_testing.client import ApiError
from kube_testing.processes import wait_for
from operator_testing import PATIENCE, Operator, World, manifest, succeeds

from ocr_finetune_api import crd
from ocr_finetune_api.plan import STAGES

HOSTILE = "'; rm -rf / #$(reboot)`reboot`\"\n\t\x07{{.}}%s\\"
LONG = "x" * 20_000
Schema = dict[str, Any]


def _least(schema: Schema) -> Any:
    """The smallest value that a schema takes, as far as that can be told without its rules."""
    if "enum" in schema:
        return schema["enum"][0]
    if "default" in schema:
        return schema["default"]
    match schema.get("type"):
        case "object":
            return {name: _least(schema["properties"][name]) for name in schema.get("required", ())}
        case "array":
            return [_least(schema["items"])] if schema.get("minItems") else []
        case "integer" | "number":
            return schema.get("minimum", 1)
        case "boolean":
            return False
        case _:
            return "x"


def _with_each_string(schema: Schema, word: str, path: str = "") -> Iterator[tuple[str, Any]]:
    """Values with one string each that is `word`, with its path; for each string that is not one of a list of words."""
    if "enum" in schema:
        return
    if schema.get("x-kubernetes-preserve-unknown-fields"):
        yield path, {word: {word: [word]}}
    elif schema.get("type") == "object" and "additionalProperties" in schema:
        yield f"{path}{{}}", {word: word if schema["additionalProperties"].get("type") == "string" else {}}
        for inner, value in _with_each_string(schema["additionalProperties"], word, f"{path}.key"):
            yield inner, {"key": value}
    elif schema.get("type") == "object":
        for name, part in schema.get("properties", {}).items():
            for inner, value in _with_each_string(part, word, f"{path}.{name}" if path else name):
                yield inner, _least(schema) | {name: value}
    elif schema.get("type") == "array":
        for inner, value in _with_each_string(schema["items"], word, f"{path}[]"):
            yield inner, [value]
    elif schema.get("type") == "string" or "x-kubernetes-int-or-string" in schema:
        yield path, word


def _specs(word: str) -> dict[str, Any]:
    """Specs of runs that are right but for one string, by the path of that."""
    version = crd.crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    parts: Schema = version["properties"]["spec"]["properties"]
    base = manifest("any")["spec"]
    found: dict[str, Any] = {}
    for name, part in parts.items():
        for path, value in _with_each_string(part, word, name):
            own = base.get(name)
            found[path] = base | {name: own | value if isinstance(own, dict) and isinstance(value, dict) else value}
    return found


@pytest.mark.parametrize("word", [HOSTILE, LONG], ids=["shell", "20KB"])
def test_no_string_breaks_the_loop_or_another_run(operator: Operator, world: World, word: str) -> None:
    """Each is refused by the API server, or answered by the operator; a run beside them goes on as ever."""
    succeeds(world.pods)
    accepted: dict[str, str] = {}
    specs = _specs(word)
    assert len(specs) > 80
    for number, (path, spec) in enumerate(specs.items()):
        run = manifest(world.namespace, f"hostile-{number}") | {"spec": spec}
        try:
            world.kube.create(run, strict=False)
        except ApiError as error:
            assert error.code in (400, 413, 422), (path, error)  # noqa: PT017 - others are no refusals
            continue
        accepted[f"hostile-{number}"] = path
    assert accepted
    world.create()

    def unanswered() -> set[str]:
        runs = world.kube.list("OCRFineTune", world.namespace)
        answered = {one["metadata"]["name"] for one in runs if one.get("status", {}).get("conditions")}
        return {path for name, path in accepted.items() if name not in answered}

    wait_for(
        lambda: not unanswered(), describe=lambda: f"an answer to {sorted(unanswered())}", timeout=PATIENCE, interval=1
    )
    world.wait_phase("Succeeded")
    assert world.jobs() == [f"plates-{stage.value}-1" for stage in STAGES]


def test_what_a_user_wrote_reaches_no_shell(operator: Operator, world: World) -> None:
    world.create(
        dataset={"train": [{"uri": f"pvc://work/{HOSTILE}", "listFile": HOSTILE, "columns": {"text": HOSTILE}}],
                 "groupBy": HOSTILE},
        pods={"env": [{"name": "WORDS", "value": HOSTILE}], "podTemplate": {"metadata": {"annotations": {"a": HOSTILE}}}},
    )  # fmt: skip
    (container,) = world.job("plates-prepare-1")["spec"]["template"]["spec"]["containers"]
    assert HOSTILE in [entry.get("value") for entry in container["env"]]
    assert container["command"] == [
        "tini", "--", "ocrft", "stage", "prepare", "--config", "/etc/ocrft/run.yaml", "--workspace", "/workspace"
    ]  # fmt: skip
    assert "args" not in container
    configuration = world.kube.get("ConfigMap", "plates-prepare-1", world.namespace)
    assert configuration is not None
    (source,) = yaml.safe_load(configuration["data"]["run.yaml"])["spec"]["dataset"]["train"]
    assert (source["listFile"], source["columns"]["text"]) == (HOSTILE, HOSTILE)


# Sizes and shapes that the schema can't bound, and the reason that the operator gives; none for what it takes.
HUGE: dict[str, tuple[dict[str, Any], str]] = {
    "keys": ({"training": {"config": {f"{HOSTILE}{n}": n for n in range(1000)}}}, "Unparseable"),
    "deep-config": ({"training": {"config": None}}, "Unparseable"),
    "containers": (
        {"pods": {"podTemplate": {"spec": {"containers": [{"name": "c", "image": HOSTILE}] * 1000}}}},
        "InvalidPods",
    ),
    "annotations": ({"pods": {"podTemplate": {"metadata": {"annotations": {"a": "x" * 300_000}}}}}, "InvalidPods"),
    "labels": ({"pods": {"podTemplate": {"metadata": {"labels": {"a": "x" * 300}}}}}, "InvalidPods"),
    "path": ({"credentials": [{"prefix": "s3://", "secretName": "../../../api/v1/secrets/x"}]}, "SecretMissing"),
    "claim-path": ({"workspace": {"claimName": "../../secrets/x"}}, "ClaimMissing"),
    "volumes": ({"pods": {"podTemplate": {"spec": {"volumes": "none", "containers": {"a": 1}}}}}, ""),
}


def _nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {"a": 1}
    for _ in range(depth):
        value = {"a": value}
    return value


def test_what_is_huge_is_answered_in_a_few_words(operator: Operator, world: World) -> None:
    succeeds(world.pods)
    for name, (spec, _) in HUGE.items():
        world.create(name, **(spec if name != "deep-config" else {"training": {"config": _nested(80)}}))
    sources = [{"name": f"s{n}", "uri": "x"} for n in range(1000)]
    with pytest.raises(ApiError, match="at most 32 items"):
        world.create("sources", dataset={"train": sources})
    for name, (_, reason) in HUGE.items():
        if not reason:
            assert world.job(f"{name}-prepare-1")
            continue
        said = world.condition("Accepted", "False", name)
        assert (name, said["reason"]) == (name, reason)
        assert 10 < len(said["message"]) <= 1024
    world.create()
    world.wait_phase("Succeeded")
