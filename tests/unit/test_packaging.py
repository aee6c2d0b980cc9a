"""What an installation brings, and what it must not bring."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def names(requirements: str) -> set[str]:
    return {match[1].lower().replace("_", "-") for match in re.finditer(r"(?m)^([A-Za-z0-9][\w.-]*)", requirements)}


def locked(name: str) -> set[str]:
    return names((ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("extra", "absent"),
    [("trainer", {"kopf", "kubernetes"}), ("operator", {"paddlepaddle", "paddleocr", "numpy", "onnx"})],
)
def test_one_side_never_brings_the_other(extra, absent):
    assert not locked(extra) & absent


@pytest.mark.parametrize("extra", ["operator", "trainer"])
def test_the_lock_has_all_that_an_extra_names(extra):
    wanted = PROJECT["project"]["dependencies"] + PROJECT["project"]["optional-dependencies"][extra]
    assert names("\n".join(wanted)) <= locked(extra)
    assert locked(extra) <= locked("dev")


@pytest.mark.parametrize("name", ["operator", "trainer", "demo", "dev"])
def test_locks_have_hashes_and_no_address(name):
    text = (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8")
    assert text.count("==") <= text.count("--hash=sha256:")
    assert "://" not in text


def test_the_wheel_has_every_file_of_the_packages(tmp_path):
    subprocess.run(
        [
            sys.executable,
            "-m",
            "uv",
            "build",
            "--quiet",
            "--wheel",
            "--no-build-isolation",
            "--out-dir",
            tmp_path,
            ROOT,
        ],
        check=True,
        capture_output=True,
        timeout=120,
    )
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        packed = set(wheel.namelist())
    listed = subprocess.run(
        ["git", "ls-files", "api", "operator", "trainer"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.splitlines()
    missing = {name.partition("/")[2] for name in listed if (ROOT / name).exists()} - packed
    assert not missing
