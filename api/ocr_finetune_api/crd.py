"""Makes the CustomResourceDefinition from the pydantic models: `python -m ocr_finetune_api.crd`.

Kubernetes takes only structural schemas: no `$ref`, a type everywhere, `anyOf` in two set forms. This module turns what
pydantic gives into that. Rules stand next to the models they are about (`x-kubernetes-validations`); here are only
those that need the whole object: the name, and what may change when.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema

from ocr_finetune_api import API_VERSION, GROUP, KIND, PLURAL, SHORT_NAME, VERSION
from ocr_finetune_api.model_table import TABLE
from ocr_finetune_api.spec import OCRFineTuneSpec
from ocr_finetune_api.status import OCRFineTuneStatus

Schema = dict[str, Any]

FILE_NAME = f"{GROUP}_{PLURAL}.yaml"
MAX_NAME = 40

_NUMBER_OR_AUTO = r"^(auto|[0-9]+(\.[0-9]*)?([eE][-+]?[0-9]+)?)$"
_KEPT = (
    "type", "description", "default", "enum", "pattern", "minimum", "maximum", "minLength", "maxLength",
    "minItems", "maxItems", "format",
)  # fmt: skip

# Bounds of fields that also take `auto`: pydantic checks them in `TrainingSpec`, whose JSON schema cannot say them.
_BOUNDS: Mapping[str, Schema] = {
    "model.maxTextLength": {"minimum": 1, "maximum": 1000},
    "training.epochs": {"minimum": 1},
    "training.batchSize": {"minimum": 1},
    "training.workers": {"minimum": 0},
    "training.learningRate": {"minimum": 0, "exclusiveMinimum": True, "maximum": 1},
    "training.weightDecay": {"minimum": 0},
    "training.clipNorm": {"minimum": 0},
    "training.ema": {"minimum": 0, "maximum": 1, "exclusiveMaximum": True},
    "training.layerDecay": {"minimum": 0, "exclusiveMinimum": True, "maximum": 1},
}

# An empty item size would let the API server estimate the cost of a comparison at the size of a whole request.
_MAX_PROPERTIES = 64

_NAME_RULE = {
    "rule": f"self.metadata.name.size() <= {MAX_NAME} && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
    "message": f"metadata.name: at most {MAX_NAME} lower-case letters, digits and '-', beginning with a letter: "
    "the names of Jobs and pods are made from it",
}

_WORKSPACE_RULES = [
    {
        "rule": "self.distributed.nodes == 1 || !has(self.workspace.size) || self.workspace.size == '' || "
        "!has(self.workspace.accessModes) || 'ReadWriteMany' in self.workspace.accessModes",
        "message": "workspace.accessModes: several nodes write to the workspace together, which needs ReadWriteMany; "
        "or set distributed.nodes to 1",
    },
]

_PRINTER_COLUMNS = [
    {"name": "Model", "type": "string", "jsonPath": ".spec.model.name"},
    {"name": "Phase", "type": "string", "jsonPath": ".status.phase"},
    {"name": "Progress", "type": "number", "jsonPath": ".status.progress.percent",
     "description": "Percent of the current stage"},
    {"name": "ETA", "type": "string", "jsonPath": ".status.progress.eta",
     "description": "Time left in the current stage"},
    {"name": "Metric", "type": "string", "jsonPath": ".status.progress.metricName",
     "description": "What Best is measured in"},
    {"name": "Best", "type": "number", "jsonPath": ".status.progress.bestMetric",
     "description": "Best value on the validation set"},
    {"name": "Restarts", "type": "integer", "jsonPath": ".status.restarts"},
    {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
    {"name": "Message", "type": "string", "priority": 1, "jsonPath": ".status.failure.message",
     "description": "Why it, or its last attempt, failed"},
]  # fmt: skip


def crd() -> dict[str, Any]:
    """The CustomResourceDefinition as a document."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": PLURAL,
                "singular": KIND.lower(),
                "shortNames": [SHORT_NAME],
                "categories": ["all", "ocr"],
            },
            "scope": "Namespaced",
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "additionalPrinterColumns": _PRINTER_COLUMNS,
                    "subresources": {"status": {}},
                    "schema": {"openAPIV3Schema": _root()},
                }
            ],
        },
    }


def to_yaml() -> str:
    """The CustomResourceDefinition as the file that is committed."""
    head = "# Generated from api/ocr_finetune_api by `make generate`; do not edit.\n"
    return head + yaml.safe_dump(crd(), sort_keys=False, allow_unicode=True, width=120)


def schema_of(model: type[BaseModel]) -> Schema:
    """The structural schema of a model.

    Raises:
        ValueError: The model has a field that Kubernetes has no schema for.
    """
    document = model.model_json_schema(by_alias=True, schema_generator=_WithDefaults)
    return _Converter(document.get("$defs", {})).convert(document, path="")


