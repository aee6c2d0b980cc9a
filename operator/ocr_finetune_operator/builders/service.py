"""The headless Service of a run: it gives each training pod a host name, also before it is ready."""

from __future__ import annotations

from typing import Any

from ocr_finetune_api.plan import Stage
from ocr_finetune_operator import names
from ocr_finetune_operator.builders.attempt import Installation, Owner
from ocr_finetune_operator.constants import LABEL_RUN, LABEL_STAGE


def build(owner: Owner, installation: Installation) -> dict[str, Any]:
    """The Service."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": owner.metadata(names.service(owner.name)),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {LABEL_RUN: owner.name, LABEL_STAGE: Stage.TRAIN.value},
            "ports": [
                {"name": "rendezvous", "port": installation.rendezvous_port, "protocol": "TCP"},
                {"name": "metrics", "port": installation.metrics_port, "protocol": "TCP"},
            ],
        },
    }
