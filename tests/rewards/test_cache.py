from dataclasses import replace

from rlhf.rewards.cache import ScoreCache, cache_key
from rlhf.rewards.protocol import Episode

ONE = Episode(prompt="p", completion="c", columns={"a": 1}, prompt_ids=(1,), response_ids=(2, 3))


def test_whatever_a_reward_reads_is_in_the_key():
    others = [
        replace(ONE, prompt="q"),
        replace(ONE, prompt=[{"role": "user", "content": "p"}]),
        replace(ONE, completion="d"),
        replace(ONE, columns={"a": 2}),
        replace(ONE, columns={"a": object}),
        replace(ONE, prompt_ids=(4,)),
        replace(ONE, response_ids=(2,)),
    ]
    assert len({cache_key(each) for each in [ONE, *others]}) == 8
    assert cache_key(replace(ONE, columns=dict(ONE.columns))) == cache_key(ONE)


def test_the_least_recently_used_score_is_forgotten_first():
    cache = ScoreCache(2)
    cache.remember({"a": 1.0})
    cache.remember({"b": None})
    assert (cache.recall("a"), cache.recall("b"), cache.recall("a")) == (1.0, None, 1.0)
    cache.remember({"c": [3.0]})
    assert ("a" in cache, "b" in cache, "c" in cache) == (True, False, True)
