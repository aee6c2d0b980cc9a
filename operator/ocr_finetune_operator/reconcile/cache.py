"""What watches and lists have shown: slim views of runs, Jobs and pods, by run.

A decision is first made from here; only if there is something to do is the run read again. So a cache that is behind
costs a request, never a wrong step: what is written is guarded by the run's resourceVersion, what is made by its name.

What is asked for may be answered later than a watch tells what became of it since: by the resourceVersion, what is
older than what is known changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, replace

from ocr_finetune_api.conditions import Phase
from ocr_finetune_operator.constants import ANNOTATION_STOP
from ocr_finetune_operator.reconcile.views import JobView, Manifest, PodView, RunView, run_of

RunKey = tuple[str, str]

_FINAL = (Phase.SUCCEEDED.value, Phase.FAILED.value)
_MAX_GONE = 10_000
# What decisions about a run that has ended look at.
_KEPT = ("phase", "specHash", "observedRetryNonce", "observedGeneration", "finishedAt", "cleanedUp", "stages")


class Cache:
    """Views of all runs and their children."""

    def __init__(self) -> None:
        self.runs: dict[RunKey, RunView] = {}
        self._jobs: dict[RunKey, dict[str, JobView]] = {}
        self._pods: dict[RunKey, dict[str, PodView]] = {}
        # The resourceVersion at which the latest of what is gone went, by UID.
        self._gone: dict[str, str] = {}

    def see_run(self, manifest: Manifest, *, gone: bool = False) -> RunKey:
        """Takes an OCRFineTune in."""
        metadata = manifest["metadata"]
        key = (metadata["namespace"], metadata["name"])
        known = self.runs.get(key)
        if gone:
            self._bury(metadata)
            self.drop(key, uid=metadata["uid"])
            return key
        if self._is_old(metadata, known):
            return key
        run = RunView.of(manifest, stop_annotation=ANNOTATION_STOP)
        if run.status.get("phase") in _FINAL:
            run = _slim(run)
            self._pods.pop(key, None)
        self.runs[key] = run
        return key

    def see_job(self, manifest: Manifest, *, gone: bool = False, of: RunKey | None = None) -> RunKey | None:
        """Takes a Job in; `of` says whose it is where its labels don't, as somebody has changed them."""
        key = of or _key_of(manifest)
        if key is None:
            return None
        name = manifest["metadata"]["name"]
        if not gone and self._is_old(manifest["metadata"], self._jobs.get(key, {}).get(name)):
            return key
        jobs = self._jobs.setdefault(key, {})
        if gone:
            self._bury(manifest["metadata"])
            if name in jobs and jobs[name].uid == manifest["metadata"]["uid"]:
                del jobs[name]
            pods = self._pods.get(key, {})
            for pod in [one.name for one in pods.values() if one.job == name and one.gone]:
                del pods[pod]
        else:
            jobs[name] = JobView.of(manifest)
        if not jobs:
            self._jobs.pop(key, None)
        return key

    def see_pod(self, manifest: Manifest, *, gone: bool = False) -> RunKey | None:
        """Takes a pod in. One that is gone is remembered as long as its Job is there: it may be why that failed."""
        key = _key_of(manifest)
        if key is None:
            return None
        run = self.runs.get(key)
        if run is not None and run.status.get("phase") in _FINAL:
            return key
        pods = self._pods.setdefault(key, {})
        pod = PodView.of(manifest, gone=gone)
        known = pods.get(pod.name)
        if gone:
            self._bury(manifest["metadata"])
        elif self._is_old(manifest["metadata"], known):
            return key
        if gone and known is not None and known.uid != pod.uid:
            return key
        if gone and pod.job not in self._jobs.get(key, {}):
            pods.pop(pod.name, None)
        else:
            pods[pod.name] = pod
        return key

    def lose_pods(self, key: RunKey, job: str, *, there: Set[str]) -> None:
        """Takes note that of a Job only the pods with these UIDs are there."""
        pods = self._pods.get(key, {})
        for name, pod in list(pods.items()):
            if pod.job == job and pod.uid not in there:
                pods[name] = replace(pod, gone=True)

    def drop_job(self, key: RunKey, name: str) -> None:
        """Forgets a Job of which the API server says that it does not exist."""
        self._jobs.get(key, {}).pop(name, None)

    def drop(self, key: RunKey, *, uid: str) -> None:
        """Forgets a run and its children; another one that has its name by now stays."""
        if key in self.runs and self.runs[key].uid != uid:
            return
        self.runs.pop(key, None)
        self._pods.pop(key, None)

    def _bury(self, metadata: Manifest) -> None:
        self._gone.pop(metadata["uid"], None)
        self._gone[metadata["uid"]] = metadata["resourceVersion"]
        if len(self._gone) > _MAX_GONE:
            del self._gone[next(iter(self._gone))]

    def _is_old(self, metadata: Manifest, known: RunView | JobView | PodView | None) -> bool:
        """Whether more is known of an object already than this state of it tells."""
        version, uid = metadata["resourceVersion"], metadata["uid"]
        if known is not None and known.uid == uid and _older(version, known.resource_version):
            return True
        return _older(version, self._gone.get(uid, ""))

    def jobs(self, key: RunKey) -> tuple[JobView, ...]:
        """The Jobs of a run."""
        return tuple(self._jobs.get(key, {}).values())

    def pods(self, key: RunKey) -> tuple[PodView, ...]:
        """The pods of a run."""
        return tuple(self._pods.get(key, {}).values())

    def phases(self) -> Iterable[str]:
        """The phase of each run."""
        return (str(run.status.get("phase") or Phase.PENDING.value) for run in self.runs.values())

    def begin_relist(self) -> Relist:
        """Starts to take in complete lists; what they lack is gone. A broken watch may have missed that it went."""
        return Relist(
            runs={key: run.uid for key, run in self.runs.items()},
            jobs={(key, job.uid) for key, jobs in self._jobs.items() for job in jobs.values()},
            pods={(key, pod.uid) for key, pods in self._pods.items() for pod in pods.values()},
        )

    def end_relist(self, relist: Relist) -> None:
        """Drops what was known when the lists began and was not in them."""
        for key, uid in relist.runs.items():
            self.drop(key, uid=uid)
        for key, known in list(self._jobs.items()):
            self._jobs[key] = {name: job for name, job in known.items() if (key, job.uid) not in relist.jobs}
        for key, seen in list(self._pods.items()):
            self._pods[key] = {
                name: replace(pod, gone=True) if (key, pod.uid) in relist.pods else pod
                for name, pod in seen.items()
                if (key, pod.uid) not in relist.pods or pod.job in self._jobs.get(key, {})
            }


