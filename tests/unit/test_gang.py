"""Nodes find each other in time or say who is missing, and learn who is gone; all over real sockets."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from ocr_finetune_api.exit_codes import ExitCode, FailureClass, PeerError, StopRequested
from ocr_finetune_trainer.training.gang import Gang, Identity
from ocr_finetune_trainer.training.pulse import Outcome, State
from ports import reserved

DEADLINE_SECONDS = 60.0


def wait_for(condition):
    end = time.monotonic() + DEADLINE_SECONDS
    while not (value := condition()):
        assert time.monotonic() < end
        time.sleep(0.01)
    return value


@pytest.fixture
def port() -> Iterator[int]:
    with reserved() as port:
        yield port


@pytest.fixture
def make_gang(port):
    made = []

    def make(
        node: int, *, nodes: int = 2, attempt: int = 1, timeout: float = DEADLINE_SECONDS, peer_timeout=DEADLINE_SECONDS
    ):
        identity = Identity(
            run="u", attempt=attempt, node=node, nodes=nodes, address=f"127.0.0.{node + 1}", processes=2
        )
        gang = Gang(
            identity,
            host="127.0.0.1",
            port=port,
            timeout=timeout,
            peer_timeout=peer_timeout,
            stop=threading.Event(),
        )
        made.append(gang)
        return gang

    yield make
    for gang in made:
        gang.close()


def meet(*gangs):
    with ThreadPoolExecutor(len(gangs)) as pool:
        return [future.result(DEADLINE_SECONDS) for future in [pool.submit(gang.meet) for gang in gangs]]


def state(rank: int, **values) -> State:
    now = time.time()
    return State(rank=rank, **({"phase": "compute", "since": now, "beat": now} | values))


def report(gang, **values):
    first = gang.identity.node * 2
    gang._sent = 0.0
    gang.report([state(first, **values), state(first + 1)], None)


def test_all_nodes_learn_the_same(make_gang):
    meetings = meet(make_gang(0, nodes=3), make_gang(2, nodes=3), make_gang(1, nodes=3))
    assert len({meeting.execution for meeting in meetings}) == 1
    assert meetings[0].addresses == meetings[1].addresses == ("127.0.0.1", "127.0.0.2", "127.0.0.3")


def test_whoever_is_missing_is_named_on_every_node(make_gang):
    leader, other = make_gang(0, nodes=4, timeout=3.0), make_gang(2, nodes=4, timeout=3.0)
    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(leader.meet)]
        wait_for(lambda: leader._server)
        futures.append(pool.submit(other.meet))
        for future in futures:
            with pytest.raises(PeerError, match=r"node 1, node 3 of 4") as caught:
                future.result(DEADLINE_SECONDS)
            assert caught.value.exit_code == ExitCode.PEER_UNAVAILABLE


def test_without_node_0_the_others_say_where_they_looked(make_gang, port):
    with pytest.raises(PeerError, match=f"node 0 can't be reached at 127.0.0.1:{port} within 1 s"):
        make_gang(1, timeout=1.0).meet()


def test_a_node_of_an_older_attempt_is_refused(make_gang):
    leader = make_gang(0, attempt=2)
    with ThreadPoolExecutor(1) as pool:
        meeting = pool.submit(leader.meet)
        with pytest.raises(PeerError, match=r"attempt 1 of run u is over or not here: this is attempt 2"):
            make_gang(1, attempt=1).meet()
        make_gang(1, attempt=2).meet()
        assert len(meeting.result(DEADLINE_SECONDS).addresses) == 2


def test_a_node_that_comes_back_too_late_is_refused(make_gang):
    meet(make_gang(0), make_gang(1))
    with pytest.raises(PeerError, match="came back too late"):
        make_gang(1).meet()


def test_a_node_that_restarts_while_others_are_missing_takes_its_place_again(make_gang):
    leader, first = make_gang(0, nodes=3), make_gang(1, nodes=3)
    with ThreadPoolExecutor(3) as pool:
        meeting = pool.submit(leader.meet)
        pool.submit(first.meet)
        wait_for(lambda: 1 in leader._seats)
        first._stop.set()
        first.close()
        wait_for(lambda: 1 not in leader._seats)
        second, third = make_gang(1, nodes=3), make_gang(2, nodes=3)
        futures = [pool.submit(second.meet), pool.submit(third.meet)]
        assert [f.result(DEADLINE_SECONDS).execution for f in futures] == [
            meeting.result(DEADLINE_SECONDS).execution
        ] * 2


def test_who_comes_first_may_wait_for_the_last_longer_than_silence_is_borne(make_gang):
    leader, first, last = (make_gang(node, nodes=3, peer_timeout=1.0) for node in range(3))
    with ThreadPoolExecutor(3) as pool:
        futures = [pool.submit(leader.meet), pool.submit(first.meet)]
        wait_for(lambda: 1 in leader._seats and time.monotonic() - leader._seats[1].seen > 1.2)
        futures.append(pool.submit(last.meet))
        futures[0].result(DEADLINE_SECONDS)
        report(leader)
        assert leader.verdict() is None
        assert len({future.result(DEADLINE_SECONDS).execution for future in futures}) == 1


def test_a_stop_ends_the_waiting(make_gang):
    gang = make_gang(0)
    threading.Timer(0.2, gang._stop.set).start()
    with pytest.raises(StopRequested, match="nothing was trained"):
        gang.meet()


def test_a_node_that_is_gone_is_named(make_gang):
    leader, other = make_gang(0), make_gang(1)
    meet(leader, other)
    report(other)
    report(leader)
    other.close()
    verdict = wait_for(lambda: report(leader) or leader.verdict())
    assert verdict.exit_code == ExitCode.PEER_UNAVAILABLE
    assert "node 1 (ranks 2 to 3) is gone" in verdict.problems[0]


def test_node_0_gone_is_noticed_by_the_others(make_gang):
    leader, other = make_gang(0), make_gang(1)
    meet(leader, other)
    leader.close()
    verdict = wait_for(lambda: report(other) or other.verdict())
    assert "node 0" in verdict.problems[0]
    assert "rank 0 with it, has closed the line" in verdict.problems[0]
    assert verdict.exit_code == ExitCode.PEER_UNAVAILABLE


def test_a_node_0_that_says_nothing_any_more_is_named_by_the_others(make_gang):
    leader, other = make_gang(0), make_gang(1, peer_timeout=0.5)
    meet(leader, other)
    verdict = wait_for(lambda: report(other) or other.verdict())
    assert "rank 0 with it, has been silent for" in verdict.problems[0]
    assert verdict.exit_code == ExitCode.PEER_UNAVAILABLE


def test_a_silent_worker_is_named_on_every_node(make_gang):
    leader, other = make_gang(0), make_gang(1)
    meet(leader, other)
    frozen = time.time() - 2 * DEADLINE_SECONDS

    def both():
        report(other, beat=frozen, step=7)
        report(leader)
        return leader.verdict() and other.verdict()

    wait_for(both)
    # As the end of the stage does it.
    leader.close(Outcome.of(leader.verdict().error()))
    wait_for(lambda: other._line is None)
    for gang in (leader, other):
        assert "rank 2 (node 1), at 'compute' of step 7, has given no sign of life" in gang.verdict().problems[0]
        error = gang.verdict().error()
        assert (error.failure_class, error.node) == (FailureClass.STALLED, 1)


def test_what_a_worker_understood_keeps_its_exit_code(make_gang):
    leader, other = make_gang(0), make_gang(1)
    meet(leader, other)
    other.report([], Outcome(exit_code=65, problems=["a.png: can't be read"], hint="prepare again"))
    verdict = wait_for(lambda: report(leader) or leader.verdict())
    assert verdict.exit_code == ExitCode.BAD_DATA
    assert verdict.problems == ["node 1: a.png: can't be read"]


def test_strangers_are_no_nodes(make_gang, port):
    leader, other = make_gang(0), make_gang(1)
    with ThreadPoolExecutor(2) as pool:
        meeting = pool.submit(leader.meet)
        wait_for(lambda: leader._server)
        for greeting in (b"GET / HTTP/1.1\r\n\r\n", b'{"hello": 1}\n', b"[]\n", b""):
            with socket.create_connection(("127.0.0.1", port)) as stranger:
                stranger.sendall(greeting)
        pool.submit(other.meet).result(DEADLINE_SECONDS)
        assert len(meeting.result(DEADLINE_SECONDS).addresses) == 2
