"""Responses that a server draws one step ahead: in time, from the right weights, and none that is lost or left."""

import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from rlhf.errors import ConfigError, EngineError, GuardStop
from rlhf.ppo import train_ppo
from rlhf.ppo.run.ahead import Ahead
from rlhf.ppo.run.steps import PPOSteps
from rlhf.ppo.trainer import PPO
from rlhf.sampling.engines.server import ServerEngine

EPISODES = 8
pytestmark = pytest.mark.slow


@pytest.fixture
def config(tiny: ModuleType, workshop: Path, tmp_path: Path, fake: Any) -> Callable[..., Any]:
    def make(**changes: Any) -> Any:
        engine = {"kind": "vllm", "url": fake.url, "retries": 0, "ahead": True, "deadline": 60.0}
        changes = {"output_dir": str(tmp_path), "engine": engine, "steps": 3, **changes}
        return tiny.ppo_config(workshop, rollout_batch_size=EPISODES, **changes)

    return make


def closing(fake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shut the gate as soon as something is drawn ahead."""
    begin = Ahead.begin

    def shut(self: Ahead, *args: Any, **kwargs: Any) -> None:
        fake.gate.clear()
        begin(self, *args, **kwargs)

    monkeypatch.setattr(Ahead, "begin", shut)


def opening(fake: Any, monkeypatch: pytest.MonkeyPatch, kind: type, name: str) -> None:
    """Open the gate where `kind.name` is called: whoever waits for the server before that waits in vain."""
    original = getattr(kind, name)

    def opened(self: Any, *args: Any, **kwargs: Any) -> Any:
        fake.gate.set()
        return original(self, *args, **kwargs)

    monkeypatch.setattr(kind, name, opened)


def test_the_next_responses_are_drawn_while_a_step_trains_and_are_one_step_late(
    tiny: ModuleType, config: Callable[..., Any], tmp_path: Path, fake: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    closing(fake, monkeypatch)
    opening(fake, monkeypatch, PPO, "learn")
    train_ppo(config(optimizer__learning_rate=0.01))
    versions = [version.rpartition("-")[2] for version in fake.drawn_from]
    assert versions == ["1"] * 2 * EPISODES + ["2"] * EPISODES  # the second batch, too, from the first weights
    rows = tiny.logged(tmp_path)
    assert [row["sampling/steps_late"] for row in rows] == [0.0, 1.0, 1.0]
    assert [row["val/first_ratio_deviation"] for row in rows] == [0.0, 0.0, 0.0]
    assert rows[0]["sampling/logprob_difference"] < 1e-4
    assert min(row["sampling/logprob_difference"] for row in rows[1:]) > 1e-3  # as far as one step moved the policy


def test_without_it_every_batch_comes_from_the_newest_weights(
    tiny: ModuleType, config: Callable[..., Any], tmp_path: Path, fake: Any
) -> None:
    train_ppo(config(engine={"kind": "vllm", "url": fake.url, "retries": 0}))
    versions = [version.rpartition("-")[2] for version in fake.drawn_from]
    assert versions == [number for number in "123" for _ in range(EPISODES)]
    assert all("sampling/steps_late" not in row for row in tiny.logged(tmp_path))


def test_a_server_that_fails_in_the_background_ends_the_run_at_the_next_step(
    tiny: ModuleType, config: Callable[..., Any], tmp_path: Path, fake: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    learn = PPO.learn

    def broken(self: PPO, *args: Any) -> Any:
        fake.faults = {"half a response"}
        fake.gate.set()
        return learn(self, *args)

    closing(fake, monkeypatch)
    monkeypatch.setattr(PPO, "learn", broken)
    with pytest.raises(EngineError, match="^half a response: "):
        train_ppo(config())
    assert len(tiny.logged(tmp_path)) == 1


def test_an_evaluation_waits_until_the_server_is_free(
    tiny: ModuleType, workshop: Path, config: Callable[..., Any], tmp_path: Path, fake: Any, monkeypatch: Any
) -> None:
    load = ServerEngine.load

    def opened_late(self: ServerEngine, *args: Any) -> None:
        threading.Timer(0.3, fake.gate.set).start()  # whoever does not wait for the draws comes before that
        load(self, *args)

    closing(fake, monkeypatch)
    monkeypatch.setattr(ServerEngine, "load", opened_late)
    prompts = {"path": str(workshop / "prompts.jsonl")}
    train_ppo(config(eval_prompts=prompts, eval_every=1))
    rows = tiny.logged(tmp_path)
    assert [row["sampling/steps_late"] for row in rows] == [0.0, 1.0, 1.0]
    assert all("evaluation/scores" in row for row in rows)
    assert not fake.was_interrupted


def test_a_run_that_stops_asks_the_server_for_nothing_further(
    config: Callable[..., Any], fake: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(self: PPO, *args: Any) -> Any:
        raise GuardStop("enough")

    closing(fake, monkeypatch)
    monkeypatch.setattr(PPO, "learn", stopped)
    with pytest.raises(GuardStop):
        train_ppo(config(sampling__batch_rows=1))
    fake.gate.set()
    for thread in threading.enumerate():
        if thread.name.startswith(("ahead", "engine")):
            thread.join(30)
            assert not thread.is_alive()
    assert len(fake.drawn_from) <= EPISODES + 1  # the request that was on its way


def test_a_resumed_run_begins_with_responses_of_the_newest_weights(
    tiny: ModuleType, config: Callable[..., Any], tmp_path: Path, fake: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = PPOSteps.step

    def killed(self: PPOSteps, index: int) -> Any:
        if index == 2:
            raise KeyboardInterrupt
        return step(self, index)

    with monkeypatch.context() as patched:
        patched.setattr(PPOSteps, "step", killed)
        with pytest.raises(KeyboardInterrupt):
            train_ppo(config(checkpoints={"every": 1}, steps=4))
    train_ppo(config(checkpoints={"every": 1}, steps=4))
    rows = tiny.logged(tmp_path)
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert [row["sampling/steps_late"] for row in rows] == [0.0, 1.0, 0.0, 1.0]


def test_a_rollback_forgets_the_responses_to_prompts_of_a_step_that_comes_later(
    tiny: ModuleType, config: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learn, steps = PPO.learn, []

    def failing_once(self: PPO, *args: Any) -> Any:
        steps.append(self.num_steps)
        if steps == [0, 1]:
            raise GuardStop("once")
        return learn(self, *args)

    monkeypatch.setattr(PPO, "learn", failing_once)
    train_ppo(config(checkpoints={"every": 1}, guards={"rollback": {}}))
    rows = tiny.logged(tmp_path)
    assert steps == [0, 1, 1, 2]
    assert [row["sampling/steps_late"] for row in rows] == [0.0, 0.0, 1.0]


def test_what_needs_this_step_before_the_next_is_refused(
    tiny: ModuleType, workshop: Path, config: Callable[..., Any], fake: Any
) -> None:
    with pytest.raises(Exception, match=r"engine.ahead: reset chooses the next states"):
        config(reset=tiny.reset_section(workshop, 0.5))
    section = {"kind": "vllm", "url": fake.url, "ahead": True}
    made = tiny.ppo_trainer(workshop, engine=section, output_dir=workshop / "ahead")
    with pytest.raises(ConfigError, match=r"^engine.ahead: .* give a list of prompts$"):
        made.train(iter(["a", "b"]))
