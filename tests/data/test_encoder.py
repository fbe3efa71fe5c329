import pytest
from tokenizers.processors import TemplateProcessing

from rlhf.data.conversations.answers import sequences
from rlhf.data.conversations.conversation import Conversation
from rlhf.data.encoder import Encoder
from rlhf.errors import ConfigError, DataError

PAD, BOS, EOS = 0, 1, 2
CHATML = (
    "{% for message in messages %}{{ '<' + message['role'] + '>' + message['content'] + eos_token + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)
SYSTEM = {"role": "system", "content": "s"}
TALK = [
    {"role": "user", "content": "a"},
    {"role": "assistant", "content": "b"},
    {"role": "user", "content": "c"},
    {"role": "assistant", "content": "d"},
]


@pytest.fixture
def bos_tokenizer(tiny_tokenizer):
    tiny_tokenizer._tokenizer.post_processor = TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", BOS)])
    assert tiny_tokenizer("a")["input_ids"][0] == BOS
    return tiny_tokenizer


def in_one(tokenizer, talk):
    talk = Conversation(talk, "f:1")
    (found,) = sequences(talk, talk.answers(), Encoder(tokenizer, append_eos=True))
    return found.prompt_ids + found.response_ids, found.emitted


def said(tokenizer, ids, emitted):
    return tokenizer.decode([token for token, flag in zip(ids, emitted, strict=True) if flag])


def test_a_bos_is_added_once_and_only_if_the_tokenizer_adds_it_by_itself(tiny_tokenizer):
    assert BOS not in Encoder(tiny_tokenizer, append_eos=True).prompt("ab")


def test_a_bos_is_not_doubled(bos_tokenizer):
    encoder = Encoder(bos_tokenizer, append_eos=True)
    for text in ("ab", "<bos>ab"):
        ids = encoder.prompt(text)
        assert ids == [BOS, *encoder.bare("ab")]
    assert BOS not in encoder.response("ab")


def test_one_eos_ends_a_response_also_when_the_text_ends_with_it(tiny_tokenizer):
    encoder = Encoder(tiny_tokenizer, append_eos=True)
    expected = [*encoder.bare("ab"), EOS]
    assert encoder.response("ab") == expected
    assert encoder.response("ab<eos>") == expected
    assert encoder.response("ab<eos><eos>") == expected
    assert encoder.response("a<eos>b") == [*encoder.bare("a"), EOS, *encoder.bare("b"), EOS]
    assert Encoder(tiny_tokenizer, append_eos=False).response("ab") == expected[:-1]


def test_a_tokenizer_without_eos_is_refused_where_one_is_asked_for(tiny_tokenizer):
    tiny_tokenizer.eos_token = None
    with pytest.raises(ConfigError, match="the tokenizer has no EOS token"):
        Encoder(tiny_tokenizer, append_eos=True)
    Encoder(tiny_tokenizer, append_eos=False)


@pytest.mark.parametrize("has_tags", [True, False])
def test_what_the_assistant_emits_is_its_text_and_the_eos_of_each_turn(tiny_tokenizer, has_tags):
    if not has_tags:
        tiny_tokenizer.chat_template = CHATML
    ids, emitted = in_one(tiny_tokenizer, [SYSTEM, *TALK])
    assert said(tiny_tokenizer, ids, emitted) == "b<eos>d<eos>"
    assert ids[-1] == EOS


@pytest.mark.parametrize("has_tags", [True, False])
def test_a_conversation_has_the_ids_of_the_template_up_to_the_last_eos(tiny_tokenizer, has_tags):
    if not has_tags:
        tiny_tokenizer.chat_template = CHATML
    ids, _ = in_one(tiny_tokenizer, TALK)
    whole = tiny_tokenizer.apply_chat_template(TALK, tokenize=True, return_dict=True)["input_ids"]
    assert ids == whole[:-1]  # the newline after the last EOS is never sampled
    assert tiny_tokenizer.decode(whole[-1:]) == "\n"


@pytest.mark.parametrize("has_tags", [True, False])
def test_training_sees_the_prompt_ids_that_sampling_sees(tiny_tokenizer, has_tags):
    if not has_tags:
        tiny_tokenizer.chat_template = CHATML
    encoder = Encoder(tiny_tokenizer, append_eos=True)
    ids, _ = in_one(tiny_tokenizer, TALK)
    prompt = encoder.bare(encoder.render(TALK[:3], "f:1", add_generation_prompt=True))
    assert ids[: len(prompt)] == prompt


def test_a_template_that_writes_the_bos_gives_one_bos(bos_tokenizer):
    bos_tokenizer.chat_template = "{{ bos_token }}" + CHATML
    ids, _ = in_one(bos_tokenizer, TALK)
    assert ids.count(BOS) == 1


def test_a_template_without_eos_gets_one_at_the_end(tiny_tokenizer):
    tiny_tokenizer.chat_template = CHATML.replace(" + eos_token", "")
    ids, emitted = in_one(tiny_tokenizer, TALK)
    assert ids.count(EOS) == 1
    assert said(tiny_tokenizer, ids, emitted) == "b\nd\n<eos>"


def test_a_template_that_rewrites_earlier_turns_gives_one_sequence_an_answer(tiny_tokenizer):
    tiny_tokenizer.chat_template = (
        "{% for m in messages %}{% if loop.last or m['role'] != 'assistant' %}{{ m['content'] }}{% endif %}{% endfor %}"
    )
    talk = Conversation(TALK, "f:1")
    made = sequences(talk, talk.answers(), Encoder(tiny_tokenizer, append_eos=True))
    assert [tiny_tokenizer.decode(each.prompt_ids) for each in made] == ["a", "ac"]
    assert [tiny_tokenizer.decode(each.response_ids) for each in made] == ["b<eos>", "d<eos>"]


def test_an_answer_to_which_no_generation_prompt_leads_is_refused(tiny_tokenizer):
    tiny_tokenizer.chat_template = "{{ messages | length }}:{{ messages[-1]['content'] }}"
    with pytest.raises(DataError, match=r"f:1: nothing in the chat template marks what the assistant said: its"):
        in_one(tiny_tokenizer, TALK)


@pytest.mark.parametrize(
    "template",
    [
        "{% for message in messages %}{{ message['content'] }}",  # no end
        "{{ messages | nothing_of_this_name }}",
        "{% for i in range(10 ** 12) %}x{% endfor %}",
        "{{ messages.__class__.__mro__ }}{{ ''.__class__.__mro__ }}",
        "{{ 1 // 0 }}",
    ],
)
def test_a_broken_template_is_no_fault_of_the_row(tiny_tokenizer, template):
    tiny_tokenizer.chat_template = template
    with pytest.raises(ConfigError, match=r"its chat template is broken \(.+\) - mend chat_template.jinja"):
        in_one(tiny_tokenizer, TALK)


def test_a_template_that_cannot_read_a_row_refuses_that_row(tiny_tokenizer):
    tiny_tokenizer.chat_template = "{{ messages[0]['content'].nothing() }}"
    with pytest.raises(DataError, match="f:1: the chat template refuses this conversation"):
        in_one(tiny_tokenizer, TALK)


def test_a_missing_or_refusing_template_is_named(tiny_tokenizer):
    tiny_tokenizer.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(DataError, match="f:1: the chat template refuses this conversation: roles must alternate"):
        in_one(tiny_tokenizer, TALK)
    tiny_tokenizer.chat_template = None
    with pytest.raises(ConfigError, match="no chat template - add chat_template.jinja"):
        in_one(tiny_tokenizer, TALK)


def test_a_template_cannot_reach_into_python(tiny_tokenizer):
    tiny_tokenizer.chat_template = "{{ messages.__class__.__mro__[1].__subclasses__() }}"
    with pytest.raises(ConfigError, match="its chat template is broken .*unsafe"):
        Encoder(tiny_tokenizer, append_eos=True).render(TALK, "f:1", add_generation_prompt=True)
