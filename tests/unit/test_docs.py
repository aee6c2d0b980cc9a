"""What the documents tell people to write works: manifests are files of ``examples/``, fragments fit the manifest."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from ocr_finetune_api.spec import OCRFineTuneSpec

_ROOT = Path(__file__).parents[2]
_PAGES = sorted((_ROOT / "docs").rglob("*.md"))
_BLOCK = re.compile(r"^```yaml\n(.*?)^```", flags=re.DOTALL | re.MULTILINE)
_SNIPPET = re.compile(r'--8<-- "([^":]+)(?::\w+)?"')
_EXAMPLES = sorted((_ROOT / "examples").glob("*/*.yaml"))
_DATA = {"train": [{"uri": "data"}]}
# The least that a fragment has to be laid over to be a manifest: of one kind of model or the other.
_BASES: tuple[dict[str, Any], ...] = tuple(
    {"model": {"name": name}, "dataset": _DATA} for name in ("PP-OCRv5_mobile_rec", "PP-OCRv5_mobile_det")
)


def _blocks() -> list[Any]:
    return [
        pytest.param(block, id=f"{page.relative_to(_ROOT / 'docs')}-{number}")
        for page in _PAGES
        for number, block in enumerate(_BLOCK.findall(page.read_text()))
    ]


@pytest.mark.parametrize("block", _blocks())
def test_what_the_documents_show_is_a_file_or_fits_into_a_manifest(block: str) -> None:
    if snippet := _SNIPPET.fullmatch(block.strip()):
        assert (_ROOT / snippet[1]) in _EXAMPLES
        return
    fragment = yaml.safe_load(block)
    assert "kind" not in fragment, "a whole manifest belongs into examples/"
    problems = [problem for base in _BASES if (problem := _problem(base | fragment.get("spec", fragment)))]
    assert len(problems) < len(_BASES), problems


def test_every_example_is_shown_in_the_documents() -> None:
    shown = {_ROOT / name for page in _PAGES for name in _SNIPPET.findall(page.read_text())}
    assert [path for path in _EXAMPLES if path not in shown] == []


def test_the_queues_of_the_example_exist_in_the_administrators_one() -> None:
    run = yaml.safe_load((_ROOT / "examples/cluster/queued.yaml").read_text())["spec"]["queue"]
    objects = [one for one in yaml.safe_load_all((_ROOT / "examples/cluster/kueue.yaml").read_text()) if one]
    names = {kind: {one["metadata"]["name"] for one in objects if one["kind"] == kind} for kind in _kinds(objects)}
    assert {run["name"], *run["stages"].values()} <= names["LocalQueue"]
    assert {one["spec"]["clusterQueue"] for one in objects if one["kind"] == "LocalQueue"} <= names["ClusterQueue"]
    flavors = {
        flavor["name"]
        for one in objects
        if one["kind"] == "ClusterQueue"
        for group in one["spec"]["resourceGroups"]
        for flavor in group["flavors"]
    }
    assert flavors <= names["ResourceFlavor"]


def _problem(spec: dict[str, Any]) -> str:
    try:
        OCRFineTuneSpec.model_validate(spec)
    except ValidationError as error:
        return str(error)
    return ""


def _kinds(objects: list[dict[str, Any]]) -> set[str]:
    return {one["kind"] for one in objects}
