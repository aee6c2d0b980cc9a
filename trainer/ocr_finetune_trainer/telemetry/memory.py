"""How much memory a training process uses, on its host and on its device."""

from __future__ import annotations

import psutil

__all__ = ["usage"]


def usage() -> dict[str, int]:
    """Bytes in use.

    Returns:
        `host`: resident memory. Where Paddle uses a GPU also `device`: allocated on it by this process, and
        `deviceTotal`: what it has.
    """
    import paddle

    found = {"host": int(psutil.Process().memory_info().rss)}
    if paddle.device.is_compiled_with_cuda() and paddle.device.get_device().startswith("gpu"):
        found["device"] = int(paddle.device.cuda.memory_allocated())
        found["deviceTotal"] = int(paddle.device.cuda.get_device_properties().total_memory)
    return found
