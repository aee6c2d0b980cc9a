"""What a failure of Paddle, the device or the network means to a person."""

from __future__ import annotations

import errno
import re
from pathlib import Path

from ocr_finetune_api.exit_codes import ExitCode
from ocr_finetune_trainer.training.pulse import Outcome

__all__ = ["explain", "killed_for_memory"]

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
    if isinstance(error, MemoryError) or _OUT_OF_MEMORY.search(text):
        amounts = ", ".join(dict.fromkeys(_AMOUNTS.findall(text)))
        numbers = f" ({amounts})" if amounts else ""
        return Outcome(
            exit_code=int(ExitCode.DEVICE),
            problems=[f"the device is out of memory{numbers}"],
            hint="halve training.batchSize and double training.gradientAccumulation: the result stays the same; "
            "or use precision: bf16, or a smaller model",
        )
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
