import pytest

from rlhf.errors import ConfigError, RewardError
from rlhf.rewards.kinds import rules
from rlhf.rewards.kinds.rules import LengthReward, RegexReward, RepetitionReward, repeated_share
from rlhf.rewards.protocol import Episode


def episode(completion, num_tokens=3):
    return Episode(
        prompt="a prompt", completion=completion, columns={}, prompt_ids=(1,), response_ids=tuple(range(num_tokens))
    )


@pytest.mark.parametrize(("num_tokens", "expected"), [(1, -2.0), (2, -1.0), (3, 0.0), (5, 0.0), (6, -1.0), (9, -4.0)])
def test_length_takes_off_the_distance_to_the_allowed_range(num_tokens, expected):
    reward = LengthReward(unit="tokens", at_least=3, at_most=5)
    assert reward.score([episode("x", num_tokens)]) == [expected]
    reward.close()


def test_length_counts_tokens_words_or_characters():
    one = episode("two  words", 7)
    assert [
        LengthReward(unit=unit, at_least=0, at_most=0).score([one]) for unit in ("tokens", "words", "characters")
    ] == [[-7.0], [-2.0], [-10.0]]
    assert LengthReward(unit="words", at_least=2, at_most=None).score([one, episode("")]) == [0.0, -2.0]


def test_repetition_is_the_share_of_n_grams_that_stood_before():
    # bigrams: a b, b a, a b, b a, a c: 5, of which 3 are different
    assert repeated_share("ababac", 2) == pytest.approx(2 / 5)
    assert repeated_share("abc", 3) == repeated_share("ab", 3) == repeated_share("", 1) == 0.0
    assert repeated_share("aaaa", 1) == 0.75
    words = RepetitionReward(unit="words", ngram=2)
    assert words.score([episode("a b a b a c"), episode("a b c"), episode("a")]) == pytest.approx([-0.4, 0.0, 0.0])
    words.close()


def test_a_pattern_is_found_anywhere_in_the_response_only():
    reward = RegexReward(r"(?i)wonder(ful)?\b", found=2.0, missing=-1.0)
    given = [episode("How Wonderful!"), episode("wonders"), episode("")]
    assert reward.score(given) == [2.0, -1.0, -1.0]
    assert RegexReward("prompt", found=1.0, missing=0.0).score([episode("x")]) == [0.0]
    reward.close()


def test_what_is_no_pattern_is_refused():
    with pytest.raises(ConfigError, match=r"pattern '\(' is no regular expression: missing \)"):
        RegexReward("(", found=1.0, missing=0.0)


def test_a_pattern_that_never_ends_is_stopped(monkeypatch):
    monkeypatch.setattr(rules, "SECONDS_PER_TEXT", 0.1)
    # Backreferences keep the engine from taking a short cut.
    reward = RegexReward(r"^((a+)+\2?)+$", found=1.0, missing=0.0)
    with pytest.raises(RewardError, match=r"takes more than 0.1 s on response 1, 'aaaa"):
        reward.score([episode("a"), episode("a" * 4000 + "b")])
