"""Tests of rlhf.evaluation.human."""

import pytest
import torch

from rlhf.data.records import Prompt, Row
from rlhf.data.tokenization import prepare_prompts
from rlhf.evaluation.human import human_texts
from rlhf.evaluation.respond import load_policy

OTHERS = [
    "At heart the villain was warm .",
    "To me",
    "The music of the film was flat .",
    "It",
    "In the end it was bold .",
]


@pytest.fixture(scope="module")
def policy(policy_directory):
    return load_policy(str(policy_directory(0)), torch.float32, torch.device("cpu"))


def prepared(policy, *rows):
    return prepare_prompts([Row(row, "x") for row in rows], policy.tokenizer, max_length=32).items


def test_the_human_text_of_a_row_follows_its_prompt_and_is_cut_as_responses_are(policy):
    prompts = prepared(
        policy,
        {"prompt": "To me", "human": "To me the music was warm and rich ."},
        {"prompt": "At heart", "human": " it was flat"},  # without the prompt
    )
    found = human_texts(prompts, "human", [], policy, max_new_tokens=6, seed=0)
    assert found.same_prompts and found.prompts == prompts
    long, short = found.responses
    assert " the music was warm and rich .".startswith(long.text) and not long.ended and len(long.ids) == 6
    assert (short.text, short.ended) == (" it was flat", True)
    assert short.ids[-1] in policy.eos_ids and len(short.ids) <= 6
    assert policy.tokenizer.decode(short.ids, skip_special_tokens=True) == " it was flat"


def test_another_column_can_hold_it(policy):
    prompts = prepared(policy, {"prompt": "To me", "mine": "To me it was flat"})
    assert human_texts(prompts, "mine", [], policy, max_new_tokens=9, seed=0).responses[0].text == " it was flat"
    assert human_texts(prompts, "human", [], policy, max_new_tokens=9, seed=0) is None


def test_without_such_a_column_others_are_split_where_a_prompt_would_end(policy):
    prompts = prepared(policy, {"prompt": "At last the"}, {"prompt": "To me", "human": "To me it was"}, {"prompt": "A"})
    found = human_texts(prompts, "human", OTHERS, policy, max_new_tokens=30, seed=0)
    assert not found.same_prompts
    assert [len(prompt.raw.split()) for prompt in found.prompts] == [3, 2, 1]
    whole = [prompt.raw + response.text for prompt, response in zip(found.prompts, found.responses, strict=True)]
    assert set(whole) <= set(OTHERS) and len(set(whole)) == 3
    assert human_texts(prompts, "human", OTHERS, policy, max_new_tokens=30, seed=0) == found
    draws = {human_texts(prompts, "human", OTHERS, policy, max_new_tokens=30, seed=n).prompts[0].raw for n in range(9)}
    assert len(draws) > 1


def test_fewer_others_than_prompts_give_as_many_as_there_are_and_none_give_nothing(policy):
    prompts = prepared(policy, *[{"prompt": "At last"}] * 5)
    assert len(human_texts(prompts, "human", OTHERS, policy, max_new_tokens=30, seed=0).responses) == 3
    assert human_texts(prompts, "human", ["It", "To me"], policy, max_new_tokens=30, seed=0) is None


def test_others_do_not_answer_conversations_but_a_human_answer_does(policy):
    said = [{"role": "user", "content": "hi"}]
    chat = [Prompt(text="U: hi A:", ids=(5,), raw=said, columns={})]
    assert human_texts(chat, "human", OTHERS, policy, max_new_tokens=30, seed=0) is None
    answered = [Prompt(text="U: hi A:", ids=(5,), raw=said, columns={"human": "it was flat"})]
    found = human_texts(answered, "human", OTHERS, policy, max_new_tokens=30, seed=0)
    assert found.responses[0].text == "it was flat"
