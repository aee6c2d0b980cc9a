"""Reads a manifest and says all that is wrong with it in one go: file, line, field, and what to write instead."""

from __future__ import annotations

import copy
import difflib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ocr_finetune_api import API_VERSION, KIND
from ocr_finetune_api.exit_codes import ConfigurationError
from ocr_finetune_api.spec import ApiModel, OCRFineTuneSpec

NAME_PATTERN = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"
NAME_LENGTH = 40

_MISSING = "is missing; add it"

Path_ = tuple[str | int, ...]


class Metadata(BaseModel):
    """What of an object's metadata a run needs; the rest is Kubernetes' own."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str = Field(..., pattern=NAME_PATTERN, max_length=NAME_LENGTH)
    namespace: str = ""


class OCRFineTune(ApiModel):
    """A whole manifest."""

    api_version: Literal["ocrfinetune.dev/v1alpha1"]
    kind: Literal["OCRFineTune"]
    metadata: Metadata
    spec: OCRFineTuneSpec
    status: dict[str, Any] | None = None


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a manifest.

    Attributes:
        field: Path of the field, such as `spec.training.epochs`.
        message: What is wrong and what to write instead.
        line: Line in the file, from 1; 0 if it has none.
    """

    field: str
    message: str
    line: int = 0

    def __str__(self) -> str:
        return f"{self.field}: {self.message}" if self.field else self.message


def load(path: Path) -> OCRFineTune:
    """Reads the one OCRFineTune of a YAML file.

    Raises:
        ConfigurationError: With every problem, each as `file:line: field: what to do`.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigurationError(f"{path}: there is no such file", hint="write one with: ocrft init FOLDER") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: cannot be read: {error}") from error
    return parse(text, file=str(path))


def parse(text: str, *, file: str) -> OCRFineTune:
    """Reads the one OCRFineTune of a YAML text; `file` names it in messages.

    Raises:
        ConfigurationError: As for `load`.
    """
    try:
        node = _single_document(text, file)
        document = yaml.safe_load(text) if node is None else _construct(node)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{file}:{mark.line + 1}" if mark else file
        raise ConfigurationError(f"{where}: is not YAML: {getattr(error, 'problem', error)}") from error
    if not isinstance(document, dict) or node is None:
        raise ConfigurationError(f"{file}: holds no OCRFineTune", hint="write one with: ocrft init FOLDER")
    manifest, problems = check(document)
    problems += list(_duplicate_keys(node))
    if manifest is not None and not problems:
        return manifest
    located = [Problem(p.field, p.message, p.line or _line_of(node, p.field)) for p in problems]
    located.sort(key=lambda p: p.line)
    raise ConfigurationError(*(f"{file}:{p.line}: {p}" if p.line else f"{file}: {p}" for p in located))


def check(document: Any) -> tuple[OCRFineTune | None, list[Problem]]:
    """Validates a manifest and finds all that is wrong with it.

    Pydantic leaves out the rules over several fields as long as one field is wrong; so what is wrong is taken away and
    the rest is validated again, until nothing new is found.

    Returns:
        The manifest, or None, and the problems.
    """
    problems: dict[str, Problem] = {}
    rest = copy.deepcopy(document)
    while True:
        try:
            manifest = OCRFineTune.model_validate(rest)
        except ValidationError as error:
            # What is missing now but was not at first has been taken away here.
            found = [
                p
                for p in problems_of(error, rest)
                if p.field not in problems and not (problems and p.message == _MISSING)
            ]
            problems |= {p.field: p for p in found}
            taken = [_take_away(rest, _without_union_tags(item["loc"], rest)) for item in error.errors()]
            if not found or not any(taken):
                return None, list(problems.values())
        else:
            return (None if problems else manifest), list(problems.values())


def _take_away(document: Any, location: Path_) -> bool:
    """Removes a field; an item of a list stays, since the others are known by their number."""
    holder = _at(document, location[:-1])
    if not isinstance(holder, dict) or location[-1] not in holder:
        return False
    del holder[location[-1]]
    return True


def problems_of(error: ValidationError, document: Any, *, root: type[BaseModel] = OCRFineTune) -> list[Problem]:
    """Turns pydantic's errors into sentences for people.

    Args:
        error: What validation raised.
        document: What was validated.
        root: The model it was validated against.
    """
    found: dict[str, Problem] = {}
    for item in error.errors():
        location = _without_union_tags(item["loc"], document)
        field = _dotted(location)
        message = _sentence(item, location, root)
        lead = re.match(r"^([A-Za-z]+(?:\.[A-Za-z]+)*): ", message)
        if item["type"] == "value_error" and lead and not isinstance(_at(document, location), str):
            field, message = f"{field}.{lead[1]}", message[lead.end() :]
        found.setdefault(field, Problem(field, message))
    return list(found.values())


def _single_document(text: str, file: str) -> yaml.MappingNode | None:
    nodes = [node for node in yaml.compose_all(text, Loader=yaml.SafeLoader) if node is not None]
    if len(nodes) > 1:
        raise ConfigurationError(
            f"{file}:{nodes[1].start_mark.line + 1}: a second document begins here; one file holds one OCRFineTune",
            hint="write each run into a file of its own",
        )
    return nodes[0] if nodes and isinstance(nodes[0], yaml.MappingNode) else None


def _construct(node: yaml.Node) -> Any:
    return yaml.SafeLoader("").construct_document(node)


def _duplicate_keys(node: yaml.Node, path: str = "") -> Iterator[Problem]:
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, value in node.value:
            here = f"{path}.{key.value}" if path else str(key.value)
            line = key.start_mark.line + 1
            if key.value in seen:
                yield Problem(here, f"stands twice, first on line {seen[key.value]}; keep one of them", line)
            seen[key.value] = line
            yield from _duplicate_keys(value, here)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield from _duplicate_keys(value, f"{path}[{index}]")


def _line_of(node: yaml.Node, field: str) -> int:
    """Line of a field, or of the nearest thing around it that stands in the file."""
    line = node.start_mark.line + 1
    for part in re.findall(r"[^.\[\]]+", field):
        if isinstance(node, yaml.MappingNode):
            pair = next(((key, value) for key, value in node.value if key.value == part), None)
            if pair is None:
                return line
            line, node = pair[0].start_mark.line + 1, pair[1]
        elif isinstance(node, yaml.SequenceNode) and part.isdigit() and int(part) < len(node.value):
            node = node.value[int(part)]
            line = node.start_mark.line + 1
        else:
            return line
    return line


def _dotted(location: Sequence[str | int]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".")


def _without_union_tags(location: Sequence[str | int], document: Any) -> Path_:
    """Pydantic names the branch of a union at the end of a location (`literal['auto']`, `float`); people don't."""
    parts: list[str | int] = []
    value = document
    for part in location:
        if isinstance(part, str) and isinstance(value, dict) and part not in value and parts and _is_tag(part):
            continue
        if not isinstance(value, (dict, list)) and parts and _is_tag(str(part)):
            continue
        parts.append(part)
        value = _child(value, part)
    return tuple(parts)


