"""Values of a wrong type and keys that there are not: every one is refused, and named."""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from charts import CHART
from helm_python import Chart, HelmError

_VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
# Whoever writes these names the keys.
_FREE_KEYS = {("resources", "limits"), ("resources", "requests"), ("nodeSelector",)}
_WRONG: tuple[Any, ...] = ([{"noSuchField": 1}], {"noSuchField": {"below": 1}}, 7.5, "of another kind", True)


def _leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(value, dict) and value:
        for key, below in value.items():
            yield from _leaves(below, (*path, key))
    else:
        yield path, value


def _refusal(chart: Chart, values: dict[tuple[str, ...], Any]) -> str:
    """What the schema says to all of these values together."""
    document: dict[str, Any] = {}
    for (*parents, key), value in values.items():
        functools.reduce(lambda level, parent: level.setdefault(parent, {}), parents, document)[key] = value
    with pytest.raises(HelmError) as refused:
        chart.validate_schema(document)
    return str(refused.value)


@pytest.fixture(scope="module")
def chart() -> Chart:
    return Chart.load(CHART)


@pytest.mark.parametrize("wrong", _WRONG, ids=lambda wrong: type(wrong).__name__)
def test_a_wrong_type_is_named(chart: Chart, wrong: Any) -> None:
    values = {
        path: wrong
        for path, value in _leaves(_VALUES)
        if (isinstance(wrong, list | dict) or type(wrong) is not type(value))
        and not (path[0] == "resources" and isinstance(wrong, float))  # 7.5 is a quantity
    }
    said = _refusal(chart, values)
    # JSON pointers write ~1 for a slash.
    pointers = ["/" + "/".join(key.replace("/", "~1") for key in path) for path in values]
    assert [pointer for pointer in pointers if f"at '{pointer}" not in said] == []


def test_an_unknown_key_is_named(chart: Chart) -> None:
    parents = {path[:-1] for path, _ in _leaves(_VALUES)} - _FREE_KEYS
    said = _refusal(chart, {(*path, "noSuchKey"): 1 for path in parents})
    assert [
        path for path in parents if f"at '{'/'.join(('', *path))}': additional properties 'noSuchKey'" not in said
    ] == []


def test_the_definitions_of_kubernetes_are_current() -> None:
    done = subprocess.run([sys.executable, CHART.parent / "generate_schema.py", "--check"], check=False)
    assert done.returncode == 0, "run make generate"
