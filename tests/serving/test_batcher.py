import threading
from dataclasses import replace

import pytest

from rlhf.errors import RewardError
from rlhf.serving.batcher import Batcher
from rlhf.serving.served_reward import Refused, ScoreRequest

PATIENT = 60


@pytest.fixture
def plugged(script):
    """Make the text "plug" hold the reward until it is released."""
    entered, released = threading.Event(), threading.Event()

    def plug():
        entered.set()
        assert released.wait(PATIENT)
        return 0.0

    script.effects["plug"] = plug
    yield entered, released
    released.set()


def _submit(batcher, *texts):
    return batcher.submit(ScoreRequest(query=list(texts)))


def _all_but_the_first(script, batcher, plugged, *requests):
    """Submit requests while the reward is busy; return their futures after it is released."""
    entered, released = plugged
    first = _submit(batcher, "plug")
    assert entered.wait(PATIENT)
    futures = [_submit(batcher, *texts) for texts in requests]
    released.set()
    first.result(PATIENT)
    return futures


def test_a_request_gets_its_scores_in_order(source):
    batcher = Batcher(source)
    assert _submit(batcher, "abc", "", "ab").result(PATIENT) == [3.0, 0.0, 2.0]
    assert _submit(batcher).result(PATIENT) == []


def test_what_arrives_while_the_reward_is_busy_is_scored_together(source, script, plugged):
    futures = _all_but_the_first(
        script, Batcher(source), plugged, ["a", "bb", "ccc"], ["dddd"], ["e"] * 4, ["f"], ["g"] * 20, ["h"]
    )
    scores = [future.result(PATIENT) for future in futures]
    assert scores == [[1.0, 2.0, 3.0], [4.0], [1.0] * 4, [1.0], [1.0] * 20, [1.0]]
    # Eight texts are joined at most, and a request is never cut.
    assert [len(call) for call in script.calls] == [1, 8, 1, 20, 1]


def test_requests_of_a_function_are_never_joined(source, script, plugged):
    futures = _all_but_the_first(script, Batcher(replace(source, joined_texts=0)), plugged, ["a"], [], ["b"])
    assert [future.result(PATIENT) for future in futures] == [[1.0], [], [1.0]]
    assert script.calls == [["plug"], ["a"], [], ["b"]]


@pytest.mark.parametrize("value", [float("nan"), None, [1.0], "1"])
def test_a_request_that_fails_does_not_take_others_with_it(source, script, plugged, value):
    script.effects["bad"] = lambda: value
    good, bad, last = _all_but_the_first(script, Batcher(source), plugged, ["a"], ["b", "bad"], ["cc"])
    assert (good.result(PATIENT), last.result(PATIENT)) == ([1.0], [2.0])
    with pytest.raises(RewardError, match=r"^reward 'script': score 1 is "):
        bad.result(PATIENT)


def test_any_exception_goes_to_its_request_and_the_thread_goes_on(source, script):
    def fail():
        raise MemoryError("no room")

    script.effects["bad"] = fail
    batcher = Batcher(source)
    with pytest.raises(MemoryError):
        _submit(batcher, "bad").result(PATIENT)
    assert _submit(batcher, "abc").result(PATIENT) == [3.0]


def test_a_request_that_cannot_be_read_is_not_scored(source, script, plugged):
    def episodes(request):
        if "unreadable" in request.query:
            raise Refused(413, "too long")
        return source.episodes(request)

    good, bad = _all_but_the_first(
        script, Batcher(replace(source, episodes=episodes)), plugged, ["a"], ["b", "unreadable"]
    )
    assert good.result(PATIENT) == [1.0]
    with pytest.raises(Refused, match="too long"):
        bad.result(PATIENT)
    assert script.calls == [["plug"], ["a"]]


def test_a_request_that_nobody_waits_for_is_not_scored(source, script, plugged):
    entered, released = plugged
    batcher = Batcher(source)
    first = _submit(batcher, "plug")
    assert entered.wait(PATIENT)
    given_up, last = _submit(batcher, "a"), _submit(batcher, "b")
    assert given_up.cancel()
    assert batcher.busy_seconds > 0
    released.set()
    assert (first.result(PATIENT), last.result(PATIENT)) == ([0.0], [1.0])
    assert script.calls == [["plug"], ["b"]]
