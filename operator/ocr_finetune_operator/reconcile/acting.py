"""Makes and deletes what a decision asks for. Everything here may be done again: by a retry, or by the next process."""

from __future__ import annotations

import logging
from typing import Any

from ocr_finetune_api.plan import content_hash
from ocr_finetune_operator.constants import ANNOTATION_CONTENT, LABEL_RUN, MANAGER
from ocr_finetune_operator.kube.client import Client
from ocr_finetune_operator.kube.errors import ConflictError, ForbiddenError
from ocr_finetune_operator.reconcile.cache import Cache, RunKey
from ocr_finetune_operator.reconcile.draft import MAX_MESSAGE, Action, Create, Delete, Note
from ocr_finetune_operator.reconcile.events import Recorder
from ocr_finetune_operator.reconcile.observation import Problem
from ocr_finetune_operator.reconcile.views import Manifest, RunView, owner_of

logger = logging.getLogger(__name__)

_SELECTS = ("selector", "podSelector", "ingress")


class BlockedError(Exception):
    """The API server does not let something be made now."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


class Hands:
    """Carries out actions, one run at a time each."""

    def __init__(self, client: Client, cache: Cache, recorder: Recorder) -> None:
        self._client = client
        self._cache = cache
        self._recorder = recorder

    async def do(self, run: RunView, action: Action) -> None:
        """Carries out an action.

        Raises:
            BlockedError: It can't be done now; the run should say why.
        """
        key = (run.namespace, run.name)
        if isinstance(action, Delete):
            await self._delete(key, action)
            return
        if action.repair:
            await self._repair(key, run, action)
            return
        made = await self._make(key, run, action)
        if made["kind"] == "Job":
            self._cache.see_job(made)

    async def _delete(self, key: RunKey, action: Delete) -> None:
        try:
            was_there = await self._client.delete(
                action.kind,
                action.name,
                key[0],
                uid=action.uid,
                propagation=action.propagation,
                grace=0 if action.force else None,
            )
        except ConflictError:
            logger.info("%s %s is another one now; left alone", action.kind, action.name)
            return
        if action.kind == "Job" and not was_there:
            # A Job that lost its labels is not watched: nothing else tells that it is gone.
            self._cache.drop_job(key, action.name)

    async def _make(self, key: RunKey, run: RunView, action: Create) -> Manifest:
        try:
            return await self._client.create(action.manifest)
        except ConflictError:
            pass
        except ForbiddenError as error:
            raise BlockedError(Problem(reason="Forbidden", message=error.message)) from error
        found = await self._client.get(action.kind, action.name, key[0])
        if found is None:
            return await self._client.create(action.manifest)
        return await self._keep(key, run, action, found)

    async def _repair(self, key: RunKey, run: RunView, action: Create) -> None:
        """Makes something again if somebody has deleted or changed it, and says so."""
        found = await self._client.get(action.kind, action.name, key[0])
        try:
            if found is None:
                await self._make(key, run, action)
                reason, what = "Repaired", "was deleted, not by the operator; it is made again"
            elif await self._keep(key, run, action, found) is found:
                return
            else:
                reason, what = "Repaired", "was changed, not by the operator; it is put right"
        except BlockedError as error:
            reason, what = error.problem.reason, f"is not as it should be: {error.problem.message}"
        message = f"{action.kind} {action.name} {what}"
        logger.warning("%s", message, extra={"run": "/".join(key)})
        self._recorder.record(run, Note(reason=reason, message=message[:MAX_MESSAGE], warning=True))

    async def _keep(self, key: RunKey, run: RunView, action: Create, found: Manifest) -> Manifest:
        """The object is there already: ours from before, ours but changed, or somebody else's.

        Returns:
            `found` itself if nothing had to be done about it.
        """
        manifest, kind, name = action.manifest, action.kind, action.name
        found |= {"kind": kind, "apiVersion": manifest["apiVersion"]}
        labels = found["metadata"].get("labels") or {}
        kept = kind == "PersistentVolumeClaim" and labels.get(LABEL_RUN) == run.name and not owner_of(found)
        if owner_of(found) != run.uid and not kept:
            if kind == "Job":
                self._cache.see_job(found)
            message = f"{kind} {name} belongs to another object; waiting until it is gone"
            raise BlockedError(Problem(reason="NameConflict", message=message))
        if "deletionTimestamp" in found["metadata"]:
            raise BlockedError(Problem(reason="NameConflict", message=f"{kind} {name} is still being deleted"))
        if action.apply:
            return found if _has(found, manifest) else await self._client.apply(manifest, manager=MANAGER)
        # One that is looked after may be older than the spec, but has to say what it was made to say.
        told = (found if action.repair else manifest)["metadata"]
        wanted = (told.get("annotations") or {}).get(ANNOTATION_CONTENT)
        if kind == "ConfigMap" and content_hash(found.get("data")) != wanted:
            await self._client.delete(kind, name, key[0], uid=found["metadata"]["uid"])
            return await self._client.create(manifest)
        return found


def _has(found: Any, wanted: Any) -> bool:
    """Whether an object says all that is wanted; what others added matters only where it selects pods."""
    if isinstance(wanted, dict):
        return isinstance(found, dict) and all(
            found.get(key) == value if key in _SELECTS else _has(found.get(key), value) for key, value in wanted.items()
        )
    if isinstance(wanted, list):
        same = isinstance(found, list) and len(found) == len(wanted)
        return same and all(_has(a, b) for a, b in zip(found, wanted, strict=True))
    return bool(found == wanted)
