"""Tests of rlhf.data.conversations.bounded."""

import threading
from collections.abc import Callable

import pytest
from transformers import PreTrainedTokenizerBase

from rlhf.data.conversations.bounded import bounded
from rlhf.data.conversations.chat import Chat
from rlhf.errors import ConfigError, RlhfError

TALK = [{"role": "user", "content": "a" * 20_000}, {"role": "assistant", "content": "b"}]
LOOP = "{% for i in range(100000) %}"
ENDLESS = {
    "nested loops": LOOP + LOOP + "x{% endfor %}{% endfor %}",
    "loops that write nothing": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "loops over text": "{% for a in messages[0].content %}{% for b in messages[0].content %}x{% endfor %}{% endfor %}",
    "loops that keep few": "{% for i in range(99999) %}{% for j in range(99999) if j < 0 %}{% endfor %}{% endfor %}",
    "a recursive loop": "{% for i in range(99) recursive %}{{ loop(range(99)) if loop.depth < 9 }}{% endfor %}",
    "a macro that calls itself twice": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}"
    "{{ f(40) }}",
    "loops inside a generation tag": "{% generation %}" + LOOP + LOOP + "x{% endfor %}{% endfor %}{% endgeneration %}",
}


def refused(call: Callable[[], object]) -> str:
    """The message with which a call is refused."""
    with pytest.raises(ConfigError) as caught:
        call()
    return str(caught.value)


@pytest.fixture
def small_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds that are reached at once."""
    monkeypatch.setattr("rlhf.data.conversations.bounded.MAX_STEPS", 2000)
    monkeypatch.setattr("rlhf.data.conversations.bounded.MAX_CHARS", 1_000_000)


@pytest.mark.parametrize("kind", ENDLESS)
@pytest.mark.usefixtures("small_bounds")
def test_a_template_that_would_loop_for_hours_is_refused(tiny_tokenizer: PreTrainedTokenizerBase, kind: str) -> None:
    tiny_tokenizer.chat_template = ENDLESS[kind]
    chat = Chat(tiny_tokenizer)
    messages = [
        refused(lambda: chat.render(TALK, "f:1", add_generation_prompt=False)),
        refused(lambda: chat.before_answer(TALK[:1], "f:1")),
    ]
    if "generation" in ENDLESS[kind]:
        messages.append(refused(lambda: chat.marked(TALK, "f:1")))
    for message in messages:
        assert "chat template is broken (more than 2,000 turns of its loops for one conversation)" in message
        assert message.endswith("mend chat_template.jinja, or give another (model.chat_template)")


def test_it_is_refused_in_every_thread(tiny_tokenizer: PreTrainedTokenizerBase) -> None:
    tiny_tokenizer.chat_template = ENDLESS["loops that write nothing"]
    told = []

    def render() -> None:
        try:
            Chat(tiny_tokenizer).render(TALK, "f:1", add_generation_prompt=False)
        except RlhfError as error:
            told.append(str(error))

    threads = [threading.Thread(target=render) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(told) == 2 and "200,000 turns" in told[0]


@pytest.mark.usefixtures("small_bounds")
def test_a_template_that_writes_without_end_is_refused(tiny_tokenizer: PreTrainedTokenizerBase) -> None:
    tiny_tokenizer.chat_template = LOOP + "{{ 'x' * 10000 }}{% endfor %}"
    told = refused(lambda: Chat(tiny_tokenizer).render(TALK, "f:1", add_generation_prompt=False))
    assert "(more than 1,000,000 characters for one conversation)" in told


def test_powers_are_refused_before_they_are_computed(tiny_tokenizer: PreTrainedTokenizerBase) -> None:
    tiny_tokenizer.chat_template = "{{ 9 ** 9 ** 9 ** 9 }}"
    told = refused(lambda: Chat(tiny_tokenizer).render(TALK, "f:1", add_generation_prompt=False))
    assert "raises numbers to powers" in told


def test_each_conversation_has_the_whole_budget(tiny_tokenizer: PreTrainedTokenizerBase) -> None:
    tiny_tokenizer.chat_template = "{% for i in range(15000) %}{% endfor %}{{ messages[1].content }} ** "
    for _ in range(18):
        assert Chat(tiny_tokenizer).render(TALK, "f:1", add_generation_prompt=False) == "b ** "


def test_what_is_not_rendered_by_us_has_no_bound(
    tiny_tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_tokenizer.chat_template = "{% for i in range(5) %}x{% endfor %}"
    monkeypatch.setattr("rlhf.data.conversations.bounded.MAX_STEPS", 3)
    with pytest.raises(ConfigError, match="more than 3 turns"), bounded(tiny_tokenizer.chat_template, "mine"):
        tiny_tokenizer.apply_chat_template(TALK, tokenize=False)
    assert tiny_tokenizer.apply_chat_template(TALK, tokenize=False) == "xxxxx"
