"""FSDP2 on four processes: the same weights, and no checkpoint of two."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

EQUAL = 1e-6


@pytest.fixture(scope="module")
def session(module: Callable[[Path], ModuleType]) -> ModuleType:
    """The module `session.py`."""
    return module(Path(__file__).with_name("session.py"))


def test_four_processes_hold_a_quarter_each_and_refuse_a_checkpoint_of_two(
    session: ModuleType,
    workshop: Path,
    tmp_path: Path,
    in_two_processes: Callable[..., list[str]],
) -> None:
    by_two = session.run("sft", "by-two", stops_at=2, checkpoints__every=1)
    script = [sys.executable, str(Path(session.__file__))]
    in_two_processes([*script, str(session.listed(tmp_path, workshop, [by_two]))])
    model = {"kind": "model", "path": str(workshop / "reward_model")}
    ppo = session.both("ppo", "ppo", rewards=[model], checkpoints__every=None, optimizer__learning_rate=3e-4)
    runs = [{**by_two, "stops_at": None}, *session.both("sft", "sft"), *ppo]
    printed = in_two_processes([*script, str(session.listed(tmp_path, workshop, runs))], 4)
    assert all("by-two: 4: " in each and "number of processes (saved 2, now 4)" in each for each in printed)
    for name in ("sft", "ppo"):
        assert session.difference(tmp_path, name) <= EQUAL
        for rank in range(4):
            held = json.loads((tmp_path / f"watched-{name}-sharded-{rank}.json").read_text())["held"]
            assert all(0.2 * whole < own < 0.3 * whole for own, whole in held.values()) and held
