"""Runs the stages of a plan as processes on this machine, under the contract the pods of a cluster have."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from ocr_finetune_api import results, run_config
from ocr_finetune_api.exit_codes import ConfigurationError, ExitCode, OutputError, class_of
from ocr_finetune_api.manifest import OCRFineTune, rewrite_uris
from ocr_finetune_api.plan import STAGES, Plan, Stage, StagePlan, plan
from ocr_finetune_api.progress import Progress
from ocr_finetune_api.results import StageResult
from ocr_finetune_api.run_config import Rendezvous, RunConfig, RunIdentity
from ocr_finetune_api.spec import OCRFineTuneSpec
from ocr_finetune_api.values import seconds
from ocr_finetune_api.workspace import Workspace, run_folder

LOCAL_UID = "local"
POLL_SECONDS = 0.2
LAST_LINES = 5

Watcher = Callable[[Stage, Progress], None]


class LocalEngine:
    """One run on this machine.

    Attributes:
        workspace: Where its files lie.
        plan: Its stages.
        name: Its name.
        model_name: The model it trains, by its name in the model table.
    """

    def __init__(
        self, manifest: OCRFineTune, *, folder: Path, root: Path, claims: Mapping[str, Path] | None = None
    ) -> None:
        """Resolves the addresses of a manifest; touches nothing.

        Args:
            manifest: The run.
            folder: What relative paths of the manifest are relative to.
            root: Root of the workspace.
            claims: Where `pvc://<claim>` lies on this machine, by claim.

        Raises:
            ConfigurationError: An address names a claim that `claims` lacks.
        """
        self.name = manifest.metadata.name
        self._spec = rewrite_uris(manifest.spec, _Resolver(folder=folder, claims=claims or {}))
        self.workspace = Workspace(root.absolute(), run_folder(self.name, LOCAL_UID))
        self.plan: Plan = plan(self._spec)
        self.model_name = manifest.spec.model.name
        self._children: list[subprocess.Popen[bytes]] = []
        self._codes: dict[int, int] = {}
        self._lock_descriptor = -1
        self._stops = 0

    @property
    def spec(self) -> OCRFineTuneSpec:
        """The run's spec, its addresses resolved."""
        return self._spec

    def result(self, stage: Stage) -> StageResult | None:
        """The result of a stage, if it is done for the manifest as it stands."""
        earlier = self.result(STAGES[STAGES.index(stage) - 1]) if stage is not STAGES[0] else None
        if earlier is None and stage is not STAGES[0]:
            return None
        result = results.read(self.workspace.result(stage))
        is_done = result and result.succeeded and result.input_hash == results.input_hash(self.plan[stage], earlier)
        return result if is_done else None

    def run(self, stage: Stage, *, watch: Watcher) -> StageResult:
        """Runs one stage to its end; call it within `lock`.

        Args:
            stage: Which stage; it prints its old result again when nothing it depends on has changed.
            watch: Called with the progress, a few times a second.

        Returns:
            How it ended. A process that died without leaving a result is reported as what its end looks like.
        """
        planned = self.plan[stage]
        started = time.time()
        logs = [self.workspace.logs / f"{stage.value}.node-{node}.log" for node in range(planned.nodes)]
        with _reserved_port() as metrics_port, _reserved_port() as rendezvous_port:
            self._configure(planned, metrics_port=metrics_port, rendezvous_port=rendezvous_port)
            self._children = [self._start(stage, node=node, log=log) for node, log in enumerate(logs)]
            try:
                first = self._wait(stage, port=metrics_port, watch=watch)
            finally:
                self._end_children()
        return self._result(planned, failed_node=first, logs=logs, since=started)

    def stop(self) -> None:
        """Asks the running stage to stop with a checkpoint; asked again, ends it at once. Safe in a signal handler."""
        self._stops += 1
        for child in self._children:
            if child.poll() is None:
                child.send_signal(signal.SIGTERM if self._stops == 1 else signal.SIGKILL)

    @property
    def stopping(self) -> bool:
        """Whether somebody asked for a stop."""
        return self._stops > 0

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keeps other processes from working on this run.

        The processes of the stages inherit the lock, so it is held until the last of them has ended.

        Raises:
            OutputError: Somebody else works on it, or the workspace cannot be written.
        """
        path = self.workspace.folder / "lock"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("a+")
        except OSError as error:
            raise OutputError(
                f"{error.filename}: {error.strerror}: the workspace cannot be written",
                hint="choose another folder with --workspace, or make this one writable",
            ) from error
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                raise OutputError(
                    f"{self.workspace.folder}: this run is being worked on by {_owner(file)}",
                    hint="wait for it to end, or stop it",
                ) from None
            file.truncate(0)
            owner = {"pid": os.getpid(), "host": socket.gethostname(), "since": datetime.now(UTC).isoformat()}
            file.write(json.dumps(owner))
            file.flush()
            self._lock_descriptor = file.fileno()
            yield

    def _configure(self, planned: StagePlan, *, metrics_port: int, rendezvous_port: int) -> None:
        """Writes the run configuration of the next attempt."""
        policy = self._spec.policy
        config = RunConfig(
            run=RunIdentity(name=self.name, uid=LOCAL_UID),
            spec=self._spec,
            attempt=self._last_attempt() + 1,
            nodes=planned.nodes,
            devices_per_node=planned.devices_per_node,
            device=self._spec.distributed.device,
            rendezvous=Rendezvous(port=rendezvous_port, timeout_seconds=seconds(policy.rendezvous_timeout)),
            metrics_port=metrics_port,
            grace_period_seconds=seconds(policy.grace_period),
            stall_timeout_seconds=seconds(policy.stall_timeout),
        )
        self.workspace.logs.mkdir(parents=True, exist_ok=True)
        aside = self.workspace.run_config.with_suffix(".new")
        aside.write_text(config.to_yaml(), encoding="utf-8")
        aside.replace(self.workspace.run_config)

    def _last_attempt(self) -> int:
        try:
            return run_config.read(self.workspace.run_config).attempt
        except ConfigurationError:
            return 0

    def _start(self, stage: Stage, *, node: int, log: Path) -> subprocess.Popen[bytes]:
        arguments = ["--config", str(self.workspace.run_config), "--workspace", str(self.workspace.root)]
        environment = os.environ | {
            "OCRFT_NODE_RANK": str(node),
            "OCRFT_PARENT_PID": str(os.getpid()),
            "PYTHONUNBUFFERED": "1",
        }
        if node > 0:
            # One port a node; only node 0 is watched here.
            environment["OCRFT_METRICS_PORT"] = "0"
        with log.open("ab") as output:
            return subprocess.Popen(
                [sys.executable, "-m", "ocr_finetune_trainer.cli", "stage", stage.value, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,  # Ctrl-C reaches the engine alone, which then asks for a stop
                pass_fds=[self._lock_descriptor],
            )

    def _wait(self, stage: Stage, *, port: int, watch: Watcher) -> int | None:
        """Waits for all nodes; returns the first that failed."""
        failed: int | None = None
        while True:
            codes = [child.poll() for child in self._children]
            if failed is None:
                failed = next((node for node, code in enumerate(codes) if code), None)
            if all(code is not None for code in codes):
                return failed
            progress = _progress(port)
            if progress is not None and progress.stage is stage:
                watch(stage, progress)
            time.sleep(POLL_SECONDS)

    def _end_children(self) -> None:
        for child in self._children:
            if child.poll() is None:
                child.kill()
        self._codes = {node: child.wait() for node, child in enumerate(self._children)}
        self._children = []

    def _result(
        self, planned: StagePlan, *, failed_node: int | None, logs: Sequence[Path], since: float
    ) -> StageResult:
        done = self.result(planned.stage)
        if failed_node is None and done is not None:
            return done
        path = self.workspace.result(planned.stage)
        failed = results.read(path)
        # A second of tolerance: file systems round the time of a change.
        if failed is not None and not failed.succeeded and path.stat().st_mtime >= since - 1:
            return failed
        return self._without_result(planned, failed_node or 0, logs[failed_node or 0])

    def _without_result(self, planned: StagePlan, node: int, log: Path) -> StageResult:
        tail = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LAST_LINES:]
        code = self._codes.get(node, int(ExitCode.INTERNAL))
        ended = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        return StageResult(
            stage=planned.stage,
            input_hash=planned.input_hash,
            exit_code=128 - code if code < 0 else code or int(ExitCode.INTERNAL),
            failure_class=class_of(code),
            message=f"{planned.stage.value}: node {node} {ended} and left no result",
            hint=f"its last lines are below, all of them in {log}; run again to go on from the last checkpoint",
            problems=tail,
        )


class _Resolver:
    """Makes addresses of a manifest usable on this machine."""

    def __init__(self, *, folder: Path, claims: Mapping[str, Path]) -> None:
        self._folder = folder
        self._claims = claims

    def __call__(self, uri: str) -> str:
        scheme, _, rest = uri.rpartition("://")
        if not scheme:
            return str((self._folder / Path(uri).expanduser()).absolute())
        if scheme == "pvc":
            claim, _, path = rest.partition("/")
            if claim not in self._claims:
                raise ConfigurationError(
                    f"{uri}: there is no cluster here to mount the claim {claim!r} from",
                    hint=f"say where its files are on this machine: --claim {claim}=FOLDER",
                )
            return str((self._claims[claim] / path).absolute())
        return uri


def _progress(port: int) -> Progress | None:
    # A proxy of this machine's environment would look for the stage on its own.
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(f"http://127.0.0.1:{port}/progress", timeout=1) as reply:
            return Progress.model_validate_json(reply.read())
    except (urllib.error.URLError, OSError, ValueError):
        return None


@contextmanager
def _reserved_port() -> Iterator[int]:
    """A port that no other program of this machine is given, while the context lasts.

    It is bound here, and a server that is told its number and reuses addresses may still listen there. One that was only
    looked up could be gone before a stage has loaded its libraries.
    """
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        port: int = held.getsockname()[1]
        yield port


def _owner(file: IO[str]) -> str:
    try:
        owner = json.loads(file.read())
        return f"process {owner['pid']} on {owner['host']} since {owner['since']}"
    except (json.JSONDecodeError, KeyError):
        return "another process"
