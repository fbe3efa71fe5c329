"""Prompts that end with the beginning of an answer: the model goes on from there."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from rlhf import PPOSettings, PPOTrainer
from rlhf.data.conversations.messages import with_continuation
from rlhf.data.demonstrations import prepare_demonstrations
from rlhf.data.records import Row
from rlhf.data.tokenization import prepare_pairs
from rlhf.errors import DataError

USER = {"role": "user", "content": "How are you?"}
BEGUN = {"role": "assistant", "content": "I am"}
REST = {"role": "assistant", "content": " fine."}
OTHER = {"role": "assistant", "content": " well."}
Made = Callable[..., Any]
SHAPES = (
    *("llama 3", "qwen 2.5", "qwen 3", "gemma 2", "gemma 3", "mistral", "phi 3", "phi 4", "chatml", "zephyr"),
    *("deepseek v3", "glm 4"),
)


@pytest.mark.parametrize("name", SHAPES)
def test_sampling_goes_on_in_the_message_and_training_sees_the_same_ids(
    public: ModuleType, sampled: Made, examples: Made, learnt: Made, name: str
) -> None:
    tokenizer = public.byte_level(public.SHAPES[name].template, public.SHAPES[name].eos)
    prompt = sampled(tokenizer, prompt=[USER, BEGUN])
    assert tokenizer.decode(prompt).endswith("I am")
    (example,) = examples(tokenizer, prompt=[USER, BEGUN], completion=[REST]).items
    assert example.input_ids[: len(prompt)] == prompt
    assert learnt(tokenizer, example) == public.SHAPES[name].said.replace("Sure.", " fine.").lstrip("\n").replace(
        "  ", " "
    ).replace("<think>\n\n</think>\n\n", "")
    row = Row({"prompt": [USER, BEGUN], "chosen": [REST], "rejected": [OTHER]}, "f.jsonl:1")
    (pair,) = prepare_pairs([row], tokenizer, max_length=500).items
    (shown,) = prepare_demonstrations([row], tokenizer, max_length=500).items
    assert pair.chosen_ids == example.input_ids == (*shown.prompt.ids, *shown.response_ids)
    assert shown.prompt.ids == prompt == pair.rejected_ids[: len(prompt)]


def test_what_was_begun_is_not_learnt_though_tags_enclose_it(tiny_tokenizer: Any, examples: Made, learnt: Made) -> None:
    for loss_on in ("completion", "assistant"):
        (example,) = examples(tiny_tokenizer, {"loss_on": loss_on}, prompt=[USER, BEGUN], completion=[REST]).items
        assert learnt(tiny_tokenizer, example) == " fine.<eos>"


def test_ppo_samples_from_there_and_rewards_read_one_message(workshop: Path) -> None:
    settings = PPOSettings(
        steps=1, rollout_batch_size=2, minibatches=1, sampling={"max_new_tokens": 2}, model={"precision": "float32"}
    )
    with PPOTrainer(str(workshop / "policy"), None, {"kind": "length", "at_most": 2}, None, settings) as trainer:
        episode = trainer.rollout([[USER, BEGUN], [USER, BEGUN]]).episodes[0]
        assert trainer.parts.tokenizer.decode(episode.prompt_ids).endswith("I am")
        assert episode.prompt == [USER, BEGUN]


def test_an_answer_is_joined_to_what_was_begun() -> None:
    assert with_continuation([USER, BEGUN], [REST]) == [USER, {"role": "assistant", "content": "I am fine."}]
    assert with_continuation([USER], [REST]) == [USER, REST]
    assert with_continuation([], [REST]) == [REST]


def test_a_prompt_that_ends_with_a_call_is_refused(public: ModuleType, sampled: Made) -> None:
    tokenizer = public.byte_level(public.QWEN_2_5, "<|im_end|>")
    call = {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {}}}]}
    with pytest.raises(DataError, match=r"f.jsonl:1: a prompt ends with a call of a tool - add the tool's answer"):
        sampled(tokenizer, prompt=[USER, call])
    assert sampled(tokenizer, prompt=[USER, call, {"role": "tool", "content": "3"}])


@pytest.mark.parametrize("kind", ["model", "classifier"])
def test_reward_models_with_another_tokenizer_read_one_message(
    tiny_tokenizer: Any, saved_reward_model: Callable[..., str], kind: str
) -> None:
    import torch

    from rlhf.rewards.kinds.classifier import ClassifierReward
    from rlhf.rewards.kinds.model import ModelReward
    from rlhf.rewards.protocol import Episode

    path, device = saved_reward_model(), torch.device("cpu")
    policy_tokenizer = tiny_tokenizer
    policy_tokenizer.add_tokens(["zzz"])
    reward: Any
    if kind == "model":
        reward = ModelReward(path, policy_tokenizer, dtype=torch.float32, device=device)
    else:
        reward = ClassifierReward(path, label=None, activation="none", device=device)
    common: dict[str, Any] = {"columns": {}, "prompt_ids": (4,), "response_ids": (5,)}
    begun = Episode(prompt=[USER, BEGUN], completion=" fine.", **common)
    plain = Episode(prompt=[USER], completion="I am fine.", **common)
    assert reward.score([begun]) == reward.score([plain])
