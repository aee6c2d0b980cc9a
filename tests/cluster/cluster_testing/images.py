"""The images of the cluster: ours by buildah from the Dockerfile, on a Debian made by debootstrap; no registry."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from kube_testing.binaries import ROOT

from .machine import MachineError, call

CACHE = ROOT / ".cache" / "images"
BASE = "localhost/ocrft-base:bookworm"
PAUSE = "localhost/pause:1"
VERSION = "e2e"
_PREFIX = "localhost/ocr-finetune-"
_EPOCH = 1767225600
BUILDAH = {"BUILDAH_ISOLATION": "chroot", "STORAGE_DRIVER": "overlay", "BUILDAH_RUNTIME": "runc"}
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
# What decides about an image's content; the rest of the repository does not take part in the build.
_SOURCES = (
    "Dockerfile",
    ".dockerignore",
    "images",
    "images.mk",
    "requirements",
    "pyproject.toml",
    "api",
    "operator",
    "trainer",
)


def archives(*targets: str) -> list[Path]:
    """Returns the archives of the pause image and of our targets, building what has changed."""
    return [_pause(), *(_ours(target) for target in targets)]


def reference(target: str, *, version: str = VERSION) -> str:
    """Returns the name under which pods ask for the image of a target."""
    return f"{_PREFIX}{target}:{version}"


def inspect(target: str, *, version: str = VERSION) -> dict[str, Any]:
    """Returns what buildah knows of the image of a target."""
    text = call("buildah", "inspect", "--type=image", reference(target, version=version), env=BUILDAH)
    document: dict[str, Any] = json.loads(text)
    return document


def build(target: str, *, flags: str, version: str = VERSION) -> None:
    """Builds the image of a target as users do, with ``make``; what changes with each commit is left out."""
    _base()
    _run(
        "make",
        f"--directory={ROOT}",
        f"image-{target}",
        "IMAGE_BUILDER=buildah",
        f"IMAGE_FLAGS=--network=host --format=docker --pull=never {flags}",
        f"BASE_IMAGE={BASE}",
        f"IMAGE_PREFIX={_PREFIX}",
        f"IMAGE_VERSION={version}",
        "IMAGE_REVISION=unknown",
        f"IMAGE_EPOCH={_EPOCH}",
    )


def _ours(target: str) -> Path:
    digest = hashlib.sha256()
    for source in _SOURCES:
        path = ROOT / source
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in files:
            if file.is_file() and "__pycache__" not in file.parts:
                digest.update(f"{file.relative_to(ROOT)}\0".encode() + file.read_bytes())
    archive = CACHE / f"{target}-{digest.hexdigest()[:12]}.tar"
    if not archive.exists():
        build(target, flags="--layers")
        _export(reference(target), archive, pattern=f"{target}-*.tar")
    return archive


def _base() -> None:
    if BASE in call("buildah", "images", "--format", "{{.Name}}:{{.Tag}}", env=BUILDAH).split():
        return
    folder = CACHE / "rootfs"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    _run("debootstrap", "--variant=minbase", "--include=ca-certificates", "bookworm", str(folder))
    for left in ("var/lib/apt/lists", "var/cache/apt", "usr/share/locale", "usr/share/man", "usr/share/doc"):
        shutil.rmtree(folder / left, ignore_errors=True)
    # The package index may be behind a proxy with a certificate of its own that only this machine trusts.
    if _CERTIFICATES.exists():
        shutil.copy(_CERTIFICATES, folder / "etc/ssl/certs/ca-certificates.crt")
        (folder / "etc/pip.conf").write_text(f"[global]\ncert = {_CERTIFICATES}\n")
    _from_folder(folder, BASE, "--cmd=/bin/sh")
    shutil.rmtree(folder)


def _pause() -> Path:
    archive = CACHE / "pause.tar"
    if not archive.exists():
        folder = CACHE / "pause"
        folder.mkdir(parents=True, exist_ok=True)
        program = shutil.which("catatonit") or "/usr/libexec/podman/catatonit"
        shutil.copy(program, folder / "pause")
        _from_folder(folder, PAUSE, '--entrypoint=["/pause", "-P"]')
        _export(PAUSE, archive, pattern="pause.tar")
    return archive


def _from_folder(folder: Path, name: str, *config: str) -> None:
    container = call("buildah", "from", "scratch", env=BUILDAH).strip()
    call("buildah", "add", "-q", container, folder, "/", env=BUILDAH)
    call("buildah", "config", *config, container, env=BUILDAH)
    call("buildah", "commit", "-q", "--rm", container, name, env=BUILDAH)


def _export(name: str, archive: Path, *, pattern: str) -> None:
    CACHE.mkdir(parents=True, exist_ok=True)
    aside = archive.with_suffix(".part")
    aside.unlink(missing_ok=True)
    call("buildah", "push", "-q", name, f"docker-archive:{aside}:{name}", env=BUILDAH)
    for old in CACHE.glob(pattern):
        old.unlink()
    aside.rename(archive)


def _run(*command: str) -> None:
    """Runs a long build with its output in a log file, which the error names."""
    CACHE.mkdir(parents=True, exist_ok=True)
    log = CACHE / "build.log"
    with log.open("w") as output:
        done = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, env=os.environ | BUILDAH, check=False)
    if done.returncode != 0:
        last = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise MachineError(f"{command[0]} failed; all of it is in {log}:\n{last}")
