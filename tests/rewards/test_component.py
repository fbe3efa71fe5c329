"""What one reward of a run may do wrong, and what its options make of it."""

import math
import threading

import numpy as np
import pytest
import torch

from rlhf.errors import ConfigError, RewardError
from rlhf.rewards.component import Component, GuardedReward, Options
from rlhf.rewards.protocol import Episode

NAN, INF = math.nan, math.inf


class Says:
    """A reward that answers with what it is given, or with what a function makes of the episodes."""

    def __init__(self, answer):
        self.answer, self.asked, self.is_closed = answer, [], False

    def score(self, episodes):
        self.asked.append([episode.completion for episode in episodes])
        return self.answer(episodes) if callable(self.answer) else self.answer

    def close(self):
        self.is_closed = True


def raises(error):
    def answer(episodes):
        raise error

    return answer


def episodes(*completions):
    return [
        Episode(prompt=f"prompt {text}", completion=text, columns={}, prompt_ids=(1,), response_ids=(2, 3))
        for text in completions
    ]


THREE = episodes("a", "b", "c")


def guarded(answer, **options):
    return GuardedReward(Component(Says(answer), 1.0, "mine", Options(**options)))


def hangs(given):
    threading.Event().wait()


# What comes back, whose option decides, which episodes it concerns, and what is said about it.
BAD = [
    ([1.0, 2.0], "on_error", {0, 1, 2}, "expected 3 floats, got list of 2"),
    ([1.0] * 4, "on_error", {0, 1, 2}, "expected 3 floats, got list of 4"),
    ([], "on_error", {0, 1, 2}, "expected 3 floats, got list of 0"),
    (None, "on_error", {0, 1, 2}, "expected 3 floats, got None"),
    (1.0, "on_error", {0, 1, 2}, "expected 3 floats, got float"),
    ("abc", "on_error", {0, 1, 2}, "expected 3 floats, got str of 3"),
    ({0: 1.0, 1: 2.0, 2: 3.0}, "on_error", {0, 1, 2}, "got dict of 3"),
    (torch.zeros(3, 1), "on_error", {0, 1, 2}, r"got Tensor of shape \[3, 1\]"),
    (torch.tensor(1.0), "on_error", {0, 1, 2}, r"got Tensor of shape \[\]"),
    (np.zeros((1, 3)), "on_error", {0, 1, 2}, r"got ndarray of shape \[1, 3\]"),
    ([1.0, "2.0", 3.0], "on_error", {1}, "score 1 is str '2.0' for the prompt 'prompt b'"),
    ([1.0, "high", 3.0], "on_error", {1}, "score 1 is str 'high'"),
    ([1.0, {"score": 2.0}, 3.0], "on_error", {1}, "score 1 is dict"),
    ([1.0, [2.0], 3.0], "on_error", {1}, "score 1 has 1 numbers for the 2 tokens of the response"),
    ([1.0, [2.0, NAN], 3.0], "on_nan", {1}, "score 1 is nan"),
    ([1.0, torch.zeros(1, 2), 3.0], "on_error", {1}, "score 1 has spans of characters"),
    ([1.0, NAN, 3.0], "on_nan", {1}, "score 1 is nan for the prompt 'prompt b'"),
    ([1.0, INF, -INF], "on_nan", {1, 2}, "score 1 is inf"),
    (torch.tensor([1.0, NAN, 3.0]), "on_nan", {1}, "score 1 is nan"),
    (np.array([1.0, 2.0, INF]), "on_nan", {2}, "score 2 is inf"),
    ([1.0, 1e39, 3.0], "on_nan", {1}, r"score 1 is 1e\+39"),
    ([NAN, NAN, NAN], "on_nan", {0, 1, 2}, "score 0 is nan"),
    (
        raises(ZeroDivisionError("division by zero")),
        "on_error",
        {0, 1, 2},
        "raised ZeroDivisionError: division by zero",
    ),
    (raises(RewardError("the server is down")), "on_error", {0, 1, 2}, "the server is down"),
    (raises(TimeoutError("its own")), "on_error", {0, 1, 2}, "raised TimeoutError: its own"),
    (hangs, "on_error", {0, 1, 2}, "no answer within 0.2 s - raise its deadline, or find out where it hangs"),
]