def _is_tag(part: str) -> bool:
    return bool(re.match(r"^(literal\[|constrained-|function-|str$|int$|float$|bool$|[A-Z]\w*$)", part))


def _child(value: Any, part: str | int) -> Any:
    if isinstance(value, dict):
        return value.get(part)
    if isinstance(value, list) and isinstance(part, int) and part < len(value):
        return value[part]
    return None


def _at(document: Any, location: Sequence[str | int]) -> Any:
    for part in location:
        document = _child(document, part)
    return document


def _shown(value: Any) -> str:
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _sentence(item: Mapping[str, Any], location: Path_, root: type[BaseModel]) -> str:
    value = item["input"]
    last = str(location[-1]) if location else ""
    expected = item["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    match item["type"]:
        case "missing":
            sentence = _MISSING
        case "extra_forbidden":
            sentence = _unknown_field(last, location, root)
        case "value_error":
            sentence = str(item["ctx"]["error"])
        case "literal_error" | "enum":
            sentence = _not_allowed(value, _wanted(location, root))
        case "bool_type" | "bool_parsing":
            sentence = f"{_shown(value)} is neither true nor false"
        case "string_pattern_mismatch":
            sentence = _pattern(value, location)
        case "string_type" if last in _EXAMPLES:
            sentence = _pattern(value, location)
        case kind if kind.endswith(("_type", "_parsing")):
            kind_wanted = expected.removeprefix("a valid ").split(", unable")[0]
            sentence = _not_allowed(value, [*_allowed(location, root), f"a {kind_wanted}".replace("a an ", "an ")])
        case _:
            sentence = f"{_shown(value)}: should be {expected}"
    return sentence


_DURATION_EXAMPLE = "a duration such as 90s, 10m or 1h30m"
_EXAMPLES = {
    "every": _DURATION_EXAMPLE,
    "maxRejected": "a percentage such as 1%",
    "freeze": "none, backbone or stages:2",
    "name": "small letters, digits and hyphens",
} | dict.fromkeys(
    (
        *("gracePeriod", "startupTimeout", "rendezvousTimeout", "stallTimeout", "nodeLostGrace", "activeDeadline"),
        *("ttlAfterFinished", "timeBudget"),
    ),
    _DURATION_EXAMPLE,
)


def _pattern(value: Any, location: Path_) -> str:
    if location[-1] == "name" and "metadata" in location:
        return (
            f"{_shown(value)} is not a name for a run; write small letters, digits and hyphens, beginning with a "
            f"letter, at most {NAME_LENGTH} characters"
        )
    example = _EXAMPLES.get(str(location[-1]), _DURATION_EXAMPLE)
    if location[-2:] == ("evaluate", "every"):
        example = "auto, 1 epoch or 500 steps"
    return f"{_shown(value)} is not understood; write {example}"


def _not_allowed(value: Any, allowed: Sequence[str]) -> str:
    near = difflib.get_close_matches(str(value), allowed, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"{_shown(value)} is not {'one of ' if len(allowed) > 1 else ''}{', '.join(allowed)}{hint}"


def _unknown_field(name: str, location: Path_, root: type[BaseModel]) -> str:
    model = _model_at(root, location[:-1])
    known = [field.alias or key for key, field in model.model_fields.items()] if model else []
    by_folded = {key.lower().replace("_", ""): key for key in known}
    near = difflib.get_close_matches(name.lower().replace("_", "").replace("-", ""), by_folded, n=1, cutoff=0.6)
    if near:
        return f"there is no such field; did you mean {by_folded[near[0]]}?"
    return f"there is no such field; known here are {', '.join(known)}" if known else "there is no such field"


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)


def _field_at(root: type[BaseModel], location: Sequence[str | int]) -> Any:
    model: type[BaseModel] | None = root
    annotation: Any = root
    for part in location:
        if isinstance(part, int):
            continue
        if model is None:
            return None
        field = next((f for key, f in model.model_fields.items() if part in (f.alias, key)), None)
        if field is None:
            return None
        annotation = field.annotation
        model = next(_models_in(annotation), None)
    return annotation


def _model_at(root: type[BaseModel], location: Sequence[str | int]) -> type[BaseModel] | None:
    return next(_models_in(_field_at(root, location)), None)


def _wanted(location: Sequence[str | int], root: type[BaseModel]) -> list[str]:
    """What a field takes: its literal values, and `a number` where it takes one."""
    kinds = get_args(_field_at(root, location))
    numbers = [f"{name}" for kind, name in ((int, "a whole number"), (float, "a number")) if kind in kinds]
    return [*_allowed(location, root), *numbers]


def _allowed(location: Sequence[str | int], root: type[BaseModel]) -> list[str]:
    """The literal values of a field, if it has any."""

    def values(annotation: Any) -> Iterator[str]:
        origin = get_origin(annotation)
        if origin is Literal:
            yield from (str(value) for value in get_args(annotation))
        elif isinstance(annotation, type) and issubclass(annotation, Enum):
            yield from (str(member.value) for member in annotation)
        elif origin is not None:
            for argument in get_args(annotation):
                yield from values(argument)

    return list(dict.fromkeys(values(_field_at(root, location))))


def rewrite_uris(spec: OCRFineTuneSpec, rewrite: Callable[[str], str]) -> OCRFineTuneSpec:
    """The spec with every address replaced: paths made absolute, claims turned into paths.

    Args:
        spec: Any spec.
        rewrite: Gets each non-empty address; the words `official` and `none` are no addresses.
    """
    values = spec.model_dump(mode="json", by_alias=True)
    for holder, key in _uri_places(values):
        if holder.get(key) and holder[key] not in ("official", "none"):
            holder[key] = rewrite(holder[key])
    return OCRFineTuneSpec.model_validate(values)


def _uri_places(spec: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    dataset, evaluation = spec["dataset"], spec["evaluation"]
    sources = [*dataset["train"], dataset["validation"], dataset["test"], *evaluation["guard"]]
    if evaluation["endToEnd"]:
        sources.append(evaluation["endToEnd"]["dataset"])
    yield from ((source, "uri") for source in sources if source)
    if dataset["synthetic"]:
        yield from ((dataset["synthetic"], key) for key in ("corpus", "fonts", "backgrounds"))
    yield spec["model"], "pretrained"
    yield spec["model"]["dictionary"], "uri"
    yield spec["training"], "resumeFrom"
    yield spec["export"], "destination"


__all__ = ["API_VERSION", "KIND", "Metadata", "OCRFineTune", "Problem", "load", "parse", "problems_of", "rewrite_uris"]