def _root() -> Schema:
    spec = schema_of(OCRFineTuneSpec)
    name = spec["properties"]["model"]["properties"]["name"]
    name.pop("maxLength", None)
    name["enum"] = list(TABLE)
    spec["x-kubernetes-validations"] = [*spec.get("x-kubernetes-validations", []), *_WORKSPACE_RULES]
    status = schema_of(OCRFineTuneStatus)
    conditions = status["properties"]["conditions"]
    conditions |= {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}
    conditions["items"]["required"] = ["type", "status"]
    return {
        "description": "Takes labelled pictures and gives back a PaddleOCR model that reads them better.",
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string", "description": f"{API_VERSION}."},
            "kind": {"type": "string", "description": f"{KIND}."},
            "metadata": {"type": "object"},
            "spec": spec,
            "status": _without_defaults(status),
        },
        "x-kubernetes-validations": [_NAME_RULE, *_transition_rules()],
    }


def _transition_rules() -> list[dict[str, str]]:
    """What may change when. A run that has not been accepted yet is still a draft: all of it may change.

    A rule on an optional field would be skipped when the field is added or removed, so all of them stand at the root.
    """
    draft = "!has(oldSelf.status) || !has(oldSelf.status.specHash) || oldSelf.status.specHash == ''"
    at_rest = "(has(oldSelf.status.phase) && oldSelf.status.phase in ['Pending', 'Queued', 'Suspended'])"

    def rule(condition: str, message: str) -> dict[str, str]:
        return {"rule": f"{draft} || ({condition})", "message": message}

    def before(stage: str) -> str:
        return (
            "!has(oldSelf.status.stages) || !oldSelf.status.stages.exists(s, "
            f"s.name == '{stage}' && has(s.state) && s.state != 'Pending')"
        )

    fixed = [
        rule(
            _unchanged(f"spec.{name}"),
            f"spec.{name} is fixed once the run is accepted; make a new OCRFineTune"
            + (", with pretrained: run://<this run> to go on from its result" if name == "model" else ""),
        )
        for name in ("profile", "model", "dataset", "workspace", "credentials")
    ]
    training = rule(
        " && ".join(_unchanged(f"spec.training.{name}") for name in _comparable("training") if name != "epochs"),
        "spec.training is fixed once the run is accepted; only epochs may be raised. Make a new OCRFineTune to train "
        "in another way",
    )
    epochs = rule(
        f"{_unchanged('spec.training.epochs')} || ("
        "type(self.spec.training.epochs) == int && type(oldSelf.spec.training.epochs) == int && "
        "int(self.spec.training.epochs) >= int(oldSelf.spec.training.epochs) && "
        f"({_not_done('train')}))",
        "spec.training.epochs may only be raised, and only until training has ended",
    )
    movable = [
        rule(
            f"{_unchanged(f'spec.{name}')} || {at_rest}",
            f"spec.{name} may change only while the run is pending or suspended; set policy.suspend: true first",
        )
        for name in ("distributed", "queue", "pods")
    ]
    judged = [
        rule(f"{_unchanged(f'spec.{name}')} || {before(stage)}", f"spec.{name} is fixed once its stage has started")
        for name, stage in (("evaluation", "evaluate"), ("export", "export"))
    ]
    return [*fixed, training, epochs, *movable, *judged]


def _not_done(stage: str) -> str:
    return (
        "!has(oldSelf.status.stages) || !oldSelf.status.stages.exists(s, "
        f"s.name == '{stage}' && has(s.state) && s.state in ['Succeeded', 'Failed'])"
    )


def _comparable(name: str) -> list[str]:
    """Fields of a part of the spec that CEL can see: those with a type of their own.

    A change of the others (`auto` or a fraction) gets through to the operator, which ignores it and says so.
    """
    fields = schema_of(OCRFineTuneSpec)["properties"][name]["properties"]
    return [field for field, schema in fields.items() if "type" in schema or "x-kubernetes-int-or-string" in schema]


def _unchanged(path: str) -> str:
    """CEL: the field is as it was, or is still absent."""
    new, old = f"self.{path}", f"oldSelf.{path}"
    return f"(has({new}) == has({old}) && (!has({new}) || {new} == {old}))"


def _without_defaults(schema: Schema) -> Schema:
    """The status is written by the operator alone: the API server shall not add to it."""
    kept = {key: value for key, value in schema.items() if key != "default"}
    if "properties" in kept:
        kept["properties"] = {name: _without_defaults(field) for name, field in kept["properties"].items()}
    for key in ("items", "additionalProperties"):
        if isinstance(kept.get(key), dict):
            kept[key] = _without_defaults(kept[key])
    return kept


