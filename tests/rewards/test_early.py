"""Tests of rlhf.rewards.early, and of a reward that is asked so."""

import threading
from collections.abc import Sequence
from typing import Any

import pytest

from rlhf.errors import RewardError
from rlhf.rewards.cache import cache_key
from rlhf.rewards.checks import BadScores, Problem
from rlhf.rewards.component import Component, GuardedReward, Options
from rlhf.rewards.early import EarlyAnswers
from rlhf.rewards.protocol import Episode

SECONDS = 20.0
"""That a test waits before it fails."""


def episode(text: str) -> Episode:
    return Episode(prompt="prompt", completion=text, columns={}, prompt_ids=(1,), response_ids=(2, 3))


class Gated:
    """A reward that answers once it may: the length of the text, or what `fails` raises."""

    def __init__(self, fails: dict[str, Exception] | None = None) -> None:
        self.asked: list[list[str]] = []
        self.begun, self.may_answer = threading.Event(), threading.Event()
        self.fails = fails or {}
        self.running = self.most_running = 0

    def score(self, episodes: Sequence[Episode]) -> list[float]:
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        texts = [each.completion for each in episodes]
        self.asked.append(texts)
        self.begun.set()
        assert self.may_answer.wait(SECONDS)
        self.running -= 1
        for text in texts:
            if text in self.fails:
                raise self.fails.pop(text)
        return [float(len(text)) for text in texts]

    def close(self) -> None:
        pass


def guarded(reward: Gated, **options: Any) -> GuardedReward:
    return GuardedReward(Component(reward, 1.0, "mine", Options(early=True, **options)))


def asked_early(reward: Gated, asks: GuardedReward, *texts: str) -> None:
    """The first text is on its way, the others wait for it; then all are answered."""
    asks.begin(episode(texts[0]))
    assert reward.begun.wait(SECONDS)
    for text in texts[1:]:
        asks.begin(episode(text))
    reward.may_answer.set()
    wait()


def wait() -> None:
    for thread in threading.enumerate():
        if thread.name.startswith("early"):
            thread.join(SECONDS)


def test_what_comes_during_a_call_is_asked_in_one_call_after_it() -> None:
    reward = Gated()
    asks = guarded(reward)
    asked_early(reward, asks, "a", "bb", "ccc")
    answer = asks.answer([episode(text) for text in ("ccc", "a", "dddd", "bb")])
    assert answer.scores == [3.0, 1.0, 4.0, 2.0]
    assert reward.asked == [["a"], ["bb", "ccc"], ["dddd"]] and reward.most_running == 1


def test_nobody_waits_for_what_has_not_begun() -> None:
    """While one call runs the batch is complete: the rest is asked together."""
    reward = Gated()
    asks = guarded(reward)
    asks.begin(episode("a"))
    assert reward.begun.wait(SECONDS)
    for text in ("bb", "ccc"):
        asks.begin(episode(text))
    threading.Timer(0.05, reward.may_answer.set).start()
    assert asks.answer([episode(text) for text in ("a", "bb", "ccc", "dddd")]).scores == [1.0, 2.0, 3.0, 4.0]
    assert reward.asked == [["a"], ["bb", "ccc", "dddd"]] and reward.most_running == 1


def test_answers_are_of_one_batch_and_a_cache_keeps_them() -> None:
    for cache, expected in ((0, [["a"], ["a"]]), (8, [["a"]])):
        reward = Gated()
        asks = guarded(reward, cache=cache)
        asked_early(reward, asks, "a")
        for _ in range(2):
            assert asks.answer([episode("a")]).scores == [1.0]
        assert reward.asked == expected
    asks.begin(episode("a"))  # the cache knows it
    asks.begin(episode("b"))
    wait()
    assert asks.answer([episode("a"), episode("b")]).scores == [1.0, 1.0] and reward.asked == [["a"], ["b"]]


@pytest.mark.parametrize("error", [RewardError("the server is away"), ValueError("no")], ids=repr)
def test_what_failed_early_is_asked_again_and_only_then_counts(error: Exception) -> None:
    reward = Gated(fails={"a": error})
    asks = guarded(reward)
    asked_early(reward, asks, "a")
    answer = asks.answer([episode("a")])
    assert answer.scores == [1.0] and answer.stop is None and reward.asked == [["a"], ["a"]]
    asked_early(reward, asks, "bb")
    assert reward.asked[2:] == [["bb"]]  # the next one is asked early again


def test_what_fails_again_follows_the_reward_s_options() -> None:
    reward = Gated(fails={"a": RewardError("once")})
    asks = guarded(reward, on_error="drop_episode")
    asked_early(reward, asks, "a")
    reward.fails["a"] = RewardError("twice")
    answer = asks.answer([episode("a"), episode("bb")])
    assert answer.dropped == {0, 1} and "twice" in answer.problems[0].message


def test_of_some_bad_scores_the_good_ones_are_kept() -> None:
    def ask(episodes: Sequence[Episode]) -> list[Any]:
        raise BadScores(
            [None if each.completion == "a" else 2.0 for each in episodes], {0: Problem("no number", False)}
        )

    early = EarlyAnswers(ask, "early")
    early._waiting.append(episode("a"))
    early.begin(episode("bb"))
    wait()
    assert early.take() == {cache_key(episode("bb")): 2.0} and early.take() == {}


def test_a_deadline_holds_for_early_calls_too() -> None:
    reward = Gated()
    asks = guarded(reward, deadline=0.2)
    asks.begin(episode("a"))
    assert reward.begun.wait(SECONDS)
    answer = asks.answer([episode("a")])
    assert answer.stop is not None and "no answer within 0.2 s" in str(answer.stop)
    reward.may_answer.set()


def test_without_the_option_nothing_is_asked_early() -> None:
    reward = Gated()
    reward.may_answer.set()
    asks = GuardedReward(Component(reward, 1.0, "mine", Options()))
    asks.begin(episode("a"))
    assert not asks.asks_early and asks.answer([episode("a")]).scores == [1.0] and reward.asked == [["a"]]
