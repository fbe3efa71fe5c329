import pytest
from tokenizers.processors import TemplateProcessing

from rlhf.data.records import Row
from rlhf.data.tokenization import prepare_examples, prepare_pairs, prepare_prompts
from rlhf.errors import ConfigError, DataError

EOS = 2
USER = {"role": "user", "content": "q"}
ANSWER = {"role": "assistant", "content": "ab"}
OTHER = {"role": "assistant", "content": "c"}


def rows(*values):
    return [Row(value, f"f.jsonl:{number}") for number, value in enumerate(values, start=1)]


def learnt(tokenizer, example):
    return tokenizer.decode([i for i, flag in zip(example.input_ids, example.loss_mask, strict=True) if flag])


def examples(tokenizer, *values, **options):
    return prepare_examples(rows(*values), tokenizer, **{"max_length": 50, **options})


@pytest.mark.parametrize(
    ("row", "loss_on", "expected"),
    [
        ({"prompt": "xy", "completion": "ab"}, "completion", "ab<eos>"),
        ({"prompt": "xy", "completion": "ab"}, "all", "yab<eos>"),
        ({"text": "xyz"}, "completion", "yz<eos>"),
        ({"text": "xyz"}, "all", "yz<eos>"),
        ({"messages": [USER, OTHER, USER, ANSWER]}, "completion", "ab<eos>"),
        ({"messages": [USER, OTHER, USER, ANSWER]}, "assistant", "c<eos>ab<eos>"),
        ({"messages": [USER, ANSWER]}, "all", ":q\nA:ab<eos>"),
        ({"prompt": [USER], "completion": [ANSWER]}, "completion", "ab<eos>"),
        ({"prompt": [USER, OTHER, USER], "completion": [ANSWER]}, "completion", "ab<eos>"),
        ({"prompt": [USER, OTHER, USER], "completion": [ANSWER]}, "assistant", "c<eos>ab<eos>"),
        ({"prompt": [USER], "completion": [OTHER, USER, ANSWER]}, "completion", "c<eos>ab<eos>"),
    ],
)
def test_the_loss_is_on_what_the_config_names_and_never_on_the_first_token(tiny_tokenizer, row, loss_on, expected):
    example = examples(tiny_tokenizer, row, loss_on=loss_on).items[0]
    assert learnt(tiny_tokenizer, example) == expected
    assert not example.loss_mask[0]


def test_the_ids_of_a_prompt_are_those_of_its_example(tiny_tokenizer):
    for prompt, completion in (("xy", "ab"), ([USER], [ANSWER])):
        example = examples(tiny_tokenizer, {"prompt": prompt, "completion": completion}).items[0]
        ids = prepare_prompts(rows({"prompt": prompt}), tiny_tokenizer, max_length=50).items[0].ids
        assert example.input_ids[: len(ids)] == ids


def test_text_that_spells_its_bos_has_one(tiny_tokenizer):
    tiny_tokenizer._tokenizer.post_processor = TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 1)])
    first, second = examples(tiny_tokenizer, {"text": "xy"}, {"text": "<bos>xy"}).items
    assert first == second
    assert first.input_ids.count(1) == 1
    assert learnt(tiny_tokenizer, first) == "xy<eos>"


def test_over_long_prompts_are_dropped_or_cut_and_counted_and_completions_stay_whole(tiny_tokenizer):
    values = [{"prompt": "uvwxyz", "completion": "ab"}, {"prompt": "x", "completion": "abcdef"}]
    values.append({"prompt": "x", "completion": "a"})
    dropped = examples(tiny_tokenizer, *values, max_length=6, over_long="drop")
    assert dropped.counts["dropped_long"] == 2
    assert dropped.counts["kept"] == 1
    cut = examples(tiny_tokenizer, *values, max_length=6, over_long="cut_left")
    assert cut.counts == {"read": 3, "kept": 2, "cut": 1, "dropped_long": 1, "dropped_empty": 0, "dropped_equal": 0}
    assert tiny_tokenizer.decode(cut.items[0].input_ids) == "xyzab<eos>"
    assert learnt(tiny_tokenizer, cut.items[0]) == "ab<eos>"
    with pytest.raises(DataError, match=r"f.jsonl:1: 9 tokens \(6 prompt \+ 3 response\), at most 6"):
        examples(tiny_tokenizer, *values, max_length=6, over_long="error")


def test_no_answer_that_is_learnt_is_cut(tiny_tokenizer):
    row = {"messages": [USER, OTHER, USER, ANSWER]}  # U:q\n A:c<eos>\n U:q\n A:ab<eos> has 4 + 5 + 4 + 5 tokens
    assert len(examples(tiny_tokenizer, row, loss_on="assistant").items[0].input_ids) == 18
    cut = examples(tiny_tokenizer, row, loss_on="assistant", over_long="cut_left", max_length=14).items[0]
    assert learnt(tiny_tokenizer, cut) == "c<eos>ab<eos>"
    with pytest.raises(DataError, match="0 rows left"):
        examples(tiny_tokenizer, row, loss_on="assistant", over_long="cut_left", max_length=10)
    cut = examples(tiny_tokenizer, row, loss_on="completion", over_long="cut_left", max_length=10).items[0]
    assert learnt(tiny_tokenizer, cut) == "ab<eos>"


def test_assistant_loss_needs_messages(tiny_tokenizer):
    with pytest.raises(ConfigError, match="f.jsonl:1: loss_on: assistant needs messages, found text"):
        examples(tiny_tokenizer, {"prompt": "x", "completion": "y"}, loss_on="assistant")


