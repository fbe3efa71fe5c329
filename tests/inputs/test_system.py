"""System messages in front of templates that refuse them."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from rlhf.cli import main
from rlhf.data.records import Row
from rlhf.data.tokenization import prepare_pairs, prepare_prompts
from rlhf.errors import DataError

SYSTEM = {"role": "system", "content": "Be brief."}
USER = {"role": "user", "content": "q"}
ANSWER = {"role": "assistant", "content": "ab"}
Made = Callable[..., Any]


@pytest.fixture
def gemma(public: ModuleType) -> Any:
    """A tokenizer whose template refuses system messages."""
    return public.byte_level(public.GEMMA_2, "<eos>")


def test_the_refusal_says_what_the_template_said_and_what_helps(gemma: Any, examples: Made) -> None:
    with pytest.raises(DataError) as refused:
        examples(gemma, messages=[SYSTEM, USER, ANSWER])
    assert str(refused.value) == (
        "f.jsonl:1: the chat template refuses this conversation: System role not supported - set system: "
        "merge_into_user or drop"
    )


def test_the_remedy_is_not_named_where_it_does_not_help(gemma: Any, examples: Made) -> None:
    with pytest.raises(DataError, match="refuses this conversation: System role not supported$"):
        examples(gemma, messages=[SYSTEM, USER, USER, ANSWER])


@pytest.mark.parametrize(("system", "asked"), [("merge_into_user", "Be brief.\n\nq"), ("drop", "q")])
def test_the_remedy_works_for_every_kind_of_row(
    gemma: Any, examples: Made, sampled: Made, learnt: Made, system: str, asked: str
) -> None:
    options = {"system": system}
    prompt = sampled(gemma, options, prompt=[SYSTEM, USER])
    assert gemma.decode(prompt) == f"<bos><start_of_turn>user\n{asked}<end_of_turn>\n<start_of_turn>model\n"
    for fields in ({"messages": [SYSTEM, USER, ANSWER]}, {"prompt": [SYSTEM, USER], "completion": [ANSWER]}):
        (example,) = examples(gemma, options, **fields).items
        assert example.input_ids[: len(prompt)] == prompt
        assert learnt(gemma, example).startswith("ab")
    row = Row({"prompt": [SYSTEM, USER], "chosen": [ANSWER], "rejected": [{**ANSWER, "content": "c"}]}, "f.jsonl:1")
    (pair,) = prepare_pairs([row], gemma, max_length=200, system=system).items
    assert pair.chosen_ids[: len(prompt)] == prompt == pair.rejected_ids[: len(prompt)]


def test_rewards_see_the_messages_that_the_policy_reads(gemma: Any) -> None:
    row = Row({"prompt": [SYSTEM, USER]}, "f.jsonl:1")
    (prompt,) = prepare_prompts([row], gemma, max_length=200, system="merge_into_user").items
    assert prompt.raw == [{"role": "user", "content": "Be brief.\n\nq"}]


def test_each_system_message_goes_to_the_next_question(tiny_tokenizer: Any, sampled: Made) -> None:
    talk = [SYSTEM, {"role": "system", "content": "x"}, USER, ANSWER, SYSTEM, USER]
    ids = sampled(tiny_tokenizer, {"system": "merge_into_user"}, prompt=talk)
    assert tiny_tokenizer.decode(ids) == "U:Be brief.\n\nx\n\nq\nA:ab<eos>\nU:Be brief.\n\nq\nA:"


def test_a_system_message_alone_cannot_be_merged_or_dropped(tiny_tokenizer: Any, sampled: Made) -> None:
    with pytest.raises(DataError, match="f.jsonl:1: system: merge_into_user needs a user's message after the system's"):
        sampled(tiny_tokenizer, {"system": "merge_into_user"}, prompt=[SYSTEM])
    with pytest.raises(DataError, match="f.jsonl:1: prompt holds no message but the system's"):
        sampled(tiny_tokenizer, {"system": "drop"}, prompt=[SYSTEM])


def test_the_command_line_takes_the_remedy(
    in_the_repository: None, tmp_path: Path, public: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    data, template = tmp_path / "rows.jsonl", tmp_path / "gemma.jinja"
    template.write_text(public.GEMMA_2)
    data.write_text('{"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}, '
                    '{"role": "assistant", "content": "ab"}]}\n')  # fmt: skip
    small = ["steps=1", "epochs=null", "batch_size=1", "eval_data=null", f"model.chat_template={template}"]
    command = ["sft", "--config", "configs/smoke/sft.yaml", f"data.path={data}", *small]
    assert main([*command, f"output_dir={tmp_path / 'one'}"]) == 3
    assert "set system: merge_into_user or drop" in capsys.readouterr().err
    assert main([*command, f"output_dir={tmp_path / 'two'}", "data.system=merge_into_user"]) == 0
