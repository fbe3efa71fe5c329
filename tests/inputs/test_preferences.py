"""Preferences as public sets write them: four ways of writing a pair become the same pair."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlhf.api.reward_model import RewardTrainer
from rlhf.config import RewardSettings, SFTSettings
from rlhf.errors import ConfigError, DataError


def said(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


ASKED, GOOD, BAD = said("user", "Sky?"), said("assistant", "Blue"), said("assistant", "Red")
PAIR = {"prompt": [ASKED], "chosen": [GOOD], "rejected": [BAD]}
WAYS = {
    "UltraFeedback: a prompt of text, and whole conversations that begin with it": {
        "prompt": "Sky?",
        "prompt_id": "a1",
        "chosen": [ASKED, GOOD],
        "rejected": [ASKED, BAD],
        "messages": [ASKED, GOOD],
        "score_chosen": 8.0,
        "score_rejected": 5.5,
    },
    "implicit prompt": {"chosen": [ASKED, GOOD], "rejected": [ASKED, BAD]},
    "a prompt of messages that both repeat": {"prompt": [ASKED], "chosen": [ASKED, GOOD], "rejected": [ASKED, BAD]},
    "a prompt of text, answers as messages": {"prompt": "Sky?", "chosen": [GOOD], "rejected": [BAD]},
    "answers as single messages": {"prompt": [ASKED], "chosen": GOOD, "rejected": BAD},
    "ShareGPT": {
        "conversations": [{"from": "human", "value": "Sky?"}],
        "chosen": {"from": "gpt", "value": "Blue"},
        "rejected": {"from": "gpt", "value": "Red"},
    },
    "ShareGPT, whole conversations": {
        "chosen": [{"from": "human", "value": "Sky?"}, {"from": "gpt", "value": "Blue"}],
        "rejected": [{"from": "human", "value": "Sky?"}, {"from": "gpt", "value": "Red"}],
    },
    "Alpaca with a system column": {"instruction": "Sky?", "system": "", "chosen": "Blue", "rejected": "Red"},
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_of_writing_a_pair_gives_the_same_pair(way: str, taken: Callable) -> None:
    assert taken("reward-model", WAYS[way]).items == taken("reward-model", PAIR).items


def test_alpaca_preferences_keep_their_question(taken: Callable) -> None:
    row = {"instruction": "Name it", "input": "Sky", "chosen": "Blue", "rejected": "Red"}
    plain = {"prompt": "Name it\n\nSky", "chosen": "Blue", "rejected": "Red"}
    assert taken("reward-model", row).items == taken("reward-model", plain).items


def test_an_implicit_prompt_ends_where_the_conversations_part(taken: Callable, read: Callable) -> None:
    earlier = [said("system", "S"), said("user", "a"), said("assistant", "b")]
    row = {"chosen": [*earlier, said("user", "c"), GOOD], "rejected": [*earlier, said("user", "d"), BAD]}
    pair = taken("reward-model", row).items[0]
    assert read(pair.chosen_ids) == "S:S\nU:a\nA:b<eos>\nU:c\nA:Blue<eos>"
    assert read(pair.rejected_ids) == "S:S\nU:a\nA:b<eos>\nU:d\nA:Red<eos>"
    assert taken("resets", row).items[0].prompt.raw == earlier[:2]


def test_an_implicit_prompt_may_be_cut(taken: Callable, read: Callable) -> None:
    row = {"chosen": [said("user", "x" * 50), GOOD], "rejected": [said("user", "x" * 50), BAD]}
    pair = taken("reward-model", row, max_length=20, over_long="cut_left").items[0]
    assert len(pair.chosen_ids) == 20 and read(pair.chosen_ids).endswith("xx\nA:Blue<eos>")


def test_a_prompt_that_the_conversations_do_not_hold_is_refused(taken: Callable) -> None:
    row = {"prompt": "Sea?", "chosen": [ASKED, GOOD], "rejected": [ASKED, BAD]}
    with pytest.raises(DataError, match=r"f.jsonl:1: chosen and rejected are .* found prompt 'Sea\?', and \['Sky\?'\]"):
        taken("reward-model", row)
    advised = {"unread": "prompt"}
    assert taken("reward-model", row, column_map=advised).items == taken("reward-model", PAIR).items


def test_equal_conversations_are_dropped_and_empty_prompts_counted(taken: Callable) -> None:
    equal = {"prompt": "Sky?", "chosen": [ASKED, GOOD], "rejected": [ASKED, GOOD]}
    empty = {"prompt": "", "chosen": [GOOD], "rejected": [BAD]}
    counts = taken("reward-model", equal, PAIR, empty, on_empty="skip").counts
    assert (counts["kept"], counts["dropped_equal"], counts["dropped_empty"]) == (1, 1, 1)


def test_scores_become_margins_when_asked(taken: Callable) -> None:
    row = WAYS["UltraFeedback: a prompt of text, and whole conversations that begin with it"]
    assert taken("reward-model", row).items[0].margin == 0.0
    assert taken("reward-model", row, margins=("score_chosen", "score_rejected")).items[0].margin == 2.5
    mapped = {**PAIR, "s": "8", "t": "9.5"}
    assert taken("reward-model", mapped, margins=("s", "t")).items[0].margin == -1.5


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({**PAIR, "s": None, "t": 1}, r"f.jsonl:1: s must be a finite number, found null"),
        ({**PAIR, "s": 1}, r"f.jsonl:1: margin_from names 't', found columns \['chosen', 'prompt', 'rejected', 's'\]"),
    ],
)
def test_a_score_that_is_none_is_refused(row: dict[str, Any], message: str, taken: Callable) -> None:
    with pytest.raises(DataError, match=message):
        taken("reward-model", row, margins=("s", "t"))


def test_margin_from_is_a_key_of_pairs_alone(workshop: Path) -> None:
    data = {"margin_from": ("s", "t"), "column_map": {"prompt": "question"}}
    settings = RewardSettings(steps=1, batch_size=2, data=data)
    trainer = RewardTrainer(str(workshop / "policy"), config=settings)
    row = {"question": "Sky?", "chosen": "Blue", "rejected": "Red", "s": 2, "t": 1}
    assert len(trainer.train([row] * 2, demonstrations=[{"prompt": "Sky?", "completion": "Blue"}])) == 1
    with pytest.raises(ConfigError, match="margin_from: unknown key"):
        SFTSettings(steps=1, data=data)


def test_a_question_that_is_not_read_is_named(taken: Callable) -> None:
    row = {"question": "Sky?", "chosen": "Blue", "rejected": "Red"}
    said_so = taken("reward-model", row).description
    assert said_so.endswith("no prompt: question is not read, column_map: {prompt: question} would make it the prompt")
    followed = taken("reward-model", row, column_map={"prompt": "question"})
    assert followed.items == taken("reward-model", {"prompt": "Sky?", "chosen": "Blue", "rejected": "Red"}).items
