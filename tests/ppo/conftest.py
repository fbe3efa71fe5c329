"""A PPO run in two processes, and one that a signal stops."""

import os
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from rlhf.config import PPOConfig
from rlhf.errors import Terminated
from rlhf.ppo import train_ppo
from rlhf.ppo.steps import PPOSteps

ROOT = Path(__file__).parents[2]
SECONDS = 270
"""What two processes may take: less than a test."""


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    """A function that finds a port on which nobody listens."""

    def find() -> int:
        with socket.socket() as server:
            server.bind(("127.0.0.1", 0))
            return int(server.getsockname()[1])

    return find


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """The environment of a process that is to find this package: one thread, no network, no part of another run."""
    kept = {name: value for name, value in os.environ.items() if name not in ("RANK", "LOCAL_RANK", "WORLD_SIZE")}
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**kept, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": path}


@pytest.fixture(scope="session")
def in_two_processes(free_port: Callable[[], int], environment: dict[str, str]) -> Callable[[list[str]], str]:
    """A function that runs a command twice, as two processes of one run, and returns what they printed."""

    def run(command: list[str]) -> str:
        shared = {**environment, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
        processes = [
            subprocess.Popen(
                command, env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}, cwd=ROOT,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            )
            for rank in range(2)
        ]  # fmt: skip
        try:
            outputs = [process.communicate(timeout=SECONDS)[0] for process in processes]
        finally:
            for process in processes:
                process.kill()
        assert [process.returncode for process in processes] == [0, 0], "\n".join(outputs)
        return "".join(outputs)

    return run


@pytest.fixture
def stopped_after_two_steps(monkeypatch: pytest.MonkeyPatch) -> Callable[[PPOConfig], None]:
    """A function that trains until a signal comes in the second step, and sees the run stop after it."""
    step = PPOSteps.step

    def signalled(self: PPOSteps, index: int) -> dict[str, float]:
        metrics = step(self, index)
        if index == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return metrics

    def run(config: PPOConfig) -> None:
        with monkeypatch.context() as patched:
            patched.setattr(PPOSteps, "step", signalled)
            with pytest.raises(Terminated, match="after step 2"):
                train_ppo(config)

    return run
