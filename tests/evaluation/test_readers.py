"""Tests of rlhf.evaluation.readers."""

import math

import numpy as np
import pytest
import torch

from rlhf.data.records import Prompt, Row
from rlhf.data.tokenization import prepare_prompts
from rlhf.errors import ConfigError
from rlhf.evaluation.readers import Readers, response_perplexity
from rlhf.evaluation.respond import Response, load_policy

TEXTS = [" was warm and rich .", "", " was flat"]


@pytest.fixture(scope="module")
def judge(policy_directory):
    return load_policy(str(policy_directory(1)), torch.float32, torch.device("cpu"))


@pytest.fixture(scope="module")
def prompts(judge):
    rows = [Row({"prompt": text}, "x") for text in ("To me the music", "At heart it", "In the end the villain")]
    return prepare_prompts(rows, judge.tokenizer, max_length=32).items


def by_hand(judge, prompt, text):
    asked, said = (judge.tokenizer(part, add_special_tokens=False)["input_ids"] for part in (prompt.raw, text))
    with torch.no_grad():
        logprobs = judge.model(input_ids=torch.tensor([asked + said])).logits[0].log_softmax(-1)
    return math.exp(-sum(float(logprobs[len(asked) - 1 + n, token]) for n, token in enumerate(said)) / len(said))


def test_perplexity_is_that_of_the_response_given_its_prompt(judge, prompts):
    found = response_perplexity(judge, prompts, TEXTS, 256)
    assert found[0] == pytest.approx(by_hand(judge, prompts[0], TEXTS[0]), rel=1e-5)
    assert found[2] == pytest.approx(by_hand(judge, prompts[2], TEXTS[2]), rel=1e-5)
    assert np.isnan(found[1])  # an empty response predicts nothing


def test_responses_that_are_all_empty_have_no_perplexity(judge, prompts):
    assert np.isnan(response_perplexity(judge, prompts, ["", "", ""], 256)).all()


def test_a_fluency_model_with_too_few_positions_is_refused(judge, prompts):
    with pytest.raises(ConfigError, match=r"longest response \(.* exceed the 128 positions .* name a fluency_model"):
        response_perplexity(judge, prompts, [" was warm" * 200, "", ""], 256)


def test_fluency_is_read_without_an_unfinished_last_word(judge, prompts):
    readers = Readers(gold=None, embeddings=None, fluency=judge, max_tokens=256)
    responses = [Response(" was warm and ri", (5, 6), False)] * 3
    found = readers.read(prompts, responses, None, {})
    np.testing.assert_array_equal(found.fluency, response_perplexity(judge, prompts, [" was warm and"] * 3, 256))
    assert found.texts[0] == "To me the music was warm and" and found.gold is None and found.scores == {}


def test_a_conversation_is_read_with_the_template_of_the_fluency_model(judge):
    chat = [Prompt(text="<other template>", ids=(5,), raw=[{"role": "user", "content": "To me"}], columns={})]
    (asked,) = prepare_prompts([Row({"prompt": chat[0].raw}, "x")], judge.tokenizer, max_length=99).items
    plain = [Prompt(text=asked.text, ids=asked.ids, raw=asked.text, columns={})]
    assert response_perplexity(judge, chat, ["it"], 256) == pytest.approx(
        response_perplexity(judge, plain, ["it"], 256)
    )
