import pytest

from rlhf.data.encoder import Encoder
from rlhf.data.records import Row
from rlhf.data.sequences import learnt_sequences, prompt_ids_of, token_sequence
from rlhf.errors import DataError

ROW = Row({}, "f.jsonl:1")
USER = {"role": "user", "content": "q"}
ANSWER = {"role": "assistant", "content": "a"}


@pytest.fixture
def encoder(tiny_tokenizer):
    return Encoder(tiny_tokenizer, append_eos=True)


def test_plain_text_is_split_where_the_fields_meet(encoder):
    sequence = token_sequence(["ab", "cd"], encoder, ROW)
    assert (sequence.prompt_ids, sequence.response_ids) == (encoder.bare("ab"), [*encoder.bare("cd"), 2])
    assert sequence.emitted == [False, False, True, True, True]


def test_a_conversation_is_split_where_the_completion_is_emitted(encoder):
    sequence = token_sequence([[USER, ANSWER, USER], [ANSWER]], encoder, ROW)
    assert sequence.response_ids == [*encoder.bare("a"), 2]
    assert sequence.prompt_ids == prompt_ids_of([USER, ANSWER, USER], encoder, ROW)[1]


def test_of_one_conversation_the_last_answer_is_the_response(encoder):
    talk = [[USER, ANSWER, USER, ANSWER]]
    (last,) = learnt_sequences(talk, encoder, ROW, every_answer=False)
    assert last.response_ids == [*encoder.bare("a"), 2]
    assert sum(last.emitted) == 2
    (both,) = learnt_sequences(talk, encoder, ROW, every_answer=True)
    assert both.prompt_ids + both.response_ids == last.prompt_ids + last.response_ids
    assert sum(both.emitted) == 4


def test_a_conversation_without_prompt_is_response_throughout(encoder):
    sequence = token_sequence([[USER, ANSWER]], encoder, ROW)
    assert sequence.prompt_ids == []


def test_text_and_messages_do_not_mix(encoder):
    with pytest.raises(DataError, match="f.jsonl:1: prompt and response must both be text or both be lists"):
        token_sequence(["ab", [ANSWER]], encoder, ROW)


def test_a_prompt_that_ends_with_the_assistant_is_left_open(encoder):
    text, ids = prompt_ids_of([USER, ANSWER], encoder, ROW)
    assert text == "U:q\nA:a"
    assert ids == encoder.bare(text)


@pytest.mark.parametrize("talk", [[USER], [ANSWER], [ANSWER, USER]])
def test_a_conversation_without_an_answer_is_refused(encoder, talk):
    with pytest.raises(DataError, match=r"f.jsonl:1: a conversation needs an answer: .*; found roles \['"):
        token_sequence([talk], encoder, ROW)


def test_a_greeting_is_read_but_not_learnt_and_a_last_question_is_left_out(encoder):
    (found,) = learnt_sequences([[ANSWER, USER, ANSWER, USER]], encoder, ROW, every_answer=True)
    assert found.prompt_ids == prompt_ids_of([ANSWER, USER], encoder, ROW)[1]
    assert found.response_ids == [*encoder.bare("a"), 2]
