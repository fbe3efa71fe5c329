"""Files with rows that cannot be used: one clear line, the right exit status, nothing half-written."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

DEMONSTRATION = {"prompt": "To me the cast", "completion": " was warm."}
PAIR = {"prompt": "To me", "chosen": " it was warm.", "rejected": " it was flat."}


def rows(*values: object) -> bytes:
    """Return JSONL; text stands for itself, so that a line may be broken."""
    return "".join(f"{value if isinstance(value, str) else json.dumps(value)}\n" for value in values).encode()


def without(row: dict[str, str], column: str) -> dict[str, str]:
    return {name: cell for name, cell in row.items() if name != column}


# verb, section of the data, file, overrides, status, message after the file's name
REFUSED = {
    "3 empty prompt": (
        *("sft", "data", rows(DEMONSTRATION, {**DEMONSTRATION, "prompt": ""}), (), 3),
        ":2: empty text, prompt, completion or message - fix it, or set on_empty: skip",
    ),
    "3 empty prompt of ppo": (
        *("ppo", "prompts", rows({"prompt": "a"}, {"prompt": "  "}), (), 3),
        ":2: empty text, prompt, completion or message - fix it, or set on_empty: skip",
    ),
    "4 empty completion": (
        *("sft", "data", rows({**DEMONSTRATION, "completion": ""}), (), 3),
        ":1: empty text, prompt, completion or message - fix it, or set on_empty: skip",
    ),
    "4 empty rejected": (
        *("reward-model", "data", rows(PAIR, {**PAIR, "rejected": ""}), (), 3),
        ":2: empty text, prompt, completion or message - fix it, or set on_empty: skip",
    ),
    "4 nothing but empty completions": (
        *("sft", "data", rows({**DEMONSTRATION, "completion": ""}), ("data.on_empty=skip",), 3),
        ":1 on were dropped (dropped_long 0, dropped_empty 1, dropped_equal 0) - see max_length and over_long",
    ),
    "7 missing column": (
        *("sft", "data", rows({"question": "a", "completion": "b"}), (), 3),
        ":1: needed columns {prompt, completion}, found ['completion', 'question']; did you mean column_map: "
        "{prompt: question}?",
    ),
    "7 missing column of pairs": (
        *("reward-model", "data", rows({"prompt": "a", "chosen": "b", "rejcted": "c"}), (), 3),
        ":1: needed columns {chosen, rejected}, found ['chosen', 'prompt', 'rejcted']; did you mean column_map: "
        "{rejected: rejcted}?",
    ),
    "7 missing column of ppo": (
        *("ppo", "prompts", rows({"query": "a"}), (), 3),
        ":1: needed columns {prompt",
    ),
    "8 null cell": (
        *("sft", "data", rows(DEMONSTRATION, {**DEMONSTRATION, "completion": None}), (), 3),
        ":2: completion must be text or a list of messages, found null",
    ),
    "8 number for text": (
        *("sft", "data", rows(DEMONSTRATION, {**DEMONSTRATION, "prompt": 3}), (), 3),
        ":2: prompt must be text or a list of messages, found int '3'",
    ),
    "8 mixed rows": (
        *("sft", "data", rows(DEMONSTRATION, without(DEMONSTRATION, "completion")), (), 3),
        ":2: needed columns {prompt, completion} like ",
    ),
    "9 malformed JSON": (
        *("sft", "data", rows(DEMONSTRATION, '{"prompt": "a", '), (), 3),
        ":2: malformed JSON at column ",
    ),
    "9 no object": (*("sft", "data", rows("[1, 2]"), (), 3), ":1: expected a JSON object, found list"),
    "9 empty file": (*("sft", "data", b"", (), 3), ": 0 rows"),
    "9 blank file": (*("ppo", "prompts", b"\n\n", (), 3), ": 0 rows"),
    "10 not UTF-8": (
        *("sft", "data", rows(DEMONSTRATION) + b'{"prompt": "caf\xe9"}\n', (), 3),
        f":2: byte {len(rows(DEMONSTRATION)) + 15} (0xe9) is not UTF-8 - convert the file",
    ),
    "11 huge line": (
        *("sft", "data", rows({**DEMONSTRATION, "completion": "a" * 10_000_001}), (), 3),
        ":1: line of more than 10000000 bytes",
    ),
    "13 no pair that differs": (
        *("reward-model", "data", rows({**PAIR, "rejected": PAIR["chosen"]}), (), 3),
        ":1 on were dropped (dropped_long 0, dropped_empty 0, dropped_equal 1)",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_bad_file_is_refused_with_file_and_line(case: str, refused: Callable[..., str], tmp_path: Path) -> None:
    verb, section, content, overrides, status, message = REFUSED[case]
    path = tmp_path / "bad.jsonl"
    path.write_bytes(content)
    line = refused(verb, [f"{section}.path={path}", *overrides], status)
    assert f"{path}{message}" in line


def test_9_an_empty_directory_and_a_missing_file_are_named(refused: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert f"{tmp_path / 'empty'}: 0 rows: " in refused("sft", [f"data.path={tmp_path / 'empty'}"], 3)
    assert refused("sft", [f"data.path={tmp_path / 'none.jsonl'}"], 3).endswith("none.jsonl: no such file")


# verb, section of the data, file, overrides, what is printed about the rows
ACCEPTED = {
    "1 one of two is too long": (
        *("sft", "data", rows(DEMONSTRATION, {"prompt": "the music " * 40, "completion": " was"}), ()),
        "read 2, kept 1, dropped_long 1",
    ),
    "1 a prompt is cut at the left": (
        *("ppo", "prompts", rows({"prompt": "the music " * 40}), ("prompts.over_long=cut_left",)),
        "read 1, kept 1, cut 1",
    ),
    "3 an empty prompt is skipped": (
        *("sft", "data", rows(DEMONSTRATION, {**DEMONSTRATION, "prompt": ""}), ("data.on_empty=skip",)),
        "read 2, kept 1, dropped_empty 1",
    ),
    "4 an empty completion is skipped": (
        *("sft", "data", rows({**DEMONSTRATION, "completion": ""}, DEMONSTRATION), ("data.on_empty=skip",)),
        "read 2, kept 1, dropped_empty 1",
    ),
    "10 a byte order mark": (*("sft", "data", b"\xef\xbb\xbf" + rows(DEMONSTRATION), ()), "read 1, kept 1"),
    "13 an equal pair": (
        *("reward-model", "data", rows(PAIR, {**PAIR, "rejected": PAIR["chosen"]}), ()),
        "read 2, kept 1, dropped_equal 1",
    ),
    "30 fewer prompts than a batch": (*("ppo", "prompts", rows({"prompt": "To me"}), ()), "read 1, kept 1"),
    "30 more rows asked for than there are": (
        *("sft", "data", rows(DEMONSTRATION), ("data.limit=1000", "eval_data.limit=1000")),
        "read 1, kept 1",
    ),
}


@pytest.mark.parametrize("case", ACCEPTED)
def test_what_is_left_out_is_counted_and_the_rest_is_used(case: str, run: Callable, tmp_path: Path) -> None:
    verb, section, content, overrides, counted = ACCEPTED[case]
    path = tmp_path / "data.jsonl"
    path.write_bytes(content)
    outcome = run(verb, [f"{section}.path={path}", *overrides])
    assert (outcome.status, outcome.errors) == (0, [])
    assert f"{counted}\n" in outcome.out
    assert "complete.json" in outcome.written()
    assert all(math.isfinite(number) for number in outcome.metrics.values())
