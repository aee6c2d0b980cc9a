"""The device of a process, and the processor cores that it may use."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import paddle

from ocr_finetune_api.exit_codes import DeviceError

if TYPE_CHECKING:
    from ocr_finetune_api.run_config import RunConfig

__all__ = ["choose_device", "cores_a_process"]

_OWN_DEVICE = "FLAGS_selected_gpus"  # the launcher's word for it


def choose_device(config: RunConfig, *, local_rank: int) -> bool:
    """Sets this process's device.

    Args:
        config: The run configuration.
        local_rank: Number of this process on its node.

    Returns:
        Whether it is a GPU.

    Raises:
        DeviceError: It isn't there; the message says how many there are.
    """
    count = paddle.device.cuda.device_count() if paddle.device.is_compiled_with_cuda() else 0
    if config.device == "gpu" and not count:
        built = "" if paddle.device.is_compiled_with_cuda() else "; this PaddlePaddle is built for CPUs"
        raise DeviceError(
            f"distributed.device: gpu, but there is no GPU here{built}",
            hint="write device: cpu, or run where there are GPUs",
        )
    if config.device == "cpu" or not count:
        paddle.set_device("cpu")
        return False
    if local_rank >= count:
        raise DeviceError(
            f"distributed.devicesPerNode: {config.devices_per_node}, but this node has {count} GPUs",
            hint=f"write devicesPerNode: {count} or less",
        )
    # The launcher shows each process its own device by its number on the node.
    paddle.set_device(f"gpu:{os.environ.get(_OWN_DEVICE, str(local_rank)).split(',')[0]}")
    return True


def cores_a_process(processes: int) -> int:
    """Cores that each of a node's processes may use."""
    return max(len(os.sched_getaffinity(0)) // max(processes, 1), 1)
