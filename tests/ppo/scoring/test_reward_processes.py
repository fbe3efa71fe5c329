"""Two processes and a reward that fails on the second of them only: both do the same, and nobody waits for ever."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPT = Path(__file__).with_name("two_processes.py")
Seen = list[dict[str, dict[str, Any]]]


@pytest.fixture(scope="module")
def seen(
    workshop: Path, module: Callable[[Path], ModuleType], in_two_processes: Callable[[list[str]], list[str]]
) -> Seen:
    """What each process saw, by case and policy."""
    (workshop / "two.py").write_text(module(SCRIPT).REWARDS)
    in_two_processes([sys.executable, str(SCRIPT), str(workshop)])
    return [json.loads((workshop / f"rewards-{rank}.json").read_text()) for rank in range(2)]


MESSAGES = {
    "one_nan": "score 3 is nan for the prompt ",
    "all_nan": "score 0 is nan for the prompt ",
    "short": "expected 4 floats, got list of 1",
    "nothing": "expected 4 floats, got None",
    "raises": "raised IndexError: list index out of range (prompt 0, ",
    "hangs": "no answer within 2 s",
    "everywhere_nan": "score 0 is nan for the prompt ",
}
"""What the second process has to say; every case but the last fails there only."""
WHOLE = [case for case in MESSAGES if case not in ("one_nan", "everywhere_nan")]


@pytest.mark.parametrize("case", MESSAGES)
def test_by_default_both_processes_stop_with_the_same_error(seen: Seen, case: str) -> None:
    first, second = (process[f"{case}/stop"] for process in seen)
    assert first == second or case == "everywhere_nan", "each of them has an error of its own then"
    for process in (first, second):
        assert process["error"].startswith("RewardError: ") and MESSAGES[case] in process["error"]


@pytest.mark.parametrize("policy", ["drop_episode", "neutral"])
@pytest.mark.parametrize("case", [*WHOLE, "one_nan", "absent"])
def test_with_another_policy_both_go_on_alike(seen: Seen, case: str, policy: str) -> None:
    first, second = (process[f"{case}/{policy}"] for process in seen)
    for name in ("metrics", "num_updates", "weights", "scale"):
        assert first[name] == second[name], f"the processes stay in step: {name}"
    assert first["kept"] == [True] * 4 and first["num_updates"] == 2


@pytest.mark.parametrize("case", WHOLE)
def test_a_share_that_failed_is_dropped_or_neutral_as_a_whole(seen: Seen, case: str) -> None:
    good, dropped = (process[f"{case}/drop_episode"] for process in seen)
    assert dropped["kept"] == [False] * 4 and dropped["scores"] == [0.0] * 4
    assert dropped["metrics"]["reward/dropped_episodes"] == 4.0 and dropped["scale"]["count"] == 4.0
    _, neutral = (process[f"{case}/neutral"] for process in seen)
    assert neutral["kept"] == [True] * 4
    mean = sum(seen[0][f"{case}/neutral"]["scores"]) / 4
    assert neutral["scores"] == pytest.approx([mean] * 4, rel=1e-6), "the mean over both processes"
    count = neutral["metrics"].get("reward/r/failed", 0) + neutral["metrics"].get("reward/r/not_finite", 0)
    assert count == 4.0 and good["metrics"] == dropped["metrics"]


def test_one_bad_score_concerns_one_episode(seen: Seen) -> None:
    assert seen[1]["one_nan/drop_episode"]["kept"] == [True, True, True, False]
    assert seen[0]["one_nan/drop_episode"]["scale"]["count"] == 7.0
    scores = seen[0]["one_nan/neutral"]["scores"] + seen[1]["one_nan/neutral"]["scores"]
    assert scores[7] == pytest.approx(sum(scores[:7]) / 7, rel=1e-6)


def test_when_nothing_is_left_anywhere_both_stop(seen: Seen) -> None:
    for process in seen:
        assert process["everywhere_nan/drop_episode"]["error"].startswith(
            "RewardError: every episode of the step was dropped; "
        )
        assert process["everywhere_nan/neutral"]["scores"] == [0.0] * 4


def test_what_is_absent_on_one_process_counts_as_nothing_there(seen: Seen) -> None:
    for policy in ("stop", "drop_episode", "neutral"):
        assert seen[1][f"absent/{policy}"]["scores"] == [0.0] * 4
        assert seen[0][f"absent/{policy}"]["metrics"]["reward/r/absent"] == 4.0
