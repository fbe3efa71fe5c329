"""Killed at random moments, and started again, each stage and variant ends with the bytes of an undisturbed run."""

import random
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

pytestmark = [pytest.mark.trial, pytest.mark.timeout(3000)]

NAMES = ["SFT", "reward model"] + [
    f"PPO, {name}"
    for name in ("plain", "LoRA", "separate critic", "resets", "own best", "adaptive KL", "running scale")
]


@pytest.mark.parametrize("name", NAMES)
def test_killed_at_random_moments_a_run_ends_in_the_same_bytes(
    name: str, trial: Any, trials: int, variants: ModuleType
) -> None:
    whole = trial.whole(name)
    for moment in variants.moments(name, trials, whole.seconds):
        place = trial.place()
        ended = trial.begin(name, place).after(moment).end()
        trial.figures["killed"] += ended.status == -9
        trial.again(f"killed after {moment:.3f} s", name, place, whole)
    trial.end()


@pytest.mark.parametrize("name", ["SFT", "PPO, running scale", "PPO in shards"])
def test_two_processes_of_which_any_are_killed_end_in_the_same_bytes(
    name: str,
    trial: Any,
    trials: int,
    variants: ModuleType,
    children: ModuleType,
    free_port: Callable[[], int],
) -> None:
    def both(place: Any) -> list[Any]:
        port = free_port()
        return [trial.begin(name, place, **children.member(rank, port, children.JOIN)) for rank in range(2)]

    whole = trial.whole_of_two(name, both)
    draw = random.Random(name)
    for moment in variants.moments(f"two, {name}", trials, whole.seconds):
        place, doomed = trial.place(), draw.choice([[0], [1], [0, 1]])
        processes = both(place)
        processes[doomed[0]].after(moment)
        for rank in doomed:
            processes[rank].signal(9)
        ends = [process.end() for process in processes]  # the other one ends too
        trial.figures["killed"] += any(end.status == -9 for end in ends)
        again = [process.end() for process in both(place)]
        trial.compare(f"process {doomed} killed after {moment:.3f} s", again, place, whole)
    trial.end()
