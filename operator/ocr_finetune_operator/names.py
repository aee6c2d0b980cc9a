"""Names of a run's objects. Deterministic: an operator that restarts finds what it made before."""

from __future__ import annotations

from ocr_finetune_api.plan import Stage


def job(run: str, stage: Stage, attempt: int) -> str:
    """Name of the Job, and of the ConfigMap, of an attempt: at most 56 characters for a run's name of 40."""
    return f"{run}-{stage.value}-{attempt}"


def service(run: str) -> str:
    """Name of the headless Service that gives the pods of a training their host names."""
    return f"{run}-train"


def network_policy(run: str) -> str:
    """Name of the NetworkPolicy around the pods of a run."""
    return f"{run}-pods"


def snapshot(run: str, spec_hash: str) -> str:
    """Name of the ConfigMap that keeps the spec that was accepted."""
    return f"{run}-spec-{spec_hash[:10]}"


def claim(run: str) -> str:
    """Name of a workspace claim that the operator makes."""
    return f"{run}-workspace"


def rendezvous_host(run: str, attempt: int) -> str:
    """Host name of the first training pod, within the namespace."""
    return f"{job(run, Stage.TRAIN, attempt)}-0.{service(run)}"
