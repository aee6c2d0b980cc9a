"""From ``kubectl apply`` to a model that ``paddleocr`` reads with, on two nodes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from kube_testing.client import condition

if TYPE_CHECKING:
    from collections.abc import Callable

    from cluster_testing.cluster import Cluster
    from cluster_testing.runs import Run


def test_two_nodes_train_a_model_that_paddleocr_reads_with(cluster: Cluster, start: Callable[..., Run]) -> None:
    run = start()
    run.wait_phase("Training")
    run.wait(lambda _: len(run.pods()) == 2, describe="two training pods")
    assert {pod["spec"]["nodeName"] for pod in run.pods()} == {"node-0", "node-1"}
    status = run.wait_phase("Succeeded")
    assert condition(run.get(), "Complete")
    assert status["metrics"]["best"]["accuracy"] > 0.95
    assert [attempt["outcome"] for attempt in status["attempts"]] == ["Succeeded"] * 4
    result = json.loads((run.folder() / "results" / "train.json").read_text())
    assert result
