"""Where the next attempt may run, and on how many nodes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ocr_finetune_api.exit_codes import FailureClass
from ocr_finetune_api.plan import Stage
from ocr_finetune_api.spec import OCRFineTuneSpec
from ocr_finetune_api.status import Attempt, Outcome

FAILURES_OF_A_NODE = 2
# What speaks against a node; an error in the data would follow the run everywhere.
_OF_THE_NODE = (FailureClass.DEVICE, FailureClass.INTERNAL, FailureClass.STALLED, FailureClass.NODE_LOST)


def avoided_nodes(spec: OCRFineTuneSpec, attempts: Sequence[Attempt]) -> tuple[str, ...]:
    """Nodes on which the run failed twice."""
    if not spec.policy.avoid_failed_nodes:
        return ()
    failed = Counter(one.node for one in attempts if one.node and one.failure_class in _OF_THE_NODE)
    return tuple(sorted(node for node, times in failed.items() if times >= FAILURES_OF_A_NODE))


def nodes_for(spec: OCRFineTuneSpec, stage: Stage, attempts: Sequence[Attempt]) -> int:
    """On how many nodes the next attempt at a stage runs.

    An attempt that could not be scheduled is followed by one on fewer nodes, down to `minNodes`; any other one by one
    on all nodes again.
    """
    if stage is not Stage.TRAIN:
        return 1
    wanted, least = spec.distributed.nodes, spec.distributed.min_nodes
    last = next((one for one in reversed(attempts) if one.stage is stage and one.outcome is not None), None)
    if last is None or not could_shrink(spec, last):
        return wanted
    return max(least, min(last.nodes - 1, last.scheduled or last.nodes - 1, wanted))


def could_shrink(spec: OCRFineTuneSpec, attempt: Attempt) -> bool:
    """Whether an attempt failed in a way that fewer nodes may mend."""
    return (
        attempt.stage is Stage.TRAIN
        and attempt.outcome is Outcome.FAILED
        and attempt.failure_class is FailureClass.UNSCHEDULABLE
        and attempt.nodes > spec.distributed.min_nodes
    )
