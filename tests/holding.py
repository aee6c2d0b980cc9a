"""Programs that stand still where they are about to give a file its name, so that no test comes too late for a moment."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

# Python imports a module of this name at its start wherever it finds one.
_SITE = """
import fnmatch, os, sys, time

left = {after}

def hold(event, arguments):
    global left
    if event != "os.rename" or not fnmatch.fnmatchcase(os.fsdecode(arguments[1]), {pattern!r}):
        return
    left -= 1
    while left < 0 and not os.path.exists({go!r}):
        time.sleep(0.005)

sys.addaudithook(hold)
"""


@dataclass(frozen=True)
class Hold:
    """What makes programs stand still, and lets them go on.

    Attributes:
        environment: For the program; what it starts inherits it.
        go: The file that they wait for.
    """

    environment: dict[str, str]
    go: Path

    def let_go(self) -> None:
        """Lets all of them go on, for good."""
        self.go.touch()


def hold(folder: Path, pattern: str, *, after: int = 0) -> Hold:
    """Makes Python programs stand still before they rename a file.

    Args:
        folder: An empty place for what this needs.
        pattern: Which new names, as shells match paths, but for `*`, which matches `/` too.
        after: So many of these renames each process may make before.
    """
    folder.mkdir()
    go = folder / "go"
    site = _SITE.format(after=after, pattern=pattern, go=str(go))
    (folder / "sitecustomize.py").write_text(site, encoding="utf-8")
    path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH", "")]))
    return Hold({"PYTHONPATH": path}, go)
