"""Processes keep the memory that they need again at once, and look for cycles again when they should."""

from __future__ import annotations

import gc
import subprocess
import sys

import pytest

from ocr_finetune_trainer.processes import no_search_for_cycles

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


@pytest.mark.parametrize("before", [True, False])
def test_cycles_are_looked_for_as_before(before):
    was = gc.isenabled()
    (gc.enable if before else gc.disable)()
    try:
        with pytest.raises(ValueError, match="stop"), no_search_for_cycles():
            assert not gc.isenabled()
            raise ValueError("stop")
        assert gc.isenabled() == before
    finally:
        (gc.enable if was else gc.disable)()
