"""One process of two fails: both end, the cause is told, and the run goes on to the same bytes."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytestmark = [pytest.mark.trial, pytest.mark.timeout(3000)]

BROKEN = """
import os, sys
import torch
from rlhf.cli import main
from rlhf.ppo.trainer import PPO
from rlhf.ppo.rollout import Collector
from rlhf.ppo.scoring.scorer import Scorer

owner, name, fault, call, rank = sys.argv.pop(1).split(":")
owner = {"PPO": PPO, "Scorer": Scorer}[owner]
whole, calls = getattr(owner, name), []

def broken(self, *given, **more):
    calls.append(1)
    if len(calls) != int(call) or os.environ["RANK"] != rank:
        return whole(self, *given, **more)
    if fault == "raise":
        raise RuntimeError("a fault on one process")
    if fault == "exit":
        os._exit(9)
    loss, *others = whole(self, *given, **more)
    return loss * torch.nan, *others

setattr(owner, name, broken)
sys.exit(main(sys.argv[1:]))
"""
FAULTS = {
    "an exception in a rollout": ("PPO:rollout:raise:4", {1}, "a fault on one process"),
    "an exception in a reward": ("Scorer:score:raise:4", {1}, "a fault on one process"),
    "an exception while it learns": ("PPO:learn:raise:4", {1}, "a fault on one process"),
    "an end without a word": ("PPO:learn:exit:4", {1, 9}, "another process ended"),
    "a loss that is NaN": ("PPO:loss:nan:13", {6}, " is nan at update"),
}


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_on_one_process_ends_both_and_the_run_goes_on_to_the_same_bytes(
    fault: str,
    rank: int,
    trial: Any,
    start: Callable[..., Any],
    children: ModuleType,
    free_port: Callable[[], int],
    tmp_path: Path,
) -> None:
    name, (what, statuses, told) = "PPO, plain", FAULTS[fault]
    script = tmp_path / "broken.py"
    script.write_text(BROKEN)

    def both(place: Path, *before: str) -> list[Any]:
        port = free_port()
        arguments = [*before, *trial.arguments(name)]
        return [start(arguments, cwd=place, **children.member(each, port, children.JOIN)) for each in range(2)]

    whole = trial.whole_of_two(name, both)
    place = trial.place()
    ends = [process.end() for process in both(place, str(script), f"{what}:{rank}")]
    trial.check(
        all(end.status in statuses for end in ends), f"{fault}: {[(end.status, end.err[-400:]) for end in ends]}"
    )
    trial.check(any(told in line for end in ends for line in end.errors), f"{fault}: {[end.errors for end in ends]}")
    trial.compare(fault, [process.end() for process in both(place)], place, whole)
    trial.end()


def test_a_run_of_one_process_does_not_go_on_as_two(
    trial: Any, start: Callable[..., Any], children: ModuleType, free_port: Callable[[], int]
) -> None:
    name = "PPO, plain"
    whole = trial.whole(name)
    place = trial.place(trial.copy(whole, "policy", "complete.json"))
    port = free_port()
    both = [trial.begin(name, place, **children.member(rank, port, children.JOIN)) for rank in range(2)]
    for ended in [process.end() for process in both]:
        trial.check(ended.status == 4, f"status {ended.status}: {ended.err[-400:]}")
        trial.check("number of processes (saved 1, now 2)" in ended.err, ended.err[-400:])
    trial.again("then as one process", name, place, whole)
    trial.end()
