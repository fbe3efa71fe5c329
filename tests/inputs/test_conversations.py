"""Conversations in the chat templates of public models: what is learnt, and what sampling reads."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
from transformers import PreTrainedTokenizerBase

from rlhf.data.demonstrations import prepare_demonstrations
from rlhf.data.records import Row
from rlhf.data.tokenization import prepare_pairs
from rlhf.errors import DataError

SYSTEM = {"role": "system", "content": "Be brief."}
QUESTION = {"role": "user", "content": "How are you?"}
FIRST = {"role": "assistant", "content": "I am fine."}
AGAIN = {"role": "user", "content": "Is it sunny?"}
ANSWER = {"role": "assistant", "content": "Sure."}
OTHER = {"role": "assistant", "content": "No."}
TALK = [QUESTION, FIRST, AGAIN, ANSWER]
EVERY = {"loss_on": "assistant"}
Made = Callable[..., Any]


def row(**values: Any) -> list[Row]:
    return [Row(values, "f.jsonl:1")]


SHAPES = (
    *("llama 3", "qwen 2.5", "qwen 3", "gemma 2", "gemma 3", "mistral", "phi 3", "phi 4", "chatml", "zephyr"),
    *("deepseek v3", "glm 4"),
)


@pytest.fixture(params=["byte_level", "metaspace"])
def tokenizer_of(request: pytest.FixtureRequest, public: ModuleType) -> Callable[[str], PreTrainedTokenizerBase]:
    """A function from the name of a shape to a tokenizer with that template."""
    return lambda name: getattr(public, request.param)(public.SHAPES[name].template, public.SHAPES[name].eos)


def talk_in(public: ModuleType, name: str) -> list[dict[str, Any]]:
    return [SYSTEM, *TALK] if public.SHAPES[name].takes_system else TALK


def test_every_shape_is_tried(public: ModuleType) -> None:
    assert tuple(public.SHAPES) == SHAPES


@pytest.mark.parametrize("name", SHAPES)
def test_the_last_answer_is_learnt_after_the_ids_that_sampling_reads(
    tokenizer_of: Callable[[str], PreTrainedTokenizerBase],
    public: ModuleType,
    name: str,
    examples: Made,
    sampled: Made,
    learnt: Made,
) -> None:
    tokenizer, talk = tokenizer_of(name), talk_in(public, name)
    prompt = sampled(tokenizer, prompt=talk[:-1])
    for fields in ({"messages": talk}, {"prompt": talk[:-1], "completion": talk[-1:]}):
        (example,) = examples(tokenizer, **fields).items
        assert example.input_ids[: len(prompt)] == prompt
        assert example.loss_mask == tuple(place >= len(prompt) for place in range(len(example.input_ids)))
        assert learnt(tokenizer, example) == public.SHAPES[name].said


@pytest.mark.parametrize("name", SHAPES)
def test_every_answer_is_learnt_after_the_ids_that_sampling_reads(
    tokenizer_of: Callable[[str], PreTrainedTokenizerBase],
    public: ModuleType,
    name: str,
    examples: Made,
    sampled: Made,
    learnt: Made,
) -> None:
    tokenizer, talk = tokenizer_of(name), talk_in(public, name)
    found = examples(tokenizer, EVERY, messages=talk).items
    prompts = [sampled(tokenizer, prompt=talk[: len(talk) - left]) for left in (3, 1)]
    for place, prompt in enumerate(prompts):
        example = found[place if len(found) == 2 else 0]
        assert example.input_ids[: len(prompt)] == prompt
        assert example.loss_mask[len(prompt)]
        assert not example.loss_mask[len(prompt) - 1]
    said = "".join(learnt(tokenizer, example) for example in found)
    assert said.count("I am fine.") == said.count("Sure.") == 1
    assert "sunny" not in said and "How" not in said


@pytest.mark.parametrize("name", SHAPES)
def test_pairs_demonstrations_and_examples_have_the_same_ids(
    tokenizer_of: Callable[[str], PreTrainedTokenizerBase], public: ModuleType, name: str, examples: Made, sampled: Made
) -> None:
    tokenizer, talk = tokenizer_of(name), talk_in(public, name)
    fields = {"prompt": talk[:-1], "chosen": [ANSWER], "rejected": [OTHER]}
    (pair,) = prepare_pairs(row(**fields), tokenizer, max_length=500).items
    (demonstration,) = prepare_demonstrations(row(**fields), tokenizer, max_length=500).items
    (example,) = examples(tokenizer, prompt=talk[:-1], completion=[ANSWER]).items
    assert pair.chosen_ids == (*demonstration.prompt.ids, *demonstration.response_ids) == example.input_ids
    assert (
        demonstration.prompt.ids
        == sampled(tokenizer, prompt=talk[:-1])
        == pair.rejected_ids[: len(demonstration.prompt.ids)]
    )


def test_a_thinking_template_gives_one_example_an_answer_and_says_so(
    public: ModuleType, examples: Made, learnt: Made
) -> None:
    tokenizer = public.byte_level(public.QWEN_3, "<|im_end|>")
    found = examples(tokenizer, EVERY, messages=TALK)
    assert [learnt(tokenizer, example) for example in found.items] == [
        "<think>\n\n</think>\n\nI am fine.<|im_end|>",
        "<think>\n\n</think>\n\nSure.<|im_end|>",
    ]
    second = tokenizer.decode(found.items[1].input_ids)
    assert "<|im_start|>assistant\nI am fine.<|im_end|>" in second  # without its thought, as at sampling
    assert found.counts["read"] == found.counts["kept"] == 1
    assert found.notes == [
        "1 row became one example an answer, because the chat template rewrites earlier turns (first: f.jsonl:1)"
    ]


def test_where_no_turn_is_rewritten_all_answers_are_in_one_example(
    public: ModuleType, examples: Made, learnt: Made
) -> None:
    tokenizer = public.byte_level(public.QWEN_2_5, "<|im_end|>")
    found = examples(tokenizer, EVERY, messages=TALK)
    assert [learnt(tokenizer, example) for example in found.items] == ["I am fine.<|im_end|>Sure.<|im_end|>"]
    assert found.notes == []


def test_several_answers_of_a_completion_are_learnt_in_a_thinking_template(
    public: ModuleType, examples: Made, learnt: Made
) -> None:
    tokenizer = public.byte_level(public.QWEN_3, "<|im_end|>")
    found = examples(tokenizer, prompt=[QUESTION], completion=[FIRST, AGAIN, ANSWER]).items
    assert ["fine" in learnt(tokenizer, example) for example in found] == [True, False]
    (pair,) = prepare_pairs(
        row(prompt=[QUESTION], chosen=[FIRST, AGAIN, ANSWER], rejected=[FIRST, AGAIN, OTHER]), tokenizer, max_length=500
    ).items
    assert "I am fine.<|im_end|>" in tokenizer.decode(pair.chosen_ids)
    (everything,) = examples(tokenizer, {"loss_on": "all"}, prompt=[QUESTION], completion=[FIRST, AGAIN, ANSWER]).items
    assert everything.input_ids == pair.chosen_ids


def test_what_the_generation_prompt_supplies_is_not_learnt_though_tags_enclose_it(
    public: ModuleType, examples: Made, sampled: Made, learnt: Made
) -> None:
    tagged = public.CHATML.replace(
        "{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}",
        "{{ '<|im_start|>' + m['role'] + '\\n' }}{% if m['role'] == 'assistant' %}{% generation %}"
        "{{ '<think></think>' + m['content'] + '<|im_end|>' }}{% endgeneration %}{% else %}"
        "{{ m['content'] + '<|im_end|>' }}{% endif %}{{ '\\n' }}",
    ).replace("assistant\\n' }}{% endif %}", "assistant\\n<think></think>' }}{% endif %}")
    tokenizer = public.byte_level(tagged, "<|im_end|>")
    for loss_on, expected in (("completion", "Sure.<|im_end|>"), ("assistant", "I am fine.<|im_end|>Sure.<|im_end|>")):
        (example,) = examples(tokenizer, {"loss_on": loss_on}, messages=TALK).items
        assert learnt(tokenizer, example) == expected
        prompt = sampled(tokenizer, prompt=TALK[:-1])
        assert example.input_ids[: len(prompt)] == prompt


def test_an_answer_goes_on_where_the_generation_prompt_has_opened_a_thought(
    public: ModuleType, examples: Made, sampled: Made, learnt: Made
) -> None:
    tokenizer = public.byte_level(public.DEEPSEEK_R1, "<|end_of_sentence|>")
    thought = {"role": "assistant", "content": "<think>\nIt is.\n</think>\n\nSure."}
    (example,) = examples(tokenizer, messages=[*TALK[:3], thought]).items
    assert learnt(tokenizer, example) == "It is.\n</think>\n\nSure.<|end_of_sentence|>"
    prompt = sampled(tokenizer, prompt=TALK[:3])
    assert example.input_ids[: len(prompt)] == prompt
    assert tokenizer.decode(prompt).endswith("<|Assistant|><think>\n")


def test_an_answer_without_the_thought_that_was_opened_is_refused_and_the_hint_works(
    public: ModuleType, examples: Made, learnt: Made
) -> None:
    tokenizer = public.byte_level(public.DEEPSEEK_R1, "<|end_of_sentence|>")
    with pytest.raises(DataError, match=r"f.jsonl:1: nothing in .* ends with '<think>\\n', .* begin the answer so, or"):
        examples(tokenizer, messages=TALK)
    tokenizer.chat_template = public.DEEPSEEK_R1.replace(
        "{{ '<|Assistant|>' + m['content'].split('</think>')[-1] + eos_token }}",
        "{{ '<|Assistant|>' }}{% generation %}{{ m['content'] + eos_token }}{% endgeneration %}",
    )
    (example,) = examples(tokenizer, messages=TALK).items
    assert learnt(tokenizer, example) == "Sure.<|end_of_sentence|>"
