"""One look at a run: read, decide, act, write the status once."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from ocr_finetune_api.conditions import Phase
from ocr_finetune_api.status import Attempt
from ocr_finetune_operator import names
from ocr_finetune_operator.constants import (
    ANNOTATION_STOP,
    CONTAINER,
    LABEL_JOB_NAME,
)
from ocr_finetune_operator.kube.client import Client
from ocr_finetune_operator.kube.errors import ForbiddenError, InvalidError
from ocr_finetune_operator.metrics import Metrics
from ocr_finetune_operator.reconcile import preflight, states, status
from ocr_finetune_operator.reconcile.acting import BlockedError, Hands
from ocr_finetune_operator.reconcile.cache import Cache, RunKey
from ocr_finetune_operator.reconcile.decide import Decision, decide, read_status
from ocr_finetune_operator.reconcile.draft import Draft
from ocr_finetune_operator.reconcile.events import Recorder
from ocr_finetune_operator.reconcile.limiter import Limiter
from ocr_finetune_operator.reconcile.node_list import NodeList
from ocr_finetune_operator.reconcile.observation import Facts, Need, Observation, Problem, Rules
from ocr_finetune_operator.reconcile.policies import progress as progress_policy
from ocr_finetune_operator.reconcile.policies.drift import Accepted
from ocr_finetune_operator.reconcile.policies.progress import Pulled
from ocr_finetune_operator.reconcile.puller import Puller, PullError
from ocr_finetune_operator.reconcile.views import Manifest, NodeView, RunView, owner_of, timestamp
from ocr_finetune_operator.reconcile.workloads import Workloads

logger = logging.getLogger(__name__)

LOG_LINES = 40
LOG_BYTES = 2048
# Changes that only inform people wait this long at most for what comes with them.
COALESCE_SECONDS = 10.0
SOON_SECONDS = 0.2
_MAX_ROUNDS = 8
_FINAL = (Phase.SUCCEEDED, Phase.FAILED)


@dataclass
class Memory:
    """What is remembered of a run between two looks. Nothing depends on it: all of it may be lost."""

    uid: str
    progress: Pulled | None = None
    written_at: float = 0.0
    blocked: Problem | None = None
    refused: str = ""
    snapshot: tuple[str, Accepted] | None = None
    gone_jobs: frozenset[str] = field(default_factory=frozenset)
    started: bool = False
    repaired_at: float = 0.0


class Reconciler:
    """Looks at runs, one at a time each."""

    def __init__(
        self,
        *,
        client: Client,
        cache: Cache,
        rules: Rules,
        metrics: Metrics,
        puller: Puller,
        limiter: Limiter,
        recorder: Recorder,
        nodes: NodeList | None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._client = client
        self._cache = cache
        self._rules = rules
        self._metrics = metrics
        self._puller = puller
        self._limiter = limiter
        self._recorder = recorder
        self._nodes = nodes
        self._clock = clock
        self._workloads = Workloads(client, clock=clock, fresh=rules.recheck_interval * 0.9)
        self._hands = Hands(client, cache, recorder)
        self._memory: dict[RunKey, Memory] = {}

    async def reconcile(self, key: RunKey) -> float | None:
        """Looks at a run and does what is to do.

        Returns:
            In how many seconds another look is worth it; None if an event will tell.
        """
        run = self._cache.runs.get(key)
        if run is None:
            self._memory.pop(key, None)
            self._metrics.hide(key)
            return None
        memory = self._memory.get(key)
        if memory is None or memory.uid != run.uid:
            memory = self._memory[key] = Memory(uid=run.uid, repaired_at=self._clock())
        await self._pull(key, run, memory)
        facts = self._facts(run, memory)
        decision, facts = await self._decide(key, run, facts)
        changes = status.patch(run.status, decision.draft.status)
        draft = decision.draft
        if not changes and not draft.before and not draft.after:
            self._observe(key, draft)
            return draft.look_again
        if draft.cosmetic and not draft.before and not draft.after:
            pause = min(COALESCE_SECONDS, self._rules.progress_interval / 3)
            too_early = memory.written_at + pause - self._clock()
            # A warning is for people who wait.
            if too_early > 0 and not any(note.warning for note in draft.notes):
                return min(too_early, draft.look_again if draft.look_again is not None else too_early)
        else:
            # What is in the cache may be old; what decides has to be true.
            fresh = await self._read(key, run)
            if fresh is None:
                return None
            if run.slim or fresh.resource_version != run.resource_version:
                run = fresh
                decision, facts = await self._decide(key, run, facts)
                draft = decision.draft
                changes = status.patch(run.status, draft.status)
        return await self._act(key, run, memory, draft, changes)

    # ---- read ----

    async def _read(self, key: RunKey, known: RunView) -> RunView | None:
        manifest = await self._client.get("OCRFineTune", key[1], key[0])
        if manifest is None or manifest["metadata"]["uid"] != known.uid:
            if manifest is None:
                self._cache.drop(key, uid=known.uid)
            else:
                self._cache.see_run(manifest)
            return None
        self._cache.see_run(manifest)
        return RunView.of(manifest, stop_annotation=ANNOTATION_STOP)

    async def _pull(self, key: RunKey, run: RunView, memory: Memory) -> None:
        """Pulls the progress if an attempt runs and it is time."""
        attempts = run.status.get("attempts") or ()
        newest = attempts[-1] if attempts else {}
        if run.status.get("phase") in _FINAL or not newest.get("activeSince") or newest.get("endedAt"):
            return
        attempt = Attempt.model_validate(newest)
        job = names.job(run.name, attempt.stage, attempt.number)
        if memory.progress is None or memory.progress.job != job:
            memory.progress = Pulled(job=job)
        before, now = memory.progress, self._clock()
        if before.at and now - before.at < self._rules.progress_interval * 0.9:
            return
        pod = next((p for p in self._cache.pods(key) if p.job == job and p.index == 0 and p.running), None)
        if pod is None or not pod.ip:
            return
        try:
            document = await self._puller.pull(pod.ip)
        except PullError as error:
            memory.progress = progress_policy.unanswered(before, str(error), now=self._clock())
        else:
            memory.progress = progress_policy.answered(before, document, now=self._clock())

    # ---- decide ----

    def _facts(self, run: RunView, memory: Memory) -> Facts:
        snapshot = None
        if memory.snapshot is not None and memory.snapshot[0] == run.status.get("specHash"):
            snapshot = memory.snapshot[1]
        blocked, memory.blocked = memory.blocked, None
        due = self._clock() - memory.repaired_at >= self._rules.repair_interval
        return Facts(snapshot=snapshot, blocked=blocked, refused=memory.refused, repair_due=due)

    async def _decide(self, key: RunKey, run: RunView, facts: Facts) -> tuple[Decision, Facts]:
        """Decides, and asks for what the decision needs until it needs nothing more."""
        for _ in range(_MAX_ROUNDS):
            observation = Observation(
                run=run,
                jobs=self._cache.jobs(key),
                pods=self._cache.pods(key),
                now=self._clock(),
                rules=self._rules,
                facts=facts,
                progress=self._memory[key].progress,
            )
            decision = decide(observation)
            if not decision.needs:
                return decision, facts
            for need in decision.needs:
                facts = await self._ask(key, observation, decision, need, facts)
        msg = f"no decision after {_MAX_ROUNDS} rounds: {decision.needs}"
        raise RuntimeError(msg)

    async def _ask(self, key: RunKey, observation: Observation, decision: Decision, need: Need, facts: Facts) -> Facts:
        namespace = key[0]
        match need.what:
            case "preflight" if decision.spec is not None:
                found = await preflight.check(self._client, observation, decision.spec, nodes=self._nodes)
                return replace(facts, problems=tuple(found))
            case "snapshot":
                return await self._snapshot(key, observation.run, facts)
            case "job":
                manifest = await self._client.get("Job", need.name, namespace)
                if manifest is None:
                    self._cache.drop_job(key, need.name)
                    return replace(facts, gone_jobs=facts.gone_jobs | {need.name})
                self._cache.see_job(manifest, of=key)
                return facts
            case "pods":
                await self._read_pods(key, need.name)
                return replace(facts, read_pods=facts.read_pods | {need.name})
            case "workload":
                words = await self._workloads.why(namespace, need.name)
                return replace(facts, workloads={**facts.workloads, need.name: words})
            case "node":
                manifest = await self._node(need.name)
                return replace(facts, nodes={**facts.nodes, need.name: NodeView.of(need.name, manifest)})
            case "log":
                text = await self._client.log_tail(
                    need.name, namespace, container=CONTAINER, lines=LOG_LINES, limit=LOG_BYTES
                )
                return replace(facts, logs={**facts.logs, need.name: text})
        msg = f"nobody knows how to ask for {need}"
        raise RuntimeError(msg)

    async def _read_pods(self, key: RunKey, job: str) -> None:
        """Reads the pods of a Job anew; those that are not there any more are gone."""
        there = set()
        async for manifest in self._client.pages("Pod", key[0], labels=f"{LABEL_JOB_NAME}={job}"):
            self._cache.see_pod(manifest)
            there.add(manifest["metadata"]["uid"])
        self._cache.lose_pods(key, job, there=there)

    async def _node(self, name: str) -> Manifest | None:
        try:
            return await self._client.get("Node", name)
        except ForbiddenError:
            # Without the right to look, a node counts as ready: nothing of it is given up.
            ready = {"type": "Ready", "status": "True"}
            return {"status": {"conditions": [ready]}}

    async def _snapshot(self, key: RunKey, run: RunView, facts: Facts) -> Facts:
        spec_hash = str(run.status.get("specHash"))
        manifest = await self._client.get("ConfigMap", names.snapshot(run.name, spec_hash), key[0])
        if manifest is None or owner_of(manifest) != run.uid:
            return replace(facts, snapshot_lost=True)
        try:
            accepted = Accepted.read(json.loads(manifest["data"]["accepted.json"]))
        except (KeyError, ValueError):
            return replace(facts, snapshot_lost=True)
        self._memory[key].snapshot = (spec_hash, accepted)
        return replace(facts, snapshot=accepted)

    # ---- act ----

    async def _act(
        self, key: RunKey, run: RunView, memory: Memory, draft: Draft, changes: dict[str, Any]
    ) -> float | None:
        if draft.repairs:
            memory.repaired_at = self._clock()
        try:
            for action in draft.before:
                await self._hands.do(run, action)
            if changes:
                await self._limiter.acquire(urgent=not draft.cosmetic)
                body = {"metadata": {"resourceVersion": run.resource_version, "uid": run.uid}, "status": changes}
                written = await self._client.patch_status("OCRFineTune", key[1], key[0], body)
                self._cache.see_run(written)
                memory.written_at = self._clock()
                self._tell(key, run, draft)
            for action in draft.after:
                await self._hands.do(run, action)
        except BlockedError as error:
            memory.blocked = error.problem
            return SOON_SECONDS
        except InvalidError as error:
            if not draft.after:
                raise
            logger.warning("refused: %s", error.message, extra={"run": "/".join(key)})
            memory.refused = error.message[:1024]
            return SOON_SECONDS
        memory.refused = ""
        self._observe(key, draft)
        return draft.look_again

    # ---- tell ----

    def _tell(self, key: RunKey, run: RunView, draft: Draft) -> None:
        before = str(run.status.get("phase") or "")
        if not states.allowed(before, draft.status.phase):
            logger.error("unexpected: from %s to %s", before, draft.status.phase, extra=_context(key, draft))
        for note in draft.notes:
            logger.log(
                logging.WARNING if note.warning else logging.INFO,
                "%s: %s",
                note.reason,
                note.message,
                extra=_context(key, draft),
            )
            self._recorder.record(run, note)
        for ended in draft.ended:
            self._metrics.attempts.labels(
                ended.stage.value, ended.outcome.value, ended.failure_class.value if ended.failure_class else ""
            ).inc()
            if ended.seconds is not None:
                self._metrics.stage_seconds.labels(ended.stage.value).observe(max(ended.seconds, 0.0))

    def _observe(self, key: RunKey, draft: Draft) -> None:
        """Shows the run in the metrics."""
        memory, run_status = self._memory[key], draft.status
        if run_status.phase in _FINAL:
            self._metrics.hide(key)
            self._memory.pop(key, None)
            return
        shown = run_status.progress
        if shown is not None and shown.stage is not None:
            self._metrics.show(
                key, stage=shown.stage.value, percent=shown.percent, metric=shown.metric_name, best=shown.best_metric
            )
        run = self._cache.runs.get(key)
        if not memory.started and run is not None and run_status.attempts and run_status.attempts[-1].active_since:
            memory.started = True
            first = run_status.attempts[0]
            if len(run_status.attempts) == 1 and first.running_at:
                since = timestamp(first.running_at) or self._clock()
                self._metrics.first_pod_seconds.observe(max(since - run.created, 0.0))


def _context(key: RunKey, draft: Draft) -> dict[str, Any]:
    newest = draft.status.attempts[-1] if draft.status.attempts else None
    return {
        "run": "/".join(key),
        "stage": newest.stage.value if newest else "",
        "attempt": newest.number if newest else 0,
    }


__all__ = ["Memory", "Reconciler", "read_status"]
