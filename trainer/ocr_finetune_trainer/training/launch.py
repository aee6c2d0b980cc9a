"""Starts the processes of one node with an environment in which nothing but our own words counts."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ocr_finetune_api.exit_codes import ConfigurationError
from ocr_finetune_trainer.processes import end_with_parent

__all__ = ["Command", "check_shared_memory", "clean_environment", "launcher_command", "start", "worker_command"]

# What Paddle's launcher and its workers read from the environment, where it wins over any argument: a variable left over
# from a pod template or an outer launcher would send ranks to the wrong place.
_PREFIXES = ("PADDLE_", "FLAGS_selected_", "OMPI_", "PMI_")
_NAMES = frozenset(
    {
        "POD_IP",
        "POD_NAME",
        "MASTER_ADDR",
        "MASTER_PORT",
        "RANK",
        "WORLD_SIZE",
        "LOCAL_RANK",
        "TRAINING_ROLE",
        "COLLECTIVE_MASTER_IP",
        "FLAGS_START_PORT",
        "http_proxy",
        "https_proxy",
        "HTTP_PROXY",
        "HTTPS_PROXY",
    }
)
_DEVICE = "OCRFT_DEVICE"
_SIGNS_BYTES = 2**20
_NCCL_BYTES = 64 * 2**20  # a channel to a neighbour takes 9 MiB, and there are several each way
_WORKER = "ocr_finetune_trainer.training.worker"
_LAUNCHER = "ocr_finetune_trainer.training.launch"


@dataclass(frozen=True, kw_only=True)
class Command:
    """What every worker is told.

    Attributes:
        config: The run configuration.
        workspace: Root of the workspace.
        folder: In memory, shared by the processes of this node.
        execution: This execution of the attempt.
    """

    config: Path
    workspace: Path
    folder: Path
    execution: str

    def arguments(self) -> list[str]:
        """As `ocr_finetune_trainer.training.worker` reads them."""
        return [
            "--config", str(self.config), "--workspace", str(self.workspace),
            "--folder", str(self.folder), "--execution", self.execution,
        ]  # fmt: skip


def check_shared_memory(folder: Path, *, processes: int, device: str) -> None:
    """Finds out before the first process starts that shared memory is too small: later it would be a bus error.

    Data workers need none of it: their batches lie in anonymous memory. What lies there are the signs of life of a node's
    processes, and the buffers through which NCCL connects the GPUs of a node.

    Args:
        folder: Where it is mounted, or any folder in it.
        processes: Workers of this node.
        device: `gpu` or `cpu`.

    Raises:
        ConfigurationError: There is too little; the message says how much is needed.
    """
    buffers = _NCCL_BYTES if device == "gpu" and processes > 1 else 0
    needed = processes * (_SIGNS_BYTES + buffers)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise ConfigurationError(
            f"{folder}: shared memory has {free / 2**20:.0f} MiB free, and {processes} processes need about "
            f"{needed / 2**20:.0f} MiB of it",
            hint="write a larger pods.sharedMemory, or free it: something else may have filled it",
        )


def clean_environment(environment: Mapping[str, str], *, device: str) -> dict[str, str]:
    """The environment of workers and launcher.

    Args:
        environment: This process's.
        device: `cpu` makes the launcher hand out no GPUs.
    """
    kept = {name: value for name, value in environment.items() if name not in _NAMES and not name.startswith(_PREFIXES)}
    # Threads of one process are slower than processes on CPUs, and their number must not change what comes out.
    kept.setdefault("OMP_NUM_THREADS", "1")
    kept["PYTHONUNBUFFERED"] = "1"
    kept[_DEVICE] = device
    return kept


def worker_command(command: Command) -> list[str]:
    """Starts the only worker there is, without the launcher."""
    return [sys.executable, "-m", _WORKER, *command.arguments(), "--parent", str(os.getpid())]


def launcher_command(
    command: Command, *, nodes: int, node: int, processes: int, master: str, own_address: str
) -> list[str]:
    """Starts the workers of a node through `paddle.distributed.launch`.

    Args:
        command: What every worker is told.
        nodes: Nodes of the gang.
        node: Number of this one.
        processes: Workers of each node.
        master: Address and port at which the launchers meet. The one of node 0 serves there, if the address is its own
            or 127.0.0.1; it would wait for ever for a name.
        own_address: Address of this node, as the others reach it.
    """
    return [
        sys.executable, "-m", _LAUNCHER, str(os.getpid()),
        "--nnodes", str(nodes), "--rank", str(node), "--nproc_per_node", str(processes),
        *(["--master", master] if nodes > 1 else []), "--host", own_address, "--job_id", command.execution,
        "--max_restart", "0", "--log_level", "WARNING", "--enable_gpu_log", "False",
        # Its log folder gets a dump of the whole environment, secrets included: it stays in memory.
        "--log_dir", str(command.folder / "launcher"),
        # Given a script, it would put the script's folder on the path, where our modules could hide others.
        sys.executable, "-u", "-m", _WORKER, *command.arguments(),
    ]  # fmt: skip


def start(arguments: Sequence[str], *, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Starts a process in a session of its own, so that Ctrl-C reaches only the one that decides."""
    return subprocess.Popen(list(arguments), env=dict(environment), stdin=subprocess.DEVNULL, start_new_session=True)


def main() -> None:
    """Runs Paddle's launcher, and takes it along when this process's parent ends: by itself it would go on."""
    end_with_parent(signal.SIGKILL, parent=int(sys.argv[1]))
    sys.argv = [sys.argv[0], *sys.argv[2:]]
    processes = int(sys.argv[sys.argv.index("--nproc_per_node") + 1])
    import paddle

    count = paddle.device.cuda.device_count() if paddle.device.is_compiled_with_cuda() else 0
    if count and os.environ.get(_DEVICE) == "cpu":
        # It hands a device to each process wherever there are any; the workers do not use them.
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(str(number) for number in range(processes))
    elif 0 < count < processes:
        sys.exit(f"distributed.devicesPerNode: {processes}, but this node has {count} GPUs")
    from paddle.distributed.launch.main import launch

    launch()


if __name__ == "__main__":
    main()
