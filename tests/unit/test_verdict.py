"""Who is to blame when a gang ends, from what all nodes say."""

from ocr_finetune_api.exit_codes import ExitCode, FailureClass
from ocr_finetune_trainer.training.pulse import Outcome
from ocr_finetune_trainer.training.verdict import Report, WorkerReport, judge


def worker(rank, **values):
    defaults = {"phase": "compute", "waiting": False, "step": 10, "since": 0.1, "silent": 0.1}
    return WorkerReport(rank=rank, **(defaults | values))


def decide(*reports, lost=frozenset(), silent=None, peer_timeout=30.0):
    return judge(
        dict(enumerate(reports)),
        silent=silent or {},
        lost=lost,
        peer_timeout=peer_timeout,
        processes=1,
    )


BROKEN = Outcome(exit_code=69, problems=["the connection to a peer broke"], peer=True)


def test_nothing_is_wrong():
    assert decide(Report(workers=(worker(0),)), Report(workers=(worker(1, waiting=True, since=3.0),))) is None


def test_a_gang_that_ends_well_is_not_judged():
    done = Report(outcome=Outcome())
    assert decide(done, done, lost={1}) is None


def test_the_cause_goes_before_the_consequence():
    died = Report(outcome=Outcome(exit_code=int(ExitCode.INTERNAL), problems=["rank 1 was ended by SIGKILL"]))
    verdict = decide(Report(outcome=BROKEN), died)
    assert verdict.exit_code == ExitCode.PEER_UNAVAILABLE
    assert verdict.problems == ["node 1: rank 1 was ended by SIGKILL"]
    assert not verdict.peer


def test_a_broken_connection_alone_is_worth_waiting_for_its_cause():
    verdict = decide(Report(outcome=BROKEN), Report(workers=(worker(1, waiting=True),)))
    assert verdict.peer


def test_who_was_silent_while_a_collective_lost_its_patience_is_why():
    frozen = Report(workers=(worker(1, waiting=True, silent=31.0),))
    verdict = decide(Report(outcome=BROKEN), frozen, peer_timeout=60.0)
    assert "rank 1 (node 1), at 'compute' of step 10, has given no sign of life for 31 s" in verdict.problems[0]
    assert not verdict.peer
    assert decide(Report(workers=(worker(0),)), frozen, peer_timeout=60.0) is None


def test_who_does_not_wait_when_the_others_gave_up_is_in_the_way():
    slow = worker(1, phase="data", step=9, since=31.0)
    verdict = decide(Report(outcome=BROKEN), Report(workers=(slow,)))
    assert "rank 1 (node 1), at 'data' of step 9, keeps the others waiting" in verdict.problems[0]


def test_a_rank_that_others_wait_for_too_long_is_named_before_the_collective_breaks():
    waiting = worker(0, waiting=True, since=31.0)
    slow = worker(1, phase="compute", step=9, since=32.0)
    verdict = decide(Report(workers=(waiting,)), Report(workers=(slow,)))
    assert "rank 1" in verdict.problems[0]
    assert verdict.exit_code == ExitCode.PEER_UNAVAILABLE


def test_who_has_computed_less_of_a_backward_pass_is_in_the_way_of_who_has_done_it():
    done, half = worker(0, waiting=True, done=1.0, since=31.0), worker(1, waiting=True, done=0.5, since=4.0)
    verdict = decide(Report(workers=(done,)), Report(workers=(half,)))
    assert "rank 1 (node 1), at 'compute' of step 10, keeps the others waiting" in verdict.problems[0]
    told = decide(Report(workers=(done,), outcome=BROKEN), Report(workers=(half,)))
    assert "rank 1" in told.problems[0]


def test_ranks_that_all_compute_for_long_are_left_alone():
    for last in (0.5, 0.6):
        both = worker(0, waiting=True, done=0.5, since=31.0), worker(1, waiting=True, done=last, since=1.0)
        assert decide(*(Report(workers=(one,)) for one in both)) is None


def test_an_evaluation_may_take_long():
    waiting = worker(0, waiting=True, since=300.0)
    assert decide(Report(workers=(waiting,)), Report(workers=(worker(1, phase="evaluate", since=301.0),))) is None


def test_the_reasons_a_worker_knew_keep_their_exit_code():
    diverged = Report(outcome=Outcome(exit_code=82, problems=["training diverged"], hint="lower learningRate"))
    assert decide(Report(outcome=BROKEN), diverged).exit_code == ExitCode.DIVERGED


STALLED = {"failureClass": FailureClass.STALLED.value}
WAITED = Outcome(exit_code=70, problems=["rank 0 has waited for others"], peer=True, values=STALLED)


def blamed(verdict):
    error = verdict.error()
    return error.failure_class, error.node


def test_a_rank_without_a_sign_of_life_is_a_stall_of_its_node():
    verdict = decide(Report(workers=(worker(0),)), Report(workers=(worker(1, silent=31.0),)))
    assert blamed(verdict) == (FailureClass.STALLED, 1)


def test_the_watchdog_of_the_node_that_hangs_is_believed_before_that_of_the_node_that_waits():
    hung = Outcome(exit_code=70, problems=["rank 1 has been at 'compute'"], hint="raise it", values=STALLED)
    verdict = decide(Report(outcome=WAITED), Report(outcome=hung))
    assert (verdict.exit_code, verdict.peer) == (ExitCode.INTERNAL, False)
    assert blamed(verdict) == (FailureClass.STALLED, 1)


def test_a_wait_that_nobody_explains_is_a_stall_of_no_node():
    verdict = decide(Report(outcome=WAITED), Report(workers=(worker(1, waiting=True),)))
    assert verdict.peer
    assert blamed(verdict) == (FailureClass.STALLED, None)


def test_a_node_that_is_gone_is_named():
    verdict = decide(Report(workers=(worker(0),)), Report(workers=(worker(1),)), lost={1})
    assert blamed(verdict) == (None, 1)
