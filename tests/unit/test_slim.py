"""What makes images small removes what is listed, and says so when the list is out of date."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

_SOURCE = Path(__file__).resolve().parents[2] / "images" / "slim.py"


@pytest.fixture(scope="module")
def slim():
    spec = importlib.util.spec_from_file_location("slim", _SOURCE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    for file in ("a/include/a.h", "a/code.py", "b/sub/model.py", "b/top.py", "c-1.0.dist-info/RECORD"):
        path = tmp_path / "packages" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("text = 1\n")
    return tmp_path / "packages"


def _left(packages: Path) -> set[str]:
    return {path.relative_to(packages).as_posix() for path in packages.rglob("*") if path.is_file()}


def test_it_removes_what_is_listed_and_nothing_else(slim, packages: Path, tmp_path: Path) -> None:
    patterns = tmp_path / "prune.txt"
    patterns.write_text("# a reason\n\na/include\nb/*/\nc-*.dist-info\n")
    assert slim.prune(packages, patterns)
    assert _left(packages) == {"a/code.py", "b/top.py"}


def test_a_pattern_that_matches_nothing_stops_the_build(
    slim, packages: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    patterns = tmp_path / "prune.txt"
    patterns.write_text("a/include\ngone/*.so\n")
    assert not slim.prune(packages, patterns)
    assert "'gone/*.so' matches nothing" in capsys.readouterr().err


def test_code_without_its_source_can_still_be_imported(slim, packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slim.drop_source(packages / "b")
    assert _left(packages) >= {"b/sub/model.pyc", "b/top.pyc"}
    monkeypatch.syspath_prepend(packages)
    monkeypatch.delitem(sys.modules, "b", raising=False)
    assert importlib.import_module("b.top").text == 1


def test_imports_leave_no_byte_code_behind(slim, packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    monkeypatch.syspath_prepend(packages)
    (packages / "optional_part.py").write_text("raise ImportError\n")
    (packages / "whole.py").write_text("try:\n    import optional_part\nexcept ImportError:\n    pass\n")
    assert slim.loaded_by(["whole"], packages) == [packages / "whole.py"]
    assert not list(packages.rglob("*.pyc"))
