"""Checks that this machine can run the trainer: `python -m ocr_finetune_trainer.setup_check`.

OpenCV's wheel needs two libraries of the system that no Python package brings.
"""

from __future__ import annotations

import ctypes.util
import sys
from importlib.metadata import packages_distributions

from ocr_finetune_api.exit_codes import ExitCode

# Library, Debian package, Fedora package.
_LIBRARIES = (("GL", "libgl1", "mesa-libGL"), ("gthread-2.0", "libglib2.0-0", "glib2"))
_OPENCV = "opencv-contrib-python"


def problems() -> list[str]:
    """What is missing or in the way, a sentence each."""
    missing = [(debian, fedora) for name, debian, fedora in _LIBRARIES if ctypes.util.find_library(name) is None]
    found = []
    if missing:
        debian, fedora = (" ".join(names) for names in zip(*missing, strict=True))
        found.append(
            f"OpenCV needs libraries of the system; install them with `apt-get install {debian}` (Debian, Ubuntu) "
            f"or `dnf install {fedora}` (Fedora)"
        )
    owners = set(packages_distributions().get("cv2", ()))
    if owners != {_OPENCV}:
        found.append(
            f"cv2 must come from {_OPENCV} alone, since paddlex looks for it by that name; "
            f"here it comes from {', '.join(sorted(owners)) or 'nothing'}"
        )
    return found


if __name__ == "__main__":
    for problem in problems():
        sys.stderr.write(f"error: {problem}\n")
    sys.exit(int(ExitCode.BAD_CONFIGURATION) if problems() else int(ExitCode.OK))