class _WithDefaults(GenerateJsonSchema):
    """Also says the defaults that a factory makes; of a model only what differs from that model's own defaults."""

    def get_default_value(self, schema: Any) -> Any:
        factory = schema.get("default_factory")
        if factory is None:
            return super().get_default_value(schema)
        value = factory()
        if isinstance(value, BaseModel):
            return value.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_unset=True)
        return value


class _Converter:
    """Turns pydantic's JSON schema into a structural one."""

    def __init__(self, definitions: Mapping[str, Schema]) -> None:
        self._definitions = definitions

    def convert(self, schema: Schema, *, path: str) -> Schema:
        schema = self._resolved(schema)
        if "anyOf" in schema:
            return self._union(schema, path=path)
        converted = {key: schema[key] for key in _KEPT if schema.get(key) is not None}
        converted |= {key: value for key, value in schema.items() if key.startswith("x-kubernetes-")}
        if "const" in schema:
            converted["enum"] = [schema["const"]]
        _exclusive(schema, converted)
        if schema.get("type") == "object":
            self._object(schema, converted, path=path)
        elif schema.get("type") == "array":
            converted["items"] = self.convert(schema["items"], path=f"{path}[]")
        elif "type" not in converted:
            msg = f"{path}: Kubernetes has no schema for {schema}"
            raise ValueError(msg)
        return converted

    def _object(self, schema: Schema, converted: Schema, *, path: str) -> None:
        additional = schema.get("additionalProperties")
        names = schema.get("propertyNames", {}).get("enum")
        if "properties" in schema:
            converted["properties"] = {
                name: self._field(field, path=f"{path}.{name}".lstrip("."))
                for name, field in schema["properties"].items()
            }
            if schema.get("required"):
                converted["required"] = schema["required"]
        elif names and isinstance(additional, dict):
            converted["properties"] = {
                name: {"description": f"Of the stage {name}.", **self.convert(additional, path=f"{path}.{name}")}
                for name in names
            }
        elif isinstance(additional, dict):
            converted["additionalProperties"] = self.convert(additional, path=f"{path}.*")
            converted["maxProperties"] = _MAX_PROPERTIES
        else:
            converted["x-kubernetes-preserve-unknown-fields"] = True

    def _field(self, field: Schema, *, path: str) -> Schema:
        converted = self.convert(field, path=path)
        # The API server checks a default against the rules before it fills in the defaults of the fields inside.
        if converted.get("x-kubernetes-validations") and isinstance(converted.get("default"), dict):
            converted["default"] = _expanded(converted, converted["default"])
        return converted

    def _union(self, schema: Schema, *, path: str) -> Schema:
        options = [self._resolved(option) for option in schema["anyOf"] if option.get("type") != "null"]
        about = {key: schema[key] for key in ("description", "default") if schema.get(key) is not None}
        extra = {key: value for key, value in schema.items() if key.startswith("x-kubernetes-")}
        if len(options) == 1:
            return self.convert(options[0], path=path) | about | extra
        types = {option.get("type") for option in options}
        bounds = dict(_BOUNDS.get(path, {}))
        if types == {"string", "integer"}:
            if any(option.get("const") == "auto" for option in options):
                bounds["pattern"] = "^auto$"
            forms = {"anyOf": [{"type": "integer"}, {"type": "string"}], "x-kubernetes-int-or-string": True}
            return about | forms | bounds | extra
        if types == {"string", "number"}:
            # No structural type is "text or a fraction". `maxProperties` and `maxItems` refuse what is neither.
            forms = {"x-kubernetes-preserve-unknown-fields": True, "pattern": _NUMBER_OR_AUTO, "minimum": 0}
            return about | forms | bounds | {"maxProperties": 0, "maxItems": 0} | extra
        msg = f"{path}: Kubernetes has no schema for a choice of {sorted(map(str, types))}"
        raise ValueError(msg)

    def _resolved(self, schema: Schema) -> Schema:
        if "$ref" not in schema:
            return schema
        definition = self._definitions[schema["$ref"].rpartition("/")[2]]
        return {**definition, **{key: value for key, value in schema.items() if key != "$ref"}}


def _expanded(schema: Schema, value: Schema) -> Schema:
    """A default with the defaults of the fields inside."""
    full = dict(value)
    for name, field in schema.get("properties", {}).items():
        if name not in full and "default" in field:
            full[name] = field["default"]
        if isinstance(full.get(name), dict) and "properties" in field:
            full[name] = _expanded(field, full[name])
    return full


def _exclusive(schema: Schema, converted: Schema) -> None:
    """OpenAPI 3.0 has flags where JSON schema has numbers."""
    for flag, bound in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if flag in schema:
            converted[bound] = schema[flag]
            converted[flag] = True


def main() -> int:
    """Writes the CRD to the standard output, or to the files named."""
    text = to_yaml()
    for path in sys.argv[1:]:
        Path(path).write_text(text, encoding="utf-8")
    if not sys.argv[1:]:
        sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
