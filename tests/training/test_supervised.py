"""`ocrft stage train` as pods run it: launcher, ranks, and what every node says when one of them is lost."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
from training_rig import Job, wait_for

from ocr_finetune_api import results
from ocr_finetune_api.plan import Stage, plan
from ocr_finetune_api.results import StageResult
from ocr_finetune_trainer.training.pulse import read_state
from ports import reserved

LONG = {"epochs": 2000, "batchSize": 4, "checkpoint": {"everySteps": 5}, "evaluate": {"every": "50 epochs"}}


@dataclass
class Node:
    process: subprocess.Popen
    log: Path

    @property
    def text(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def wait(self) -> int:
        return self.process.wait(timeout=300)


@dataclass
class Cluster:
    """The nodes of a run on this machine."""

    job: Job
    folder: Path
    port: int
    nodes: list[Node] = field(default_factory=list)

    def start(
        self, nodes: int, processes: int = 1, *, only: tuple[int, ...] = (), rendezvous: int = 300, **environment
    ):
        config = self.job.config(
            nodes=nodes,
            devices_per_node=processes,
            rendezvous={"host": "127.0.0.1", "port": self.port, "timeoutSeconds": rendezvous},
            metrics_port=0,
            grace_period_seconds=60,
        )
        prepared = StageResult(stage=Stage.PREPARE, input_hash=plan(config.spec)[Stage.PREPARE].input_hash)
        results.write(prepared, self.job.workspace.result(Stage.PREPARE))
        file = self.folder / "run.yaml"
        file.write_text(config.to_yaml(), encoding="utf-8")
        for node in only or range(nodes):
            log = self.folder / f"node-{node}.log"
            with log.open("ab") as output:
                process = subprocess.Popen(
                    [sys.executable, "-m", "ocr_finetune_trainer.cli", "stage", "train",
                     "--config", str(file), "--workspace", str(self.job.root)],
                    stdout=output, stderr=subprocess.STDOUT,
                    env=os.environ | {
                        "OMP_NUM_THREADS": "1", "OCRFT_NODE_RANK": str(node),
                        # Left over from somewhere: nothing of this may count.
                        "PADDLE_TRAINER_ENDPOINTS": "10.9.9.9:1", "MASTER_ADDR": "10.9.9.9", "MASTER_PORT": "1",
                        "PADDLE_MASTER": "10.9.9.9:1", "PADDLE_NNODES": "7", **environment,
                    },
                )  # fmt: skip
            self.nodes.append(Node(process, log))
        return self

    def workers(self) -> dict[int, psutil.Process]:
        """The processes that train, by rank."""
        found = {}
        for node in self.nodes:
            try:
                children = psutil.Process(node.process.pid).children(recursive=True)
            except psutil.NoSuchProcess:
                continue
            for child in children:
                try:
                    line = child.cmdline()
                    if line[2:4] == ["-m", "ocr_finetune_trainer.training.worker"] or (
                        line[1:3] == ["-m", "ocr_finetune_trainer.training.worker"]
                    ):
                        found[int(child.environ().get("PADDLE_TRAINER_ID", "0"))] = child
                except (psutil.NoSuchProcess, psutil.ZombieProcess):
                    continue
        return found

    def wait_for_step(self, step: int) -> None:
        wait_for(lambda: any(c.step >= step for c in self.job.checkpoints()) or self._failed(), what=f"step {step}")

    def _failed(self) -> bool:
        for node in self.nodes:
            assert node.process.poll() in (None, 0), node.text
        return False

    def close(self) -> None:
        for node in self.nodes:
            if node.process.poll() is None:
                node.process.kill()
                node.process.wait()


@pytest.fixture
def cluster(make_job, tmp_path):
    made = []

    with reserved() as port:

        def make(**training) -> Cluster:
            made.append(Cluster(make_job(**training), tmp_path, port))
            return made[-1]

        yield make
        for one in made:
            one.close()


def test_two_nodes_train_through_the_launcher_like_two_processes_of_one(cluster, zygote, make_job):
    run = cluster(batchSize=4)
    run.job.distributed = {"device": "cpu", "nodes": 2}
    run.start(2)
    assert [node.wait() for node in run.nodes] == [0, 0], run.nodes[0].text
    result = json.loads((run.job.workspace.folder / "results" / "train.json").read_text(encoding="utf-8"))
    assert result["exitCode"] == 0
    assert result["details"]["world"] == 2
    assert result["metrics"]["steps"] == 12
    one_node = make_job(batchSize=4, distributed={"devicesPerNode": 2})
    assert zygote.start(one_node, world=2).wait() == [0, 0]
    assert run.job.losses() == pytest.approx(one_node.losses(), rel=1e-5)


def test_three_nodes_train_like_one_process(cluster, zygote, make_job):
    same = {"epochs": 1, "batchNorm": "frozen"}
    run = cluster(batchSize=4, **same)
    run.job.distributed = {"device": "cpu", "nodes": 3}
    run.start(3)
    assert [node.wait() for node in run.nodes] == [0, 0, 0], run.nodes[0].text
    alone = make_job(batchSize=12, **same)
    assert zygote.start(alone).wait() == [0]
    assert run.job.losses() == pytest.approx(alone.losses(), rel=2e-3)


def test_a_killed_rank_ends_every_node_with_69_and_its_name(cluster):
    run = cluster(**LONG).start(2)
    run.wait_for_step(5)
    workers = run.workers()
    workers[1].kill()
    assert [node.wait() for node in run.nodes] == [69, 69]
    for node in run.nodes:
        assert "rank 1" in node.text.rpartition("error:")[2], node.text
    assert not any(map(lives, workers.values()))


def test_a_stopped_rank_is_named_on_every_node_within_the_deadline(cluster):
    run = cluster(**LONG).start(2, OCRFT_PEER_TIMEOUT="6")
    run.wait_for_step(5)
    run.workers()[1].suspend()
    assert [node.wait() for node in run.nodes] == [69, 69]
    for node in run.nodes:
        said = node.text.rpartition("error:")[2]
        named = re.search(r"rank 1 \(node 1\), .* has given no sign of life for (\d+) s", said)
        assert named, node.text
        assert int(named[1]) < 28, "a collective gives up after 30 s by itself"


def test_a_rank_that_hardly_runs_is_named_while_it_still_shows_signs_of_life(cluster):
    run = cluster(**LONG).start(2, OCRFT_PEER_TIMEOUT="6")
    run.wait_for_step(5)
    with hardly_running(run.workers()[1]):
        assert [node.wait() for node in run.nodes] == [69, 69]
    for node in run.nodes:
        said = node.text.rpartition("error:")[2]
        assert re.search(r"rank 1 \(node 1\), at '(data|compute)' of step", said), node.text
        assert "keeps the others waiting: it is too slow or hangs" in said, node.text


def test_a_rank_whose_data_does_not_come_is_named(cluster):
    run = cluster(**LONG | {"workers": 1}).start(2, OCRFT_PEER_TIMEOUT="4")
    run.wait_for_step(5)
    [loading] = run.workers()[1].children()
    loading.suspend()
    assert [node.wait() for node in run.nodes] == [69, 69]
    for node in run.nodes:
        said = node.text.rpartition("error:")[2]
        assert "rank 1 (node 1), at 'data' of step" in said, node.text
        assert "keeps the others waiting" in said, node.text


@contextmanager
def hardly_running(process: psutil.Process) -> Iterator[None]:
    """Lets rank 1 run from one sign of life to the next, and stand still for seconds between them."""
    line = process.cmdline()
    folder = Path(line[line.index("--folder") + 1])
    end = threading.Event()

    def beat() -> float:
        state = read_state(folder, 1)
        return state.beat if state else 0.0

    def throttle() -> None:
        with suppress(psutil.NoSuchProcess):
            while not end.is_set():
                process.suspend()
                end.wait(2.5)
                before = beat()
                process.resume()
                while beat() == before and not end.wait(0.001):
                    pass

    thread = threading.Thread(target=throttle)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()


def lives(process: psutil.Process) -> bool:
    """Whether a process runs; one that is dead and not yet buried does not."""
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def test_sigterm_to_one_node_stops_all_with_a_checkpoint(cluster):
    run = cluster(**LONG).start(2)
    run.wait_for_step(5)
    run.nodes[1].process.send_signal(signal.SIGTERM)
    assert [node.wait() for node in run.nodes] == [75, 75], run.nodes[0].text
    assert run.job.checkpoints()[0].step > 5


def test_sigterm_when_a_peer_is_already_gone_still_ends_as_a_stop(cluster):
    run = cluster(**LONG).start(2)
    run.wait_for_step(5)
    first = run.nodes[0].process
    # Whoever stops it is quicker than it notices the loss.
    first.send_signal(signal.SIGSTOP)
    run.workers()[1].kill()
    first.send_signal(signal.SIGTERM)
    first.send_signal(signal.SIGCONT)
    assert run.nodes[0].wait() == 75, run.nodes[0].text
    assert "not all ranks could agree on a last checkpoint, so the checkpoint of step" in run.nodes[0].text
    assert run.nodes[1].wait() in (69, 75), run.nodes[1].text
    assert run.job.checkpoints()[0].step >= 5


def test_a_node_that_does_not_come_is_named(cluster):
    run = cluster().start(2, only=(0,), rendezvous=2)
    assert run.nodes[0].wait() == 69
    assert "node 1 of 2 did not come to the rendezvous" in run.nodes[0].text


def test_two_ranks_of_one_node_die_with_a_killed_supervisor(cluster):
    run = cluster(**LONG).start(1, 2)
    run.wait_for_step(5)
    workers = run.workers()
    assert sorted(workers) == [0, 1]
    run.nodes[0].process.kill()
    wait_for(lambda: not any(map(lives, workers.values())))


def test_a_profile_is_made_for_the_supervisor_and_a_stop_file_stops_and_is_taken_away(cluster):
    run = cluster(**LONG).start(1)
    run.wait_for_step(5)
    run.nodes[0].process.send_signal(signal.SIGUSR1)
    wait_for(lambda: run.job.events("profile"), what="the profile")
    run.job.workspace.stop_request.touch()
    assert run.nodes[0].wait() == 75, run.nodes[0].text
    assert not run.job.workspace.stop_request.exists()
