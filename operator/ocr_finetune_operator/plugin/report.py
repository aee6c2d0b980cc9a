"""Fetches a report out of a workspace: by a pod that mounts the claim, read-only, for as long as the copy takes."""

from __future__ import annotations

import json
import secrets
from pathlib import Path
from typing import Any

from ocr_finetune_api.exit_codes import InputMissingError
from ocr_finetune_operator.constants import APP_NAME, LABEL_NAME, WORKSPACE_FOLDER
from ocr_finetune_operator.plugin.kubectl import ClusterError, Kubectl
from ocr_finetune_operator.plugin.view import status_of

_LIVES_SECONDS = 600


def fetch(kubectl: Kubectl, run: dict[str, Any], *, which: str, target: Path, patience: str) -> Path:
    """Copies a report to this machine.

    Args:
        kubectl: To ask with.
        run: The run.
        which: evaluation or data.
        target: Where it goes.
        patience: How long the pod may take to start, such as `2m`.

    Raises:
        InputMissingError: There is no such report yet.
        ClusterError: The pod could not start, or the file not be read.
    """
    status = status_of(run)
    artifacts = status.artifacts
    path = (artifacts.report if which == "evaluation" else artifacts.data_report) if artifacts else ""
    if not path:
        stage = "evaluate" if which == "evaluation" else "prepare"
        name = run["metadata"]["name"]
        raise InputMissingError(
            f"{name} has no report on the {which} yet: it comes from the stage {stage}",
            hint=f"see how far it is: kubectl ocrft status {name}",
        )
    pod = f"{run['metadata']['name']}-report-{secrets.token_hex(3)}"
    kubectl.run("create", "-f", "-", text_input=json.dumps(_pod(pod, claim=status.claim, image=status.resolved.image)))
    try:
        try:
            kubectl.run("wait", "--for=condition=Ready", f"pod/{pod}", f"--timeout={patience}")
        except ClusterError as error:
            raise ClusterError(
                f"the pod that reads the workspace did not start within {patience}: {error}",
                hint="a claim that only one node can mount is free again when the run has ended",
            ) from error
        data = kubectl.save("exec", pod, "--", "cat", path)
    finally:
        kubectl.run("delete", "pod", pod, "--wait=false", "--ignore-not-found")
    target.write_bytes(data)
    return target


def _pod(name: str, *, claim: str, image: str) -> dict[str, Any]:
    restricted = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {LABEL_NAME: APP_NAME}},
        "spec": {
            "restartPolicy": "Never",
            "activeDeadlineSeconds": _LIVES_SECONDS,
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 0,
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [
                {
                    "name": "reader",
                    "image": image,
                    "command": ["sleep", str(_LIVES_SECONDS)],
                    # What is run in it begins here, so that paths are those of the status.
                    "workingDir": WORKSPACE_FOLDER,
                    "securityContext": restricted,
                    "volumeMounts": [{"name": "workspace", "mountPath": WORKSPACE_FOLDER, "readOnly": True}],
                    "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
                }
            ],
            "volumes": [{"name": "workspace", "persistentVolumeClaim": {"claimName": claim, "readOnly": True}}],
        },
    }
