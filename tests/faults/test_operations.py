"""Killed at any operation on a file, and started again, a run ends with the bytes of one that nothing disturbed."""

from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.trial, pytest.mark.timeout(3000)]

COMMANDS = ["SFT", "reward model", "PPO, separate critic"]


def kill_at_each(trial: Any, name: str, whole: Any, places: list[int], what: str, prepare: Any) -> None:
    for at in places:
        place = trial.place(prepare)
        ended = trial.begin(name, place, injection=trial.injection(place, what, at)).end()
        assert ended.status == -9, (at, ended)
        trial.figures["killed"] += 1
        trial.again(f"killed at operation {at}", name, place, whole)
    trial.end()


@pytest.mark.parametrize("name", COMMANDS)
def test_killed_at_any_operation_on_a_file_a_run_ends_in_the_same_bytes(name: str, trial: Any, stride: int) -> None:
    whole = trial.whole(name)
    assert (
        sum(line.startswith("rename") for line in whole.operations) >= 7
    )  # two saves, a prune, an export, single files
    places = list(range(0, len(whole.operations), stride))
    kill_at_each(trial, name, whole, places, "signal", lambda place: None)


def test_killed_while_a_result_is_made_again_a_run_ends_in_the_same_bytes(trial: Any, stride: int) -> None:
    whole = trial.whole("PPO, plain")

    def damaged(place: Path) -> None:
        trial.copy(whole)(place)
        (place / "run" / "policy" / "model.safetensors").unlink()

    again = trial.whole("PPO, plain", prepare=damaged)
    assert any("policy.tmp-replaced" in line for line in again.operations)  # the old one gives way
    places = list(range(0, len(again.operations), stride))
    kill_at_each(trial, "PPO, plain", whole, places, "signal", damaged)


@pytest.mark.parametrize("name", COMMANDS[:1])
def test_killed_with_half_of_a_file_written_a_run_ends_in_the_same_bytes(name: str, trial: Any, stride: int) -> None:
    whole = trial.whole(name)
    synced = [at for at, line in enumerate(whole.operations) if line.startswith("fsync") and "." in Path(line).name]
    files = [at for at in synced if whole.operations[at].rpartition(" ")[2] not in (".", "run")]
    kill_at_each(trial, name, whole, files[::stride], "torn", lambda place: None)
