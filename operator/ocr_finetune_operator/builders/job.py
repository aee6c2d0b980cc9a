"""The Job of an attempt: one pod a node, no retries of its own.

Without a podFailurePolicy: with one, a queue that preempts the Job can make it fail. `spec.suspend` is never set: it
belongs to the queue.
"""

from __future__ import annotations

from typing import Any

from ocr_finetune_operator import names
from ocr_finetune_operator.builders import pod
from ocr_finetune_operator.builders.attempt import AttemptPlan
from ocr_finetune_operator.constants import ANNOTATION_INPUT_HASH, KUEUE_PRIORITY, KUEUE_QUEUE


def build(attempt: AttemptPlan) -> dict[str, Any]:
    """The Job."""
    metadata = attempt.owner.metadata(
        names.job(attempt.owner.name, attempt.stage, attempt.number), labels=attempt.labels() | _queue_labels(attempt)
    )
    metadata["annotations"] = {ANNOTATION_INPUT_HASH: attempt.input_hash}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata,
        "spec": {
            "completionMode": "Indexed",
            "completions": attempt.nodes,
            "parallelism": attempt.nodes,
            "backoffLimit": 0,
            "podReplacementPolicy": "Failed",
            "template": pod.build(attempt),
        },
    }


def _queue_labels(attempt: AttemptPlan) -> dict[str, str]:
    queue = pod.queue_of(attempt)
    if not queue:
        return {}
    priority = attempt.spec.queue.priority_class
    return {KUEUE_QUEUE: queue} | ({KUEUE_PRIORITY: priority} if priority else {})
