"""The operator process: connects, becomes the leader, reads all runs, watches, and works until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Callable, Coroutine
from typing import Any

import kopf

from ocr_finetune_api import GROUP, PLURAL, VERSION
from ocr_finetune_operator import cluster_check, handlers, health, operator_version, profiles, rbac
from ocr_finetune_operator.builders.attempt import Installation
from ocr_finetune_operator.constants import LABEL_RUN
from ocr_finetune_operator.kube.client import Client
from ocr_finetune_operator.kube.errors import (
    ApiError,
    BusyError,
    ConflictError,
    ForbiddenError,
    InvalidError,
    UnreachableError,
)
from ocr_finetune_operator.leader import Leader
from ocr_finetune_operator.metrics import Metrics
from ocr_finetune_operator.reconcile.cache import Cache, RunKey
from ocr_finetune_operator.reconcile.events import Recorder
from ocr_finetune_operator.reconcile.limiter import Limiter
from ocr_finetune_operator.reconcile.node_list import NodeList
from ocr_finetune_operator.reconcile.observation import Rules
from ocr_finetune_operator.reconcile.puller import Puller
from ocr_finetune_operator.reconcile.queue import WorkQueue
from ocr_finetune_operator.reconcile.reconciler import Reconciler
from ocr_finetune_operator.reconcile.views import Manifest
from ocr_finetune_operator.settings import Settings

logger = logging.getLogger(__name__)

HEARTBEAT: RunKey = ("", "")
_HEARTBEAT_SECONDS = 5.0
_STOP_SECONDS = 15.0
# From this version on the API server streams the first list, so that it never is in memory as a whole.
_STREAMS_LISTS = (1, 34)


class Operator:
    """One operator process."""

    def __init__(self, settings: Settings, client: Client, metrics: Metrics) -> None:
        self._settings = settings
        self._client = client
        self._metrics = metrics
        self._health = health.Health()
        self._cache = Cache()
        self._queue: WorkQueue[RunKey] = WorkQueue(clock=time.monotonic)
        self._recorder = Recorder(client)
        self._puller = Puller(port=settings.metrics_port, seconds=settings.progress_timeout)
        self._stopping = asyncio.Event()
        self._found = cluster_check.Found(lacks=(), namespaces=settings.namespaces or ("",), usable=True)
        self._reconciler = Reconciler(
            client=client,
            cache=self._cache,
            rules=_rules(settings),
            metrics=metrics,
            puller=self._puller,
            limiter=Limiter(per_second=settings.status_writes_per_second, clock=time.monotonic),
            recorder=self._recorder,
            nodes=NodeList(client, clock=time.monotonic) if settings.check_nodes else None,
        )

    def stop(self) -> None:
        """Asks for a graceful stop."""
        self._stopping.set()

    async def run(self) -> int:
        """Works until it is told to stop; returns the exit code."""
        settings = self._settings
        server = await health.serve(self._health, self._metrics, port=settings.port, refresh=self._refresh)
        leader = Leader(
            self._client,
            namespace=settings.own_namespace,
            name=settings.lease_name,
            identity=f"{socket.gethostname()}-{uuid.uuid4().hex[:8]}",
            duration=settings.lease_duration,
            renew=settings.lease_renew,
        )
        try:
            if not await self._until_stopped(self._until_usable()):
                return 0
            if settings.leader_election:
                # A replica that waits is ready to take over.
                self._health.ready = True
                if not await self._until_stopped(leader.take()):
                    return 0
            return await self._work(leader if settings.leader_election else None)
        finally:
            await leader.release()
            await self._puller.close()
            await server.cleanup()

    async def _until_stopped(self, what: Coroutine[Any, Any, None]) -> bool:
        """Waits for something; False if the stop comes first."""
        task = asyncio.ensure_future(what)
        stop = asyncio.ensure_future(self._stopping.wait())
        done, _ = await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
        for one in (task, stop):
            if one not in done:
                one.cancel()
        if task in done:
            task.result()
        return task in done

    async def _work(self, leader: Leader | None) -> int:
        self._metrics.leader.set(1)
        self._health.lead()
        stop_kopf = threading.Event()
        tasks: dict[str, asyncio.Task[Any]] = {
            "relist": asyncio.create_task(self._relist_for_ever()),
            "kopf": asyncio.create_task(self._watch(stop_kopf)),
            "heartbeat": asyncio.create_task(self._beat()),
            "events": asyncio.create_task(self._recorder.run()),
        }
        workers = [asyncio.create_task(self._worker()) for _ in range(self._settings.workers)]
        if self._found.lacks:
            tasks["the look for what the cluster lacks"] = asyncio.create_task(self._until_changed())
        if leader is not None:
            tasks["lease"] = asyncio.create_task(leader.hold())
        stop = asyncio.create_task(self._stopping.wait())
        done, _ = await asyncio.wait({*tasks.values(), *workers, stop}, return_when=asyncio.FIRST_COMPLETED)
        # Workers that have nothing to do end in the same moment as the wait for the stop.
        graceful = stop in done and not done & set(tasks.values())
        for name, task in tasks.items():
            if task in done:
                error = None if task.cancelled() else task.exception()
                logger.error("%s ended: %s", name, error or "without an error", exc_info=error)
        stop_kopf.set()
        self._stopping.set()
        # What is being done is finished; nothing new is begun.
        await asyncio.wait(workers, timeout=_STOP_SECONDS)
        if graceful:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._recorder.drain(), timeout=3)
        for task in (*tasks.values(), *workers, stop):
            task.cancel()
        await asyncio.gather(*tasks.values(), *workers, stop, return_exceptions=True)
        return 0 if graceful else 1

    # ---- what the cluster has ----

    async def _until_usable(self) -> None:
        """Waits until there is something to do in this cluster, and tells what is missing whenever that changes."""
        while True:
            found = await self._check()
            if found.lacks != self._found.lacks:
                for lack in found.lacks:
                    logger.error("%s", lack)
            self._found, self._health.lacks = found, found.lacks
            if found.usable:
                return
            await asyncio.sleep(self._settings.recheck_interval)

    async def _until_changed(self) -> None:
        """Returns when what the cluster lacked has changed; the process then begins anew."""
        while (await self._check()).lacks == self._found.lacks:  # noqa: ASYNC110 - nobody is told of new rights
            await asyncio.sleep(self._settings.recheck_interval)
        logger.warning("the operator's rights have changed: it starts anew")

    async def _check(self) -> cluster_check.Found:
        """Looks at the cluster; one that does not answer is taken to be as it was."""
        try:
            return await cluster_check.look(
                self._client,
                namespaces=self._settings.namespaces,
                own_namespace=self._settings.own_namespace,
                leases=self._settings.leader_election,
                nodes=self._settings.check_nodes,
            )
        except (ApiError, UnreachableError) as error:
            logger.warning("the cluster could not be looked at: %s", error)
            return self._found

    # ---- read ----

    async def _watch(self, stop: threading.Event) -> None:
        """Runs kopf in a thread of its own: in this one it would take over signals and cancel tasks of others."""
        settings = kopf_settings(self._settings)
        settings.watching.initial_streaming = await self._streams()
        registry = kopf.OperatorRegistry()
        loop = asyncio.get_running_loop()

        def seen(kind: str, manifest: Manifest, gone: bool) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: the operator stops
                loop.call_soon_threadsafe(self._seen, kind, manifest, gone)

        handlers.register(registry, seen=seen)
        namespaces = [namespace for namespace in self._found.namespaces if namespace]

        async def watch() -> None:
            await kopf.operator(
                registry=registry,
                settings=settings,
                standalone=True,
                clusterwide=not namespaces,
                namespaces=namespaces,
                stop_flag=stop,
            )

        await asyncio.to_thread(lambda: asyncio.run(watch()))

    def _seen(self, kind: str, manifest: Manifest, gone: bool) -> None:
        looks: dict[str, Callable[..., RunKey | None]] = {
            "OCRFineTune": self._cache.see_run,
            "Job": self._cache.see_job,
            "Pod": self._cache.see_pod,
        }
        key = looks[kind](manifest, gone=gone)
        if key is not None:
            self._queue.add(key)

    async def _streams(self) -> bool:
        try:
            return await self._client.version() >= _STREAMS_LISTS
        except (ApiError, UnreachableError):
            return False

    async def _relist_for_ever(self) -> None:
        failures = 0
        while True:
            try:
                await self._relist()
            except (ApiError, UnreachableError) as error:
                failures += 1
                _explain(error)
                await asyncio.sleep(min(0.5 * 2**failures, 30.0))
                continue
            failures = 0
            self._health.ready = True
            await asyncio.sleep(self._settings.relist_interval)

    async def _relist(self) -> None:
        """Reads all runs and their children, page by page, and looks at each."""
        relist = self._cache.begin_relist()
        for namespace in self._found.namespaces:
            for kind, see in (
                ("OCRFineTune", self._cache.see_run),
                ("Job", self._cache.see_job),
                ("Pod", self._cache.see_pod),
            ):
                labels = "" if kind == "OCRFineTune" else LABEL_RUN
                async for manifest in self._client.pages(kind, namespace, labels=labels):
                    relist.seen(kind, manifest)
                    see(manifest)
        self._cache.end_relist(relist)
        for key in self._cache.runs:
            self._queue.add(key)

    # ---- work ----

    async def _worker(self) -> None:
        while not self._stopping.is_set():
            taken = asyncio.ensure_future(self._queue.take())
            stop = asyncio.ensure_future(self._stopping.wait())
            await asyncio.wait({taken, stop}, return_when=asyncio.FIRST_COMPLETED)
            stop.cancel()
            if not taken.done():
                taken.cancel()
                return
            key, waited = taken.result()
            if key == HEARTBEAT:
                self._health.beat()
                self._queue.done(key)
                continue
            self._metrics.queue_wait.observe(waited)
            await self._look(key)

    async def _look(self, key: RunKey) -> None:
        reason, wait = "", 0.0
        with self._metrics.reconcile_seconds.time():
            try:
                again = await self._reconciler.reconcile(key)
            except ConflictError:
                # It changed in the meantime; the watch brings the change, and this is another chance.
                reason, wait = "conflict", 0.05
            except ForbiddenError as error:
                reason = "forbidden"
                _explain(error)
            except InvalidError:
                reason = "invalid"
                logger.exception("the API server refuses what should be right", extra=_about(key))
            except BusyError as error:
                reason, wait = "busy", error.retry_after
            except (ApiError, UnreachableError) as error:
                reason = "unreachable"
                logger.warning("%s", error, extra=_about(key))
            except Exception:  # one run must never stop the work on the others
                reason = "internal"
                logger.exception("a look at the run failed", extra=_about(key))
        if not reason:
            self._queue.done(key, again_in=again)
            return
        self._metrics.reconcile_errors.labels(reason).inc()
        self._queue.failed(key, at_least=wait)

    async def _beat(self) -> None:
        while True:
            self._queue.add(HEARTBEAT)
            await asyncio.sleep(_HEARTBEAT_SECONDS)

    def _refresh(self) -> None:
        self._metrics.phases(self._cache.phases())
        self._metrics.queue_depth.set(self._queue.depth)
        self._metrics.queue_age.set(self._queue.age)


def kopf_settings(settings: Settings) -> kopf.OperatorSettings:
    """Settings of kopf: it only watches."""
    found = kopf.OperatorSettings()
    found.posting.enabled = False
    found.scanning.disabled = True
    found.networking.request_timeout = settings.request_timeout
    # An API server that is away for longer than these ends the process, which is then started again.
    found.networking.error_backoffs = (0.2, 0.5, 1, 2, 3, *([5] * 120))
    found.watching.chunk_size = 500
    found.watching.reconnect_backoff = 0.1
    # Without this an idle object keeps a task alive.
    found.queueing.idle_timeout = 0.5
    found.watching.label_selectors["batch", "v1", "jobs"] = LABEL_RUN
    found.watching.label_selectors["", "v1", "pods"] = LABEL_RUN
    return found


def _rules(settings: Settings) -> Rules:
    return Rules(
        operator_version=operator_version(),
        trainer_image=settings.trainer_image,
        profiles=profiles.load(settings.profiles),
        installation=Installation(
            service_account=settings.service_account,
            image_pull_secrets=settings.image_pull_secrets,
            run_as_user=settings.run_as_user,
            fs_group=settings.fs_group,
            metrics_port=settings.metrics_port,
            rendezvous_port=settings.rendezvous_port,
        ),
        network_policy=settings.network_policy,
        progress_interval=settings.progress_interval,
        recheck_interval=settings.recheck_interval,
        repair_interval=settings.relist_interval,
        backoff_base=settings.backoff_base,
        backoff_limit=settings.backoff_limit,
    )


def _explain(error: Exception) -> None:
    """Logs a failed request; a missing right with what it is for."""
    if not isinstance(error, ForbiddenError):
        logger.warning("%s", error)
        return
    for right in rbac.RIGHTS:
        for resource in right.resources:
            if f'"{resource}"' in error.message:
                logger.error("a right is missing: %s; without it nobody %s", error.message, right.why)
                return
    logger.error("a right is missing: %s", error.message)


def _about(key: RunKey) -> dict[str, str]:
    return {"run": "/".join(key)}


async def serve(settings: Settings) -> int:
    """Runs the operator until SIGTERM or SIGINT."""
    metrics = Metrics(max_runs=settings.max_run_metrics)
    client = await Client.connect(metrics=metrics, seconds=settings.request_timeout)
    try:
        operator = Operator(settings, client, metrics)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, operator.stop)
        logger.info(
            "version %s, process %d, works on %s", operator_version(), os.getpid(), f"{PLURAL}.{GROUP}/{VERSION}"
        )
        return await operator.run()
    finally:
        await client.close()
