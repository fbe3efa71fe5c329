"""Tests of rlhf.data.conversations.bounded."""

import threading
import tracemalloc
from collections.abc import Callable

import pytest
from transformers import PreTrainedTokenizerBase

from rlhf.data.conversations.bounded import bounded
from rlhf.data.conversations.budget import TooMuch, budget
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


DOUBLED = (
    "{% set ns = namespace(s='abcdefgh') %}{% for i in range(40) %}{% set ns.s = DOUBLE %}{% endfor %}{{ ns.s[0] }}"
)
LAUGHS = "{% set ns = namespace(l=['ha']) %}{% for i in range(60) %}{% set ns.l = [ns.l, ns.l] %}{% endfor %}"
WIDE = "9999999999"
GREEDY = {
    "~": DOUBLED.replace("DOUBLE", "ns.s ~ ns.s"),
    "+": DOUBLED.replace("DOUBLE", "ns.s + ns.s"),
    "*": DOUBLED.replace("DOUBLE", "ns.s * 2"),
    "%": DOUBLED.replace("DOUBLE", "'%s%s' % (ns.s, ns.s)"),
    "~ without a loop": "{% set a = messages[0].content %}" + "{% set a = a ~ a %}" * 40,
    "a block that is set": DOUBLED.replace("{% set ns.s = DOUBLE %}", "{% set ns.s %}{{ ns.s }}{{ ns.s }}{% endset %}"),
    "a macro": "{% macro f(s) %}{{ s }}{{ s }}{% endmacro %}" + DOUBLED.replace("DOUBLE", "f(ns.s)"),
    "lists": "{% set ns = namespace(l=[1]) %}{% for i in range(40) %}{% set ns.l = ns.l + ns.l %}{% endfor %}",
    "numbers": "{% set ns = namespace(n=7) %}{% for i in range(40) %}{% set ns.n = ns.n * ns.n %}{% endfor %}",
    "slices that are kept": "{% set ns = namespace(l=[], s='x' * 1000000) %}{% for i in range(9999) %}"
    "{% set ns.l = ns.l + [ns.s[1:]] %}{% endfor %}",
    "replace": DOUBLED.replace("DOUBLE", "ns.s.replace('', ns.s)"),
    "the filter replace": DOUBLED.replace("DOUBLE", "ns.s | replace('', ns.s)"),
    "join": DOUBLED.replace("DOUBLE", "ns.s.join(['a', 'b', 'c'])"),
    "the filter join": DOUBLED.replace("DOUBLE", "['a', 'b', 'c'] | join(ns.s)"),
    "format": DOUBLED.replace("DOUBLE", "'{0}{0}'.format(ns.s)"),
    "a list that is written": LAUGHS + "{{ ns.l }}",
    "a list as JSON": LAUGHS + "{{ ns.l | tojson }}",
    "a list as text": LAUGHS + "{{ ns.l | string }}",
    "a list in a pattern": LAUGHS + "{{ '%s' % (ns.l,) }}",
    "a text many times": "{{ 'x' * WIDE }}",
    "a list many times": "{% set l = [0] * WIDE %}",
    "a width in a pattern": "{{ '%WIDEd' % 1 }}",
    "a width in a filter's pattern": "{{ '%WIDEd' | format(1) }}",
    "a width beside a pattern": "{{ '%*d' % (WIDE, 1) }}",
    "a width in format": "{{ '{:WIDE}'.format(1) }}",
    "a width beside format": "{{ '{:{}}'.format(1, WIDE) }}",
    "a width that is a text": "{{ '{:{}}'.format(1, 'WIDE') }}",
    "a round number": "{{ 5 | round(-WIDE) }}",
    "an error": LAUGHS + "{{ raise_exception(ns.l) }}",
    "center": "{{ 'x'.center(WIDE) }}",
    "the filter center": "{{ 'x' | center(WIDE) }}",
    "zfill": "{{ 'x'.zfill(WIDE) }}",
    "expandtabs": "{{ '\t'.expandtabs(WIDE) }}",
    "to_bytes": "{{ (1).to_bytes(WIDE) }}",
    "indent": "{{ 'x' | indent(WIDE, true) }}",
    "an indent of JSON": "{{ [1] | tojson(indent=WIDE) }}",
    "slices": "{{ [1] | slice(WIDE) | list }}",
    "batches": "{{ [1] | batch(WIDE, 0) | list }}",
    "a filter that is mapped": "{{ range(100000) | map('center', 100000) | join }}",
    "an escape": "{% autoescape true %}" + LAUGHS + "{{ ns.l }}{% endautoescape %}",
}
"""Templates that would take gigabytes."""


def refused(call: Callable[[], object]) -> str:
    """The message with which a call is refused."""
    with pytest.raises(ConfigError) as caught:
        call()
    return str(caught.value)


@pytest.fixture
def small_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds that are reached at once."""
    monkeypatch.setattr("rlhf.data.conversations.budget.MAX_STEPS", 2000)
    monkeypatch.setattr("rlhf.data.conversations.budget.MAX_CHARS", 1_000_000)


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
    tiny_tokenizer.chat_template = LOOP + "x" * 10_000 + "{% endfor %}"
    told = refused(lambda: Chat(tiny_tokenizer).render(TALK, "f:1", add_generation_prompt=False))
    assert "(more than 1,000,000 characters for one conversation)" in told


@pytest.mark.parametrize("kind", GREEDY)
def test_a_template_that_would_take_gigabytes_is_refused_before_it_does(
    tiny_tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr("rlhf.data.conversations.budget.MAX_CHARS", 3_000_000)
    tiny_tokenizer.chat_template = GREEDY[kind].replace("WIDE", WIDE)
    tracemalloc.start()
    told = refused(lambda: Chat(tiny_tokenizer).render(TALK, "f:1", add_generation_prompt=False))
    largest = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert told.endswith(
        "its chat template is broken (more than 3,000,000 characters for one conversation) - mend "
        "chat_template.jinja, or give another (model.chat_template)"
    )
    assert largest < 50_000_000


def test_a_template_that_transformers_rendered_before_is_bounded_as_well(
    tiny_tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_tokenizer.chat_template = "{% set a = messages[0].content %}{{ ((a ~ a) * 1)[:3] }}{{ a | length }}"
    before = tiny_tokenizer.apply_chat_template(TALK, tokenize=False)
    assert before == "aaa20000"
    assert Chat(tiny_tokenizer).render(TALK, "f:1", add_generation_prompt=False) == before
    monkeypatch.setattr("rlhf.data.conversations.budget.MAX_CHARS", 70_000)
    with budget(), pytest.raises(TooMuch):
        tiny_tokenizer.apply_chat_template(TALK, tokenize=False)


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
    monkeypatch.setattr("rlhf.data.conversations.budget.MAX_STEPS", 3)
    with pytest.raises(ConfigError, match="more than 3 turns"), bounded(tiny_tokenizer.chat_template, "mine"):
        tiny_tokenizer.apply_chat_template(TALK, tokenize=False)
    assert tiny_tokenizer.apply_chat_template(TALK, tokenize=False) == "xxxxx"
