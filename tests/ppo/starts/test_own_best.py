"""Tests of rlhf.ppo.starts.own_best."""

import json

import pytest

from rlhf.data.records import Prompt
from rlhf.ppo.starts.own_best import OwnBest
from rlhf.training.processes import Processes

PROMPTS = [Prompt("same", (5,), "same", {"row": row}) for row in range(4)]


def remembered(best: OwnBest, *seen: tuple[int, tuple[int, ...], float]) -> list[tuple[int, tuple[int, ...]]]:
    best.remember([PROMPTS[row] for row, _, _ in seen], [ids for _, ids, _ in seen], [s for *_, s in seen], Processes())
    return [(int(str(each.prompt.columns["row"])), each.response_ids) for each in best.demonstrations]


def test_the_best_response_to_each_prompt_stays() -> None:
    best = OwnBest(PROMPTS, 9)
    assert remembered(best, (0, (1,), 1.0), (1, (2,), 3.0), (0, (3,), 2.0)) == [(1, (2,)), (0, (3,))]
    assert remembered(best, (1, (4,), 3.0), (0, (5,), 1.5)) == [(1, (2,)), (0, (3,))], "an equal one changes nothing"
    assert remembered(best, (1, (6,), 3.5)) == [(1, (6,)), (0, (3,))]


def test_prompts_with_low_scores_leave_when_there_are_too_many() -> None:
    best = OwnBest(PROMPTS, 2)
    assert remembered(best, (0, (1,), 1.0), (1, (2,), 3.0), (2, (3,), 2.0)) == [(1, (2,)), (2, (3,))]
    assert remembered(best, (3, (4,), 2.5)) == [(1, (2,)), (3, (4,))]


def test_a_response_that_ended_at_once_is_passed_over() -> None:
    assert remembered(OwnBest(PROMPTS, 2), (0, (), 9.0), (1, (2,), 3.0)) == [(1, (2,))]


def test_the_state_goes_through_json_and_back() -> None:
    best, again = OwnBest(PROMPTS, 3), OwnBest(PROMPTS, 3)
    remembered(best, (0, (1, 7), 0.1), (1, (2,), 3.0), (2, (3,), 2.0))
    again.load(json.loads(json.dumps(best.state())))
    assert again.demonstrations == best.demonstrations
    more = ((3, (9,), 1.0), (0, (8,), 0.2))
    assert remembered(again, *more) == remembered(best, *more) == [(1, (2,)), (2, (3,)), (3, (9,))]


def test_a_prompt_of_another_list_is_refused() -> None:
    with pytest.raises(KeyError):
        OwnBest(PROMPTS, 3).remember([Prompt("same", (5,), "same", {})], [(1,)], [1.0], Processes())
