"""What ranks do together beside training on the same data: other shapes, one set of statistics, a shared evaluation."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from training_rig import Job, digits, write_set

from ocr_finetune_trainer.dictionary import Dictionary
from ports import reserved

SCRIPT = Path(__file__).with_name("rank_facts.py")
SAMPLES = 11  # an odd number: the shares differ


@pytest.fixture(scope="module")
def facts(tmp_path_factory) -> list[dict]:
    """What each of two ranks has found out."""
    folder = tmp_path_factory.mktemp("facts")
    workspace = Job(folder, {}).workspace
    write_set(workspace, "set", digits(SAMPLES))
    Dictionary(tuple("0123456789"), use_space=False).save(folder / "dictionary.txt")
    with reserved() as port:
        ranks = [
            subprocess.Popen(
                [sys.executable, "-W", "ignore", str(SCRIPT), str(folder), str(workspace.data / "set")],
                env=os.environ | {
                    "OMP_NUM_THREADS": "1", "PADDLE_TRAINER_ID": str(rank), "PADDLE_TRAINERS_NUM": "2",
                    "PADDLE_MASTER": f"127.0.0.1:{port}", "PADDLE_CURRENT_ENDPOINT": f"127.0.0.1:{port + rank}",
                    "PADDLE_TRAINER_ENDPOINTS": f"127.0.0.1:{port},127.0.0.1:{port + 1}",
                },
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            )
            for rank in (0, 1)
        ]  # fmt: skip
        outputs = [rank.communicate(timeout=300)[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], outputs
    return [json.loads((folder / f"facts-{rank}.json").read_text(encoding="utf-8")) for rank in (0, 1)]


def test_pictures_of_other_shapes_on_each_rank_train_one_model(facts):
    assert facts[0]["weights"] == facts[1]["weights"]
    assert facts[0]["weights"] != facts[0]["begin"]


def test_statistics_are_one_set_where_a_model_is_measured_and_each_rank_s_own_after(facts):
    assert facts[0]["own"] != facts[1]["own"], "the ranks saw other pictures"
    assert facts[0]["together"] == facts[1]["together"]
    assert facts[0]["together"] == pytest.approx((facts[0]["own"] + facts[1]["own"]) / 2, rel=1e-5)
    for rank in facts:
        assert rank["after"] == rank["own"]


def test_each_sample_is_measured_on_one_rank_and_all_know_the_figures(facts):
    assert [rank["measured"] for rank in facts] == [6, 5]
    assert facts[0]["figures"] == facts[1]["figures"]
    assert facts[0]["figures"]["samples"] == SAMPLES


def test_ranks_that_write_nothing_wait_for_a_slow_disk_outside_of_a_collective(facts):
    for rank in facts:
        assert rank["waited"] >= 1.0, "the second checkpoint must not begin before the first is written"
