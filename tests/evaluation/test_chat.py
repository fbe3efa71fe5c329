"""Tests of rlhf.evaluation.chat."""

import io
import sys

import pytest

from rlhf.config import GenerateConfig
from rlhf.errors import ConfigError
from rlhf.evaluation import chat as module
from rlhf.evaluation.chat import chat
from rlhf.evaluation.respond import Response


def config(model, **changes):
    return GenerateConfig(
        **({"model": str(model), "decoding": {"max_new_tokens": 6}, "precision": "float32"} | changes)
    )


@pytest.fixture
def asked(monkeypatch):
    """The text of each prompt that the policy was asked."""
    seen = []

    def respond(policy, prompts, decoding, numbers, answering):
        seen.append(prompts[0].text)
        return [Response(f"answer {len(seen)}", (5,), True)]

    monkeypatch.setattr(module, "respond", respond)
    return seen


def say(monkeypatch, *lines):
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))


def test_a_prompt_holds_the_conversation_so_far_and_an_empty_line_starts_anew(
    policy_directory, asked, monkeypatch, capsys
):
    say(monkeypatch, "one", "two", "", "three")
    chat(config(policy_directory(0)))
    assert capsys.readouterr().out.splitlines() == ["answer 1", "answer 2", "answer 3"]
    first, second, third = asked
    assert "one" in first and all(text in second for text in ("one", "answer 1", "two"))
    assert "three" in third and "one" not in third


def test_a_model_without_a_template_continues_each_line(policy_directory, asked, monkeypatch):
    load = module.load_policy_here

    def plain(*arguments):
        policy = load(*arguments)
        policy.tokenizer.chat_template = None
        return policy

    monkeypatch.setattr(module, "load_policy_here", plain)
    say(monkeypatch, "one", "two")
    chat(config(policy_directory(0)))
    assert asked == ["one", "two"]


def test_a_real_policy_answers_and_its_control_characters_are_shown_as_text(policy_directory, monkeypatch, capsys):
    say(monkeypatch, "The film")
    chat(config(policy_directory(0)))
    printed = capsys.readouterr()
    assert printed.out.endswith("\n") and "\x1b" not in printed.out and "Ctrl-D ends" in printed.err


def test_keys_that_would_do_nothing_are_refused():
    with pytest.raises(ConfigError, match="chat: prompts, output and samples_per_prompt have no effect"):
        chat(config("anywhere", samples_per_prompt=2))