@pytest.mark.parametrize(("bad", "option", "concerned", "message"), BAD)
@pytest.mark.parametrize("policy", ["stop", "drop_episode", "neutral"])
def test_what_goes_wrong_stops_the_run_or_concerns_its_episodes(bad, option, concerned, message, policy):
    other = {"on_nan": "on_error", "on_error": "on_nan"}[option]
    deadline = 0.2 if bad is hangs else None
    answer = guarded(bad, deadline=deadline, **{option: policy, other: "stop"}).answer(THREE)
    if policy == "stop":
        with pytest.raises(RewardError, match=message) as caught:
            raise answer.stop
        assert caught.value.exit_status == 5 and "\n" not in str(caught.value)
        return
    assert answer.stop is None
    assert (answer.dropped, answer.neutral) == ((concerned, set()) if policy == "drop_episode" else (set(), concerned))
    assert set(answer.problems) == concerned
    assert {problem.is_number for problem in answer.problems.values()} == {option == "on_nan"}
    assert [answer.scores[index] is None for index in range(3)] == [index in concerned for index in range(3)]
    assert len(concerned) == 3 or answer.scores[0] == 1.0


def test_the_stricter_of_two_options_decides():
    mixed = [NAN, "x", 1.0]
    assert "score 1 is str 'x'" in str(guarded(mixed, on_nan="neutral").answer(THREE).stop)
    assert "score 0 is nan" in str(guarded(mixed, on_error="neutral").answer(THREE).stop)
    both = guarded(mixed, on_nan="neutral", on_error="drop_episode").answer(THREE)
    assert (both.neutral, both.dropped, both.stop) == ({0}, {1}, None)


def test_the_users_exception_stays_the_cause():
    stop = guarded(raises(KeyError("x"))).answer(THREE).stop
    assert isinstance(stop.__cause__, KeyError)


def test_a_bad_config_is_not_a_reward_that_failed():
    answer = guarded(raises(ConfigError("no chat template")), on_error="neutral").answer(THREE)
    assert isinstance(answer.stop, ConfigError) and answer.stop.exit_status == 2


def test_an_interrupt_goes_through():
    for deadline in (None, 60.0):
        with pytest.raises(KeyboardInterrupt):
            guarded(raises(KeyboardInterrupt()), deadline=deadline).answer(THREE)


def test_none_and_token_scores_are_answers():
    answer = guarded([None, [1.0, 2.0], 3]).answer(THREE)
    assert answer.scores == [None, [1.0, 2.0], 3.0] and answer.totals == [None, 3.0, 3.0]
    assert answer.stop is None and not answer.problems


def test_single_tokens_cannot_be_normalised_by_the_batch():
    assert "normalise: batch" in str(guarded([1.0, [1.0, 2.0], 3.0], normalise="batch").answer(THREE).stop)
    assert guarded([1.0, [1.0, 2.0], 3.0], normalise="running").answer(THREE).stop is None


def test_a_cache_asks_for_each_episode_once():
    reward = Says(lambda given: [float(ord(episode.completion)) for episode in given])
    remembering = GuardedReward(Component(reward, options=Options(cache=10)))
    assert remembering.answer(episodes("b", "a", "b")).scores == [98.0, 97.0, 98.0]
    assert remembering.answer(episodes("c", "a")).scores == [99.0, 97.0]
    assert remembering.answer(episodes("a")).scores == [97.0]
    assert reward.asked == [["b", "a"], ["c"]]


def test_a_cache_remembers_no_failure():
    reward = Says(lambda given: [NAN if episode.completion == "b" else 1.0 for episode in given])
    remembering = GuardedReward(Component(reward, options=Options(cache=10, on_nan="drop_episode")))
    for _ in range(2):
        answer = remembering.answer(episodes("a", "b", "a", "b"))
        assert answer.scores == [1.0, None, 1.0, None] and answer.dropped == {1, 3}
    assert reward.asked == [["a", "b"], ["b"]]


def test_a_small_cache_still_answers_for_a_whole_batch():
    reward = Says(lambda given: [float(ord(episode.completion)) for episode in given])
    remembering = GuardedReward(Component(reward, options=Options(cache=1)))
    for _ in range(2):
        assert remembering.answer(episodes("a", "b", "c")).scores == [97.0, 98.0, 99.0]


def test_observations_are_passed_on_and_forgotten():
    class Noting(Says):
        noted = None

        def score(self, given):
            self.noted = {"spread": [0.5] * len(given)}
            return super().score(given)

        def observations(self):
            noted, self.noted = self.noted or {}, None
            return noted

    noting = GuardedReward(Component(Noting([1.0, 2.0, 3.0]), options=Options(cache=10)))
    assert noting.answer(THREE).observations == {"spread": [0.5] * 3}
    assert noting.answer(THREE).observations == {}, "all remembered, nothing asked"


def test_closing_says_what_went_wrong_and_does_not_wait_for_what_hangs():
    closing = guarded([1.0])
    assert closing.close() is None and closing._reward.is_closed
    broken = guarded([1.0])
    broken._reward.close = lambda: 1 / 0
    assert broken.close() == "reward 'mine': close raised ZeroDivisionError: division by zero"
    stuck = guarded(hangs, deadline=0.1)
    stuck.answer(THREE)
    assert stuck.close() == "reward 'mine': close raised NoAnswer: no answer within 0.1 s"
