"""Processes that do not meet, that fail alone, or whose launcher is gone: bounded, and the cause comes first."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from rlhf.config.reading.loader import save_config

JOIN_SECONDS = 3
WAIT = 200
"""What a process may take on a busy machine: mostly the start of Python."""

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(root: Path, environment: dict[str, str]) -> Iterator[Start]:
    """`start(arguments, NAME=value)` starts Python; what still runs at the end of the test is killed."""
    started = []

    def begin(arguments: list[str], **variables: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, *arguments], env={**environment, **variables}, cwd=root,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def member(rank: int, port: int) -> dict[str, str]:
    """The variables of one process of two."""
    own = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    return {**own, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RLHF_JOIN_SECONDS": str(JOIN_SECONDS)}


def ended(process: subprocess.Popen[str]) -> tuple[int, list[str]]:
    """Return its status, and its errors but for the warnings of libraries."""
    _, errors = process.communicate(timeout=WAIT)
    assert "Traceback" not in errors, errors
    return process.returncode, [line for line in errors.splitlines() if "error:" in line]


def test_a_port_that_another_program_uses_ends_both_with_the_cause(
    tmp_path: Path, start: Start, command: Callable[..., list[str]]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        arguments = ["-m", "rlhf", *command(tmp_path / "sft")]
        both = [start(arguments, **member(rank, port)) for rank in range(2)]
        (first, told), (second, told_second) = (ended(process) for process in both)
    assert first == 2 and told == [
        f"error: MASTER_PORT: another program listens at 127.0.0.1:{port} - choose another port (accelerate launch "
        "--main_process_port)"
    ]
    assert second == 1 and len(told_second) == 1
    assert told_second[0].startswith(f"process 1: error: the 2 processes of the run did not meet at 127.0.0.1:{port}")


def test_a_process_whose_peer_never_comes_ends(
    tmp_path: Path, start: Start, command: Callable[..., list[str]], free_port: Callable[[], int]
) -> None:
    port = free_port()
    status, told = ended(start(["-m", "rlhf", *command(tmp_path / "sft")], **member(0, port)))
    assert status == 1 and len(told) == 1
    assert f"error: the 2 processes of the run did not meet at 127.0.0.1:{port} within {JOIN_SECONDS} s" in told[0]


def test_a_run_whose_launcher_is_killed_saves_and_stops_at_a_step_boundary(
    tmp_path: Path, start: Start, command: Callable[..., list[str]], on_disk: ModuleType
) -> None:
    run = tmp_path / "sft"
    arguments = ["-m", "rlhf", *command(run, "steps=3000", "checkpoints.every=null")]
    launch = "import subprocess as s, sys, time; print(s.Popen([sys.executable, *sys.argv[1:]]).pid, flush=True)"
    launch += "; time.sleep(600)"
    launcher = start(["-c", launch, *arguments], TORCHELASTIC_RUN_ID="none")
    assert launcher.stdout is not None and launcher.stderr is not None
    worker = int(launcher.stdout.readline())
    try:
        wait_until(lambda: (run / "metrics.jsonl").exists() and len((run / "metrics.jsonl").read_bytes()) > 500)
        launcher.kill()
        wait_until(lambda: not Path(f"/proc/{worker}").exists())
    finally:
        if Path(f"/proc/{worker}").exists():
            os.kill(worker, signal.SIGKILL)
    steps = [row["step"] for row in on_disk.metrics(run)]
    saved = list((run / "checkpoints").glob("step-*"))
    assert [path.name for path in saved] == [f"step-{steps[-1]:06d}"] and steps[-1] < 3000
    assert f"the launcher is gone: stopped after step {steps[-1]}; run the same command again" in launcher.stderr.read()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


NAN = """
import os, sys
import torch
from rlhf.cli import main
from rlhf.ppo.trainer import PPO

rollout = PPO.rollout

def broken(self, prompts):
    if self.num_steps == 1 and os.environ["RANK"] == "1":
        with torch.no_grad():
            next(self.policy.lm.parameters()).fill_(torch.nan)
    return rollout(self, prompts)

PPO.rollout = broken
sys.exit(main(["ppo", "--config", sys.argv[1]]))
"""


def test_logits_that_are_not_finite_on_one_process_end_both_with_status_6_and_name_the_last_good_checkpoint(
    tmp_path: Path, start: Start, tiny: ModuleType, workshop: Path, free_port: Callable[[], int]
) -> None:
    (tmp_path / "broken.py").write_text(NAN)
    config = tiny.ppo_config(workshop, output_dir=str(tmp_path / "run"), steps=4, checkpoints__every=1)
    save_config(config, tmp_path / "ppo.yaml")
    port = free_port()
    arguments = [str(tmp_path / "broken.py"), str(tmp_path / "ppo.yaml")]
    settings = [{**member(rank, port), "RLHF_JOIN_SECONDS": str(WAIT)} for rank in range(2)]
    results = [ended(process) for process in [start(arguments, **variables) for variables in settings]]
    assert [status for status, _ in results] == [6, 6]
    for rank, (_, told) in enumerate(results):
        assert len(told) == 1 and "the policy's logits are not finite at row" in told[0]
        assert told[0].endswith(f"the last good checkpoint is {tmp_path / 'run' / 'checkpoints' / 'step-000001'}")
        assert told[0].startswith("process 1: error: " if rank else "error: process 1: ")
