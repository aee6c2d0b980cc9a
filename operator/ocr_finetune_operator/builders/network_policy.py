"""The NetworkPolicy of a run: its pods reach each other on all ports, everybody else only their metrics.

Paddle's workers listen on random ports, so the ports between the pods of one run can't be named.
"""

from __future__ import annotations

from typing import Any

from ocr_finetune_operator import names
from ocr_finetune_operator.builders.attempt import Installation, Owner
from ocr_finetune_operator.constants import LABEL_RUN


def build(owner: Owner, installation: Installation) -> dict[str, Any]:
    """The NetworkPolicy; it leaves what goes out alone."""
    run = {"matchLabels": {LABEL_RUN: owner.name}}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": owner.metadata(names.network_policy(owner.name)),
        "spec": {
            "podSelector": run,
            "policyTypes": ["Ingress"],
            "ingress": [
                {"from": [{"podSelector": run}]},
                {"ports": [{"port": installation.metrics_port, "protocol": "TCP"}]},
            ],
        },
    }
