"""What is looked at, and what is left out, before the processes of a node start."""

from __future__ import annotations

import os
import subprocess

import pytest

from ocr_finetune_api.exit_codes import ConfigurationError
from ocr_finetune_trainer.training.launch import check_shared_memory, clean_environment


@pytest.fixture
def shared(tmp_path):
    """Shared memory of 64 MiB, what containers have unless they ask for more."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "none", str(tmp_path)], check=True)
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)


def test_too_little_shared_memory_is_found_before_a_process_starts(shared):
    with pytest.raises(ConfigurationError, match="has 64 MiB free, and 4 processes need about 260 MiB") as error:
        check_shared_memory(shared, processes=4, device="gpu")
    assert "pods.sharedMemory" in error.value.hint


def test_a_gpu_alone_and_processors_need_next_to_nothing_of_it(shared):
    check_shared_memory(shared, processes=1, device="gpu")
    check_shared_memory(shared, processes=4, device="cpu")


def test_shared_memory_that_others_have_filled_is_found_too(shared):
    (shared / "left-over").write_bytes(bytes(64 * 2**20))
    with pytest.raises(ConfigurationError, match="has 0 MiB free"):
        check_shared_memory(shared, processes=1, device="cpu")


def test_nothing_left_over_from_elsewhere_reaches_the_workers():
    environment = {
        "PADDLE_TRAINER_ENDPOINTS": "10.9.9.9:1",
        "MASTER_ADDR": "10.9.9.9",
        "HTTPS_PROXY": "x",
        "HOME": "/h",
    }
    assert clean_environment(environment, device="cpu") == {
        "HOME": "/h", "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", "OCRFT_DEVICE": "cpu",
    }  # fmt: skip