@dataclass(kw_only=True)
class Relist:
    """What was known when a list began and has not been in it yet."""

    runs: dict[RunKey, str]
    jobs: set[tuple[RunKey, str]]
    pods: set[tuple[RunKey, str]]

    def seen(self, kind: str, manifest: Manifest) -> None:
        """Takes note that an object is there."""
        metadata = manifest["metadata"]
        if kind == "OCRFineTune":
            self.runs.pop((metadata["namespace"], metadata["name"]), None)
            return
        key = _key_of(manifest)
        if key is not None:
            (self.jobs if kind == "Job" else self.pods).discard((key, metadata["uid"]))


def _slim(run: RunView) -> RunView:
    policy = run.spec.get("policy")
    policy = policy if isinstance(policy, Mapping) else {}
    spec = {"policy": {key: policy[key] for key in ("retryNonce", "ttlAfterFinished") if key in policy}}
    stages = [
        {"name": stage.get("name"), "attempt": stage.get("attempt", 0), "state": stage.get("state")}
        for stage in run.status.get("stages") or ()
    ]
    status = {key: run.status[key] for key in _KEPT if key in run.status} | {"stages": stages}
    return replace(run, spec=spec, status=status, slim=True)


def _key_of(manifest: Manifest) -> RunKey | None:
    name = run_of(manifest)
    return (manifest["metadata"]["namespace"], name) if name else None


def _older(version: str, known: str) -> bool:
    """Whether a version is older than the known one: what we wrote ourselves comes back through the watch later."""
    return version.isdigit() and known.isdigit() and int(version) < int(known)
