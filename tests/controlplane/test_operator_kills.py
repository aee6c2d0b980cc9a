"""An operator that is killed at every request of a run in turn, before and after the API server has carried it out."""

from __future__ import annotations

import re
import threading
import time
from pathlib import Path

from kube_testing.control_plane import ControlPlane
from kube_testing.processes import wait_for
from operator_proxy import proxied
from operator_testing import World, fails, result, succeeds

from ocr_finetune_api.plan import Stage

_SECONDS = 540.0
# Names that differ from start to start.
_OWN = re.compile(r"resourceVersion=\d+|continue=[^&]+|timeoutSeconds=\d+|-[a-z0-9]{5}(?=/log)")


class Executioner:
    """Kills an operator once before and once after each of its requests.

    Attributes:
        killed_at: The requests, each with whether the API server had carried it out.
        fell: Set when it has killed.
    """

    def __init__(self) -> None:
        self.killed_at: list[tuple[str, bool]] = []
        self.fell = threading.Event()
        self._once: set[tuple[str, bool]] = set()
        self._begun = False

    def kills(self, call: str, *, done: bool) -> bool:
        """Whether this is a request to be killed at."""
        call = _OWN.sub("", call)
        if call.startswith("PATCH") and call.endswith("/status"):
            # Each is another step of the run's life, and all look alike: before and after take turns.
            kills = done or not self._begun
            self._begun = not done
        else:
            kills = (call, done) not in self._once
            self._once.add((call, done))
        if kills:
            self.killed_at.append((call, done))
        return kills


def test_an_operator_killed_at_each_of_its_requests_comes_to_the_same_end(
    plane: ControlPlane, installed: Path, world: World, alone: None
) -> None:
    succeeds(world.pods, Stage.PREPARE, Stage.EVALUATE, Stage.EXPORT)
    # The first training fails, so that a retry is among what is interrupted.
    fails(world.pods, Stage.TRAIN, 70, attempt=1)
    labels = {"ocrfinetune.dev/stage": "train", "ocrfinetune.dev/attempt": "2"}
    world.pods.succeeds(message=result(Stage.TRAIN), labels=labels)
    with proxied(plane, installed, world.namespace) as (proxy, operator):
        executioner = Executioner()

        def kill(call: str, done: bool) -> None:
            if executioner.kills(call, done=done):
                operator.process.kill()
                executioner.fell.set()
                raise ConnectionResetError

        proxy.on_call = kill
        world.create()
        deadline = time.monotonic() + _SECONDS
        while time.monotonic() < deadline:
            if executioner.fell.wait(0.02):
                executioner.fell.clear()
                # Two of its requests may have come at the same moment, and both have killed it.
                if not operator.process.running:
                    operator.process.start()
            run = world.kube.get("OCRFineTune", "plates", world.namespace)
            if run is not None and run.get("status", {}).get("phase") == "Succeeded":
                break
        if not operator.process.running:
            operator.process.start()
        status = world.wait_phase("Succeeded")
        expected = ["prepare-1", "train-1", "train-2", "evaluate-1", "export-1"]
        assert world.jobs() == [f"plates-{stage}" for stage in expected]
        created = [request for request in proxy.done if request.startswith("POST") and request.endswith("/jobs")]
        assert len(created) == len(expected)
        assert status["restarts"] == 1
        outcomes = [one["outcome"] for one in status["attempts"]]
        assert outcomes == ["Succeeded", "Failed", "Succeeded", "Succeeded", "Succeeded"]
        for kind, name in (("Service", "plates-train"), ("NetworkPolicy", "plates-pods")):
            assert world.kube.get(kind, name, world.namespace), kind
        # Everybody can see the last status before the proxy hears that it is written.
        wait_for(lambda: _states(executioner.killed_at)[-1], describe="the kill after the last status")
        _reached(executioner.killed_at, attempts=len(expected))


def _states(killed_at: list[tuple[str, bool]]) -> list[bool]:
    """The writes of a status at which it was killed: whether before or after each."""
    return [done for call, done in killed_at if call.endswith("/status")]


def _reached(killed_at: list[tuple[str, bool]], *, attempts: int) -> None:
    """It was killed at each kind of request that a run needs, before and after."""
    for done in (False, True):
        calls = " ".join(call for call, after in killed_at if after is done)
        for part in (
            "GET /apis/ocrfinetune.dev/v1alpha1/",
            "/jobs?dryRun=All",
            "POST /api/v1/namespaces/",
            "/configmaps",
            "/services",
            "/networkpolicies",
            "/plates/status",
            "/persistentvolumeclaims/work",
            "/log?",
        ):
            assert part in calls, (part, done)
        assert "/jobs plates-train-2" in calls
    # At least once when the run is accepted, and once at the end of each attempt.
    states = _states(killed_at)
    assert states.count(True) == states.count(False) >= 1 + attempts
