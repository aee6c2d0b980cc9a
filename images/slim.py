"""Makes an environment small before it becomes part of an image; runs inside the build, as the environment's Python.

Usage: slim.py [--prune LIST] [--without-source PATTERN ...] -- MODULE ...

Deletes what LIST names, strips symbols from libraries, and writes byte code for exactly the modules that importing
MODULE … loads: all byte code would cost more room than the sources, none would cost seconds at every start. With
``--without-source`` the modules under a folder keep byte code without docstrings only, for generated code.
"""

import argparse
import importlib
import os
import shutil
import subprocess
import sys
import sysconfig
import warnings
from collections.abc import Sequence
from pathlib import Path

_ELF = b"\x7fELF"


def main() -> int:
    """Runs the steps; returns 1 if the list is out of date."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prune", type=Path)
    parser.add_argument("--without-source", action="append", default=[])
    parser.add_argument("modules", nargs="+")
    arguments = parser.parse_args()
    packages = Path(sysconfig.get_path("purelib"))
    if arguments.prune and not prune(packages, arguments.prune):
        return 1
    strip(packages)
    compile_files("-i", "-", files=loaded_by(arguments.modules, packages))
    for pattern in arguments.without_source:
        for folder in packages.glob(pattern):
            drop_source(folder)
    return 0


def prune(packages: Path, patterns: Path) -> bool:
    """Deletes every match of every pattern; a pattern without a match is an error, for it is out of date."""
    current = True
    for line in patterns.read_text().splitlines():
        pattern = line.strip()
        if not pattern or pattern.startswith("#"):
            continue
        found = [path for path in packages.glob(pattern.rstrip("/")) if path.is_dir() or not pattern.endswith("/")]
        if not found:
            sys.stderr.write(f"{patterns}: {pattern!r} matches nothing in {packages}; remove the line\n")
            current = False
        for path in found:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
    return current


def strip(packages: Path) -> None:
    """Removes symbols that only a debugger reads."""
    for library in packages.rglob("*.so*"):
        # Libraries that a wheel's maker moved into a folder of their own were patched in a way that strip can't follow.
        if library.parent.name.endswith(".libs"):
            continue
        if library.is_file() and not library.is_symlink() and library.read_bytes()[:4] == _ELF:
            subprocess.run(["strip", "--strip-unneeded", library], check=True)


def loaded_by(modules: list[str], packages: Path) -> list[Path]:
    """Imports modules and returns the source files under ``packages`` of all that got loaded."""
    # What an import writes holds times, and stays where the import fails.
    sys.dont_write_bytecode = True
    warnings.simplefilter("ignore")
    for module in modules:
        importlib.import_module(module)
    files = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
    return sorted(Path(file) for file in files if file and file.endswith(".py") and packages in Path(file).parents)


def compile_files(*arguments: str, files: Sequence[Path] = ()) -> None:
    """Writes byte code, the same for the same sources: what else a process has loaded would leave traces in it.

    Args:
        *arguments: Of ``python -m compileall``.
        files: What it reads from its standard input.
    """
    command = [sys.executable, "-m", "compileall", "-q", "-f", "--invalidation-mode", "unchecked-hash", *arguments]
    text = "".join(f"{file}\n" for file in files)
    subprocess.run(command, input=text, text=True, env=os.environ | {"PYTHONHASHSEED": "0"}, check=True)


def drop_source(folder: Path) -> None:
    """Replaces the sources under a folder by byte code without docstrings."""
    # "-b" puts the byte code where the source was, the only place where Python loads it without one.
    compile_files("-b", "-o", "2", str(folder))
    for source in folder.rglob("*.py"):
        source.unlink()
    for cache in folder.rglob("__pycache__"):
        shutil.rmtree(cache)


if __name__ == "__main__":
    sys.exit(main())
