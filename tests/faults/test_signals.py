"""TERM and INT, once and twice, at any moment, to any process: what was saved is whole, and the run goes on."""

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytestmark = [pytest.mark.trial, pytest.mark.timeout(3000)]

TERM, INT = signal.SIGTERM, signal.SIGINT
ENDS = {TERM: {143, -TERM, 0}, INT: {130, -INT, 0}}
"""Statuses: stopped at a step boundary; ended by the signal itself, before the first step or while Python ends; 0."""
SEQUENCES = [[TERM], [INT], [TERM, TERM], [INT, INT]]
APART = 0.6
"""Seconds between two signals that are two requests."""


@pytest.mark.parametrize("number", [TERM, INT], ids=["TERM", "INT"])
@pytest.mark.parametrize("name", ["SFT", "PPO, running scale"])
def test_a_signal_at_any_operation_on_a_file_loses_nothing(
    name: str, number: signal.Signals, trial: Any, stride: int
) -> None:
    whole = trial.whole(name)
    for at in range(0, len(whole.operations), 4 * stride):
        place = trial.place()
        ended = trial.begin(name, place, injection=trial.injection(place, "signal", at, number=int(number))).end()
        trial.figures["stopped"] += ended.status != 0
        is_right = ended.status in ENDS[number] and "Traceback" not in ended.err
        trial.check(is_right, f"{number.name} at operation {at}: status {ended.status}: {ended.err[-400:]}")
        trial.again(f"{number.name} at operation {at}", name, place, whole)
    trial.end()


def test_one_signal_or_two_at_random_moments_lose_nothing(trial: Any, trials: int, variants: ModuleType) -> None:
    name = "PPO, plain"
    whole = trial.whole(name)
    for moment, sequence in zip(
        variants.moments("signals", trials, whole.seconds), itertools.cycle(SEQUENCES), strict=False
    ):
        place = trial.place()
        process = trial.begin(name, place).after(moment, sequence[0])
        for number in sequence[1:]:
            time.sleep(APART)
            process.signal(number)
        ended = process.end()
        trial.figures["stopped"] += ended.status != 0
        is_right = ended.status in ENDS[sequence[0]] and "Traceback" not in ended.err
        trial.check(is_right, f"{sequence} after {moment:.3f} s: status {ended.status}: {ended.err[-400:]}")
        trial.again(f"{sequence} after {moment:.3f} s", name, place, whole)
    trial.end()


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("number", [TERM, INT], ids=["TERM", "INT"])
def test_a_signal_to_one_process_of_two_stops_both_after_the_same_step(
    number: signal.Signals,
    rank: int,
    trial: Any,
    children: ModuleType,
    free_port: Callable[[], int],
    on_disk: ModuleType,
) -> None:
    place, port = trial.place(), free_port()
    variables = [children.member(each, port, children.JOIN) for each in range(2)]
    both = [
        trial.begin("SFT", place, "steps=3000", "checkpoints.every=null", "eval_every=null", **each)
        for each in variables
    ]
    rows = place / "run" / "metrics.jsonl"
    children.wait_until(lambda: rows.exists() and len(rows.read_bytes()) > 500)
    both[rank].signal(number)
    ends = [process.end() for process in both]
    trial.check(ends[rank].status == 128 + number, f"status {ends[rank].status}: {ends[rank].err[-400:]}")
    trial.check(ends[1 - rank].status == 143, f"status {ends[1 - rank].status}: {ends[1 - rank].err[-400:]}")
    last = on_disk.metrics(place / "run")[-1]["step"]
    saved = [path.name for path in (place / "run" / "checkpoints").iterdir()]
    trial.check(saved == [f"step-{last:06d}"] and last < 3000, f"saved {saved}, last step {last}")
    trial.end()


@pytest.mark.parametrize("number", [TERM, INT], ids=["TERM", "INT"])
def test_a_signal_to_the_launcher_saves_at_a_step_boundary_and_leaves_no_process(
    number: signal.Signals,
    trial: Any,
    children: ModuleType,
    environment: dict[str, str],
    free_port: Callable[[], int],
    on_disk: ModuleType,
    tmp_path: Path,
) -> None:
    place = trial.place()
    options = ["--multi_gpu", "--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no"]
    options += ["--dynamo_backend", "no", "--main_process_port", str(free_port()), "-m", "rlhf"]
    launch = [sys.executable, "-m", "accelerate.commands.launch", *options]
    command = [*launch, *trial.arguments("SFT"), "steps=3000", "checkpoints.every=null", "eval_every=null"]
    rows = place / "run" / "metrics.jsonl"
    with (tmp_path / "told").open("w") as told:
        launcher = subprocess.Popen(
            command, env=environment, cwd=place, stdout=told, stderr=told, start_new_session=True
        )
        try:
            children.wait_until(lambda: rows.exists() and len(rows.read_bytes()) > 500)
            launcher.send_signal(number)
            status = launcher.wait(children.WAIT)
        finally:
            launcher.kill()
    printed = (tmp_path / "told").read_text()
    trial.check(status != 0, f"status {status}")
    last = on_disk.metrics(place / "run")[-1]["step"]
    saved = [path.name for path in (place / "run" / "checkpoints").iterdir()]
    trial.check(saved == [f"step-{last:06d}"] and last < 3000, f"saved {saved}, last step {last}:\n{printed[-1500:]}")
    running = [path.parent.name for path in Path("/proc").glob("[0-9]*/cwd") if _target(path) == str(place)]
    trial.check(running == [], f"still running: {running}")
    trial.end()


def _target(path: Path) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""
