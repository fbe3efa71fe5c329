import pytest

from rlhf.data.reading.dataset_type import DatasetType
from rlhf.data.reading.typed_rows import detect_type
from rlhf.data.records import Row
from rlhf.errors import DataError


def rows(*values):
    return [Row(value, f"f.jsonl:{number}") for number, value in enumerate(values, start=1)]


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"text"}, DatasetType.TEXT),
        ({"text", "label"}, DatasetType.TEXT),
        ({"messages"}, DatasetType.MESSAGES),
        ({"prompt"}, DatasetType.PROMPT),
        ({"prompt", "human", "label"}, DatasetType.PROMPT),
        ({"prompt", "completion"}, DatasetType.PROMPT_COMPLETION),
        ({"prompt", "chosen", "rejected"}, DatasetType.PREFERENCE),
        ({"chosen", "rejected", "margin"}, DatasetType.PREFERENCE),
    ],
)
def test_the_type_is_told_by_the_columns(columns, expected):
    assert detect_type(rows(dict.fromkeys(columns, "x"))) is expected


def test_a_type_prints_as_words():
    assert f"{DatasetType.PROMPT_COMPLETION}" == "prompt and completion"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"question": "x", "answer": "y"}, r"f.jsonl:1: needed columns .* found \['answer', 'question'\]; did you mean "
         r"column_map: \{prompt: question, completion: answer\}\?"),
        ({"Prompt": "x"}, r"column_map: \{prompt: Prompt\}"),
        ({"chosen": "y", "id": "x"}, r"needed columns \{chosen, rejected\}, found \['chosen', 'id'\]"),
        ({"completion": "x", "promt": "y"}, r"needed columns \{prompt, completion\}.*\{prompt: promt\}"),
    ],
)  # fmt: skip
def test_missing_columns_are_named_with_a_near_one(values, message):
    with pytest.raises(DataError, match=message):
        detect_type(rows(values))


def test_rows_of_another_kind_are_refused_by_line():
    with pytest.raises(DataError, match=r"f.jsonl:2: needed columns \{prompt, completion\} like f.jsonl:1, found"):
        detect_type(rows({"prompt": "x", "completion": "y"}, {"prompt": "x"}))
    with pytest.raises(DataError, match=r"f.jsonl:2: holds prompt and completion, but f.jsonl:1 holds prompt;"):
        detect_type(rows({"prompt": "x"}, {"prompt": "x", "completion": "y"}))


def test_no_rows_have_no_type():
    with pytest.raises(DataError, match="0 rows"):
        detect_type([])
