"""A reward model scores the very tokens, or the text where the tokens mean something else."""

import pytest
import torch

from rlhf.errors import ConfigError, RewardError
from rlhf.models.pretrained.loading import load_scalar_lm
from rlhf.models.scalar import ScalarModel
from rlhf.rewards.kinds.model import ModelReward
from rlhf.rewards.protocol import Episode

# Scores agree to rel=1e-4, abs=1e-5: float32 through two layers in another order, some hundred roundings of 2^-24.
CPU = torch.device("cpu")


@pytest.fixture
def directory(saved_reward_model):
    return saved_reward_model(score_mean=0.125)


def _reward(directory, tokenizer, **options) -> ModelReward:
    return ModelReward(directory, tokenizer, **{"dtype": torch.float32, "device": CPU, **options})


def _episode(prompt_ids, response_ids, prompt="A film", completion=" so good") -> Episode:
    return Episode(
        prompt=prompt, completion=completion, columns={}, prompt_ids=tuple(prompt_ids), response_ids=tuple(response_ids)
    )


def _score(directory, ids) -> float:
    model = ScalarModel(load_scalar_lm(directory, new_head=False))
    with torch.no_grad():
        return float(model(torch.tensor([ids]), torch.ones(1, len(ids), dtype=torch.bool)))


EPISODES = [_episode([5, 6, 7], [8, 2]), _episode([9], [10, 11, 12, 13, 14]), _episode([20, 21], [2])]


def test_the_same_tokenizer_reads_the_very_tokens(directory, tiny_tokenizer):
    scores = _reward(directory, tiny_tokenizer).score(EPISODES)
    expected = [_score(directory, [*e.prompt_ids, *e.response_ids]) for e in EPISODES]
    assert scores == pytest.approx(expected, rel=1e-4, abs=1e-5)
    assert len(set(scores)) == 3


@pytest.mark.parametrize("max_tokens", [1, 9, 4096])
def test_company_and_padding_do_not_change_a_score(directory, tiny_tokenizer, max_tokens):
    reward = _reward(directory, tiny_tokenizer, max_tokens=max_tokens)
    alone = [reward.score([episode])[0] for episode in EPISODES]
    assert reward.score(EPISODES) == pytest.approx(alone, rel=1e-4, abs=1e-5)
    assert reward.score(EPISODES[::-1]) == pytest.approx(alone[::-1], rel=1e-4, abs=1e-5)
    assert reward.score([]) == []


def _other(tokenizer):
    tokenizer.add_tokens(["another"])
    return tokenizer


@pytest.mark.parametrize(("last", "end"), [(2, [2]), (9, [])])
def test_another_tokenizer_s_text_is_encoded_again_with_eos_where_it_ended(directory, tiny_tokenizer, last, end):
    ids = tiny_tokenizer("A film so good").input_ids
    reward = _reward(directory, _other(tiny_tokenizer))
    expected = [_score(directory, ids + end)]
    assert reward.score([_episode([77], [78, last])]) == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_messages_pass_through_the_models_own_chat_template(directory, tiny_tokenizer):
    ids = [*tiny_tokenizer("U:Hi\nA:Yes", add_special_tokens=False).input_ids, 2]
    episode = _episode([77], [78, 2], prompt=[{"role": "user", "content": "Hi"}], completion="Yes")
    reward = _reward(directory, _other(tiny_tokenizer))
    assert reward.score([episode]) == pytest.approx([_score(directory, ids)], rel=1e-4, abs=1e-5)
    reward.tokenizer.chat_template = None
    with pytest.raises(ConfigError, match="messages, but the tokenizer has no chat template"):
        reward.score([episode])


def test_a_sequence_beyond_the_models_positions_is_refused(directory, tiny_tokenizer):
    with pytest.raises(RewardError, match="prompt and response have 257 tokens, the model 256 positions"):
        _reward(directory, tiny_tokenizer).score([_episode([5] * 200, [6] * 57)])


def test_a_score_that_is_not_finite_is_refused(directory, tiny_tokenizer):
    reward = _reward(directory, tiny_tokenizer)
    torch.nn.init.constant_(reward.model.classifier.score.weight, torch.nan)
    with pytest.raises(RewardError, match="score 0 is nan for the prompt 'A film'"):
        reward.score(EPISODES)


def test_the_trunk_may_compute_in_bfloat16(directory, tiny_tokenizer):
    reward = _reward(directory, tiny_tokenizer, dtype=torch.bfloat16)
    assert not any(p.requires_grad for p in reward.model.parameters())
    exact = _reward(directory, tiny_tokenizer).score(EPISODES)
    # 8 bits through two layers: a few per cent of a score's scale, which is about 1.
    assert reward.score(EPISODES) == pytest.approx(exact, abs=0.15)
    reward.close()
