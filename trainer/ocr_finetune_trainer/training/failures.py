"""What a failure of Paddle, the device or the network means to a person."""

from __future__ import annotations

import errno
import re
from collections.abc import Mapping
from pathlib import Path

from ocr_finetune_api.exit_codes import DeviceError, ExitCode
from ocr_finetune_trainer.training.pulse import Outcome

__all__ = ["explain", "killed_for_memory", "out_of_memory"]

_OUT_OF_MEMORY = re.compile(r"out of memory|ResourceExhausted|CUDA error\(2\)|Cannot allocate", re.IGNORECASE)
_DEVICE = re.compile(
    r"CUDA error|CUDNN|cuBLAS|ECC error|device-side assert|Invalid.*CUDA|no kernel image", re.IGNORECASE
)
_PEER = re.compile(
    r"gloo|Connection reset by peer|Connection closed by peer|NCCL|TCPStore|Timed out waiting|Broken pipe|"
    r"Connection refused|tcp_utils|process_?group|ETIMEDOUT",
    re.IGNORECASE,
)
_AMOUNTS = re.compile(r"(\d+(?:\.\d+)?\s?[KMGT]i?B)")
_STORAGE = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE}


def explain(error: BaseException, *, world: int, trace: str) -> Outcome:
    """The outcome of a failure that nobody expected.

    Args:
        error: What was raised.
        world: How many processes there are: where there are several, a broken connection means a lost peer.
        trace: Its trace, kept for a failure that can't be explained.
    """
    text = str(error)
    first = text.strip().splitlines()[-1][:300] if text.strip() else type(error).__name__
    full = out_of_memory(error)
    if full is not None:
        return Outcome.of(full)
    if _DEVICE.search(text):
        return Outcome(
            exit_code=int(ExitCode.DEVICE), problems=[f"the device failed: {first}"], hint="try another node or device"
        )
    if isinstance(error, OSError) and error.errno in _STORAGE:
        return Outcome(
            exit_code=int(ExitCode.STORAGE),
            problems=[f"{error.filename or 'the workspace'}: {error.strerror}"],
            hint="free or add storage, then run again: training goes on from the newest checkpoint",
        )
    if world > 1 and isinstance(error, RuntimeError | OSError | ValueError) and _PEER.search(text):
        return Outcome(
            exit_code=int(ExitCode.PEER_UNAVAILABLE), problems=[f"the connection to a peer broke: {first}"], peer=True
        )
    return Outcome(
        exit_code=int(ExitCode.INTERNAL),
        problems=[f"internal error: {type(error).__name__}: {first}"],
        hint="this is a mistake of the program; please report it with the trace in the log",
        values={"trace": trace[-8000:]},
    )


def out_of_memory(
    error: BaseException, *, batch_size: int = 0, accumulation: int = 1, used: Mapping[str, int] | None = None
) -> DeviceError | None:
    """What to change if a failure means that a device has too little memory; None if it means something else.

    Args:
        error: What was raised.
        batch_size: Samples of one forward pass; 0 if training had not got that far.
        accumulation: Forward passes of a step.
        used: Bytes in use, as `ocr_finetune_trainer.telemetry.memory.usage` gives them.
    """
    text = str(error)
    if not (isinstance(error, MemoryError) or _OUT_OF_MEMORY.search(text)):
        return None
    amounts = list(dict.fromkeys(_AMOUNTS.findall(text)))
    amounts += [f"{name} in use: {count / 2**30:.1f} GiB" for name, count in (used or {}).items()]
    numbers = f" ({', '.join(amounts)})" if amounts else ""
    doing = f" with {batch_size} samples a forward pass" if batch_size else ""
    if batch_size == 1:
        change = "write training.precision: bf16, or take a smaller model or a device with more memory"
    else:
        half = (
            f"write training.batchSize: {-(-batch_size // 2)} and training.gradientAccumulation: {accumulation * 2}"
            if batch_size
            else "halve training.batchSize and double training.gradientAccumulation"
        )
        change = (
            f"{half}: a step takes as many samples as before, and training goes on from its newest checkpoint; "
            "or use precision: bf16, or a smaller model"
        )
    return DeviceError(f"the device is out of memory{doing}{numbers}", hint=change)


def killed_for_memory(before: int) -> bool:
    """Whether the kernel has killed a process of this container for memory since `oom_kills` gave `before`."""
    return oom_kills() > before


def oom_kills() -> int:
    """How many processes of this container the kernel has killed for memory so far, by its cgroup."""
    for path in (Path("/sys/fs/cgroup/memory.events"), Path("/sys/fs/cgroup/memory/memory.oom_control")):
        try:
            for line in path.read_text(encoding="ascii").splitlines():
                name, _, value = line.partition(" ")
                if name == "oom_kill":
                    return int(value)
        except (OSError, ValueError):
            continue
    return 0
