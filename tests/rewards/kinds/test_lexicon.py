import importlib.util

import pytest

from rlhf.errors import ConfigError
from rlhf.rewards.kinds import lexicon
from rlhf.rewards.kinds.lexicon import LexiconReward
from rlhf.rewards.protocol import Episode


def episode(completion):
    return Episode(prompt="A terrible prompt.", completion=completion, columns={}, prompt_ids=(1,), response_ids=(2,))


@pytest.mark.skipif(importlib.util.find_spec("vaderSentiment") is None, reason="the extra `lexicon` is not installed")
def test_the_sentiment_of_the_response_alone_is_scored():
    reward = LexiconReward()
    good, bad, none, empty = reward.score(
        [episode("A wonderful film!"), episode("A boring mess."), episode("A film."), episode("")]
    )
    assert 0 < good <= 1 and -1 <= bad < 0 and none == empty == 0.0
    reward.close()


def test_a_package_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setattr(lexicon, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"needs vaderSentiment - install it: pip install 'rlhf-ppo\[lexicon\]'"):
        LexiconReward()
