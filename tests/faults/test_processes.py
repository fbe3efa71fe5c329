"""Processes that do not meet, that fail alone, or whose launcher is gone: bounded, and the cause comes first."""

import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from rlhf.config.reading.loader import save_config

pytestmark = pytest.mark.slow

JOIN_SECONDS = 3

Start = Callable[..., Any]


def test_a_port_that_another_program_uses_ends_both_with_the_cause(
    tmp_path: Path, start: Start, command: Callable[..., list[str]], children: ModuleType
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        both = [start(command(tmp_path / "sft"), **children.member(rank, port, JOIN_SECONDS)) for rank in range(2)]
        (first, told), (second, told_second) = (process.ended() for process in both)
    assert first == 2 and told == [
        f"error: MASTER_PORT: another program listens at 127.0.0.1:{port} - choose another port (accelerate launch "
        "--main_process_port)"
    ]
    assert second == 1 and len(told_second) == 1
    assert told_second[0].startswith(f"process 1: error: the 2 processes of the run did not meet at 127.0.0.1:{port}")


def test_a_process_whose_peer_never_comes_ends(
    tmp_path: Path,
    start: Start,
    command: Callable[..., list[str]],
    free_port: Callable[[], int],
    children: ModuleType,
) -> None:
    port = free_port()
    status, told = start(command(tmp_path / "sft"), **children.member(0, port, JOIN_SECONDS)).ended()
    assert status == 1 and len(told) == 1
    assert f"error: the 2 processes of the run did not meet at 127.0.0.1:{port} within {JOIN_SECONDS} s" in told[0]


def test_a_run_whose_launcher_is_killed_saves_and_stops_at_a_step_boundary(
    tmp_path: Path, start: Start, command: Callable[..., list[str]], on_disk: ModuleType, children: ModuleType
) -> None:
    run = tmp_path / "sft"
    arguments = command(run, "steps=3000", "checkpoints.every=null")
    launcher = start(arguments, launched=True, TORCHELASTIC_RUN_ID="none")
    children.wait_until(lambda: launcher.worker.exists() and launcher.worker.read_text() != "")
    worker = int(launcher.worker.read_text())
    try:
        children.wait_until(
            lambda: (run / "metrics.jsonl").exists() and len((run / "metrics.jsonl").read_bytes()) > 500
        )
        os.kill(launcher.pid, signal.SIGKILL)
        children.wait_until(lambda: not Path(f"/proc/{worker}").exists())
    finally:
        if Path(f"/proc/{worker}").exists():
            os.kill(worker, signal.SIGKILL)
    steps = [row["step"] for row in on_disk.metrics(run)]
    saved = list((run / "checkpoints").glob("step-*"))
    assert [path.name for path in saved] == [f"step-{steps[-1]:06d}"] and steps[-1] < 3000
    assert (
        f"the launcher is gone: stopped after step {steps[-1]}; run the same command again" in launcher.err.read_text()
    )


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
    tmp_path: Path,
    start: Start,
    tiny: ModuleType,
    workshop: Path,
    free_port: Callable[[], int],
    children: ModuleType,
) -> None:
    (tmp_path / "broken.py").write_text(NAN)
    config = tiny.ppo_config(workshop, output_dir=str(tmp_path / "run"), steps=4, checkpoints__every=1)
    save_config(config, tmp_path / "ppo.yaml")
    port = free_port()
    arguments = [str(tmp_path / "broken.py"), str(tmp_path / "ppo.yaml")]
    settings = [children.member(rank, port, children.JOIN) for rank in range(2)]
    results = [process.ended() for process in [start(arguments, **variables) for variables in settings]]
    assert [status for status, _ in results] == [6, 6]
    for rank, (_, told) in enumerate(results):
        assert len(told) == 1 and "the policy's logits are not finite at row" in told[0]
        assert told[0].endswith(f"the last good checkpoint is {tmp_path / 'run' / 'checkpoints' / 'step-000001'}")
        assert told[0].startswith("process 1: error: " if rank else "error: process 1: ")


def test_two_processes_go_back_together_after_a_nan_on_one_and_end_together_at_the_best_step(
    tmp_path: Path,
    start: Start,
    tiny: ModuleType,
    workshop: Path,
    free_port: Callable[[], int],
    on_disk: ModuleType,
    children: ModuleType,
) -> None:
    once = NAN.replace("if self.num_steps == 1", "if self.optimizer.scale == 1.0 and self.num_steps == 1")
    assert once != NAN
    (tmp_path / "broken.py").write_text(once)
    config = tiny.ppo_config(
        workshop, output_dir=str(tmp_path / "run"), steps=4, checkpoints__every=1, optimizer__learning_rate=1e-2,
        guards={"rollback": {"times": 1}}, best={"metric": "evaluation/kl", "load_at_end": True},
        early_stopping={"patience": 2}, eval_every=1,
        eval_prompts={"path": str(workshop / "prompts.jsonl"), "limit": 4},
    )  # fmt: skip
    save_config(config, tmp_path / "ppo.yaml")
    port = free_port()
    arguments = [str(tmp_path / "broken.py"), str(tmp_path / "ppo.yaml")]
    settings = [children.member(rank, port, children.JOIN) for rank in range(2)]
    started = [start(arguments, **variables) for variables in settings]
    assert [process.ended() for process in started] == [(0, []), (0, [])]
    rows = on_disk.metrics(tmp_path / "run")
    assert [row["rollback/count"] for row in rows] == [0, 1, 1] and {row["best/step"] for row in rows} == {1}
    told = started[0].out.read_text()
    assert "guard: process 1: the policy's logits are not finite" in told
    assert "the run ends after step 3 of 4: early_stopping" in told and "has the weights of step 1" in told