def test_examples_are_not_made_of_preferences_or_prompts(tiny_tokenizer):
    for row in ({"chosen": "a", "rejected": "b"}, {"prompt": "a"}):
        with pytest.raises(DataError, match=r"f.jsonl:1: needed columns \{prompt, completion\} \(or \{messages\}"):
            examples(tiny_tokenizer, row)


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "", "completion": "a"},
        {"prompt": "a", "completion": " "},
        {"prompt": [USER], "completion": [{"role": "assistant", "content": ""}]},
    ],
)
def test_empty_prompts_and_completions_are_an_error_or_skipped(tiny_tokenizer, row):
    full = {"prompt": "x", "completion": "y"}
    if isinstance(row["prompt"], list):
        full = {"prompt": [USER], "completion": [ANSWER]}
    with pytest.raises(DataError, match="f.jsonl:2: empty"):
        examples(tiny_tokenizer, full, row)
    assert examples(tiny_tokenizer, full, row, on_empty="skip").counts["dropped_empty"] == 1


@pytest.mark.parametrize(("cell", "found"), [(None, "null"), (7, "int '7'")])
def test_null_and_numbers_are_never_text(tiny_tokenizer, cell, found):
    with pytest.raises(DataError, match=f"f.jsonl:1: completion must be text or a list of messages, found {found}"):
        examples(tiny_tokenizer, {"prompt": "x", "completion": cell})
    with pytest.raises(DataError, match=f"f.jsonl:1: rejected must be text or a list of messages, found {found}"):
        prepare_pairs(rows({"chosen": "x", "rejected": cell}), tiny_tokenizer, max_length=50)
    with pytest.raises(DataError, match=f"f.jsonl:1: prompt must be text or a list of messages, found {found}"):
        prepare_prompts(rows({"prompt": cell}), tiny_tokenizer, max_length=50)


def test_a_pair_shares_its_prompt_and_has_its_margin(tiny_tokenizer):
    values = {"prompt": "xy", "chosen": "ab", "rejected": "c", "margin": 0.5}
    pair = prepare_pairs(rows(values), tiny_tokenizer, max_length=50).items[0]
    assert tiny_tokenizer.decode(pair.chosen_ids) == "xyab<eos>"
    assert tiny_tokenizer.decode(pair.rejected_ids) == "xyc<eos>"
    assert pair.margin == 0.5


def test_pairs_may_have_no_prompt_of_their_own(tiny_tokenizer):
    talks = {"chosen": [USER, ANSWER], "rejected": [USER, OTHER]}
    for values, expected in (({"chosen": "ab", "rejected": "c"}, "ab<eos>"), (talks, "U:q\nA:ab<eos>")):
        pair = prepare_pairs(rows(values), tiny_tokenizer, max_length=50).items[0]
        assert tiny_tokenizer.decode(pair.chosen_ids) == expected
        assert pair.margin == 0.0


def test_conversational_pairs_with_and_without_prompt_agree(tiny_tokenizer):
    explicit = rows({"prompt": [USER], "chosen": [ANSWER], "rejected": [OTHER]})
    implicit = rows({"chosen": [USER, ANSWER], "rejected": [USER, OTHER]})
    first, second = (prepare_pairs(each, tiny_tokenizer, max_length=50).items for each in (explicit, implicit))
    assert first == second


def test_equal_pairs_are_dropped_and_counted(tiny_tokenizer):
    values = [{"prompt": "x", "chosen": "a", "rejected": other} for other in ("a", "a<eos>", "b")]
    assert prepare_pairs(rows(*values), tiny_tokenizer, max_length=50).counts["dropped_equal"] == 2


def test_both_sides_of_a_pair_keep_the_same_prompt_when_it_is_cut(tiny_tokenizer):
    values = rows({"prompt": "vwxyz", "chosen": "a", "rejected": "bcd"})
    result = prepare_pairs(values, tiny_tokenizer, max_length=6, over_long="cut_left")
    assert tiny_tokenizer.decode(result.items[0].chosen_ids) == "yza<eos>"
    assert tiny_tokenizer.decode(result.items[0].rejected_ids) == "yzbcd<eos>"
    assert result.counts["cut"] == 1


def test_a_prompt_keeps_its_other_columns_and_its_raw_form(tiny_tokenizer):
    prompt = prepare_prompts(rows({"prompt": [USER], "label": 1}), tiny_tokenizer, max_length=50).items[0]
    assert prompt.text == "U:q\nA:"
    assert tiny_tokenizer.decode(prompt.ids) == prompt.text
    assert prompt.raw == [USER]
    assert prompt.columns == {"label": 1}


def test_prompts_need_no_eos_and_get_none(tiny_tokenizer):
    tiny_tokenizer.eos_token = None
    prompt = prepare_prompts(rows({"prompt": "xy"}), tiny_tokenizer, max_length=50).items[0]
    assert EOS not in prompt.ids


def test_over_long_prompts_are_dropped_or_cut(tiny_tokenizer):
    values = rows({"prompt": "abcdef"}, {"prompt": "a"})
    assert prepare_prompts(values, tiny_tokenizer, max_length=3).counts["dropped_long"] == 1
    cut = prepare_prompts(values, tiny_tokenizer, max_length=3, over_long="cut_left")
    assert tiny_tokenizer.decode(cut.items[0].ids) == "def"
    with pytest.raises(DataError, match="0 rows left: all 1 rows from f.jsonl:1 on were dropped"):
        prepare_prompts(values[:1], tiny_tokenizer, max_length=3)


def test_prompts_need_a_prompt(tiny_tokenizer):
    with pytest.raises(DataError, match=r"needed columns \{prompt\}, found \['question'\]; did you mean"):
        prepare_prompts(rows({"question": "x"}), tiny_tokenizer, max_length=3)
