"""Writes Kubernetes' own definitions into ``values.schema.json``, for the values that are parts of a pod.

Which value is which definition stands in ``_VALUES``; everything else of the schema is written by hand. With ``--check``
nothing is written, and the exit code says whether the file is current.
"""

from __future__ import annotations

import json
import sys
from importlib import resources
from pathlib import Path
from typing import Any

SCHEMA = Path(__file__).parent / "ocr-finetune-operator" / "values.schema.json"
_KUBERNETES = "kubernetes-json-schema/v1.35.0-local-strict/_definitions.json"
_CORE = "io.k8s.api.core.v1."
# Value, the definition of it (or of its items), and whether it is a list.
_VALUES = {
    "affinity": (f"{_CORE}Affinity", False),
    "extraEnv": (f"{_CORE}EnvVar", True),
    "extraEnvFrom": (f"{_CORE}EnvFromSource", True),
    "extraVolumeMounts": (f"{_CORE}VolumeMount", True),
    "extraVolumes": (f"{_CORE}Volume", True),
    "podSecurityContext": (f"{_CORE}PodSecurityContext", False),
    "resources": (f"{_CORE}ResourceRequirements", False),
    "securityContext": (f"{_CORE}SecurityContext", False),
    "tolerations": (f"{_CORE}Toleration", True),
    "topologySpreadConstraints": (f"{_CORE}TopologySpreadConstraint", True),
    "networkPolicy.from": ("io.k8s.api.networking.v1.NetworkPolicyPeer", True),
}


def main() -> int:
    """Writes the schema, or compares it."""
    before = SCHEMA.read_text()
    after = json.dumps(_with_definitions(json.loads(before)), indent=2) + "\n"
    if "--check" in sys.argv[1:]:
        return int(before != after)
    SCHEMA.write_text(after)
    return 0


def _with_definitions(schema: dict[str, Any]) -> dict[str, Any]:
    known = json.loads(resources.files("kubernetes_validate").joinpath(_KUBERNETES).read_text())["$defs"]
    used: dict[str, Any] = {}
    for path, (name, several) in _VALUES.items():
        *parents, key = path.split(".")
        properties = schema["properties"]
        for parent in parents:
            properties = properties[parent]["properties"]
        nullable = path == "topologySpreadConstraints"
        reference = {"$ref": f"#/definitions/{name}"}
        properties[key] = (
            {"type": ["array", "null"] if nullable else "array", "items": reference} if several else reference
        )
        _take(name, known, used)
    return {key: value for key, value in schema.items() if key != "definitions"} | {
        "definitions": dict(sorted(used.items()))
    }


def _take(name: str, known: dict[str, Any], used: dict[str, Any]) -> None:
    """Copies a definition and all that it refers to, without the words."""
    if name in used:
        return
    used[name] = {}
    used[name] = _copy(known[name], known, used)


def _copy(value: Any, known: dict[str, Any], used: dict[str, Any]) -> Any:
    if isinstance(value, list):
        return [_copy(item, known, used) for item in value]
    if not isinstance(value, dict):
        return value
    copied = {}
    for key, below in value.items():
        if key == "$ref":
            name = below.rpartition("/")[2]
            _take(name, known, used)
            copied[key] = f"#/definitions/{name}"
        elif key == "properties":
            copied[key] = {field: _copy(schema, known, used) for field, schema in below.items()}
        elif key != "description" and not key.startswith("x-kubernetes"):
            copied[key] = _copy(below, known, used)
    return copied


if __name__ == "__main__":
    sys.exit(main())
