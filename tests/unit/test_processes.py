"""Processes keep the memory that they need again at once."""

from __future__ import annotations

import subprocess
import sys

_FAULTS = """
import resource, sys
import numpy as np
from ocr_finetune_trainer.processes import keep_memory
if sys.argv[1] == "keep":
    keep_memory()
def work():
    for _ in range(50):
        pages = [np.ones(5_000_000, dtype=np.uint8) for _ in range(3)]
        del pages
work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", _FAULTS, how], capture_output=True, text=True, check=True, timeout=60)
    return int(done.stdout)


def test_memory_that_was_freed_is_used_again():
    assert 10 * faults("keep") < faults("plain")
