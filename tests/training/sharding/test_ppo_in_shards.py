"""PPO under FSDP2 on two processes beside the same runs with whole weights; reference and rewards in shards too."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

EQUAL = 1e-6
BFLOAT16 = {"model__precision": "bfloat16"}


@pytest.fixture(scope="module")
def session(module: Callable[[Path], ModuleType]) -> ModuleType:
    """The module `session.py`."""
    return module(Path(__file__).with_name("session.py"))


def listed(session: ModuleType, workshop: Path, separate: dict[str, Any]) -> list[dict[str, Any]]:
    """The runs: four updates each in two steps, a reward model among the rewards."""
    functions = f"{workshop / 'rewards.py'}:"
    share = {"kind": "function", "path": f"{functions}share_of_e"}
    model = {"kind": "model", "path": str(workshop / "reward_model")}
    base = {"rewards": [share, model], "microbatch_tokens": 30, "checkpoints__every": None}
    base["optimizer__learning_rate"] = 3e-4
    dropped = {"kind": "function", "path": f"{functions}bad_on_rank_1", "on_nan": "drop_episode"}
    one_dropped = {**dropped, "path": f"{functions}one_bad_on_rank_1"}
    slow = {**model, "deadline": 5.0}
    one_by_one = {**base, "rewards": [one_dropped, share, model], "microbatch_tokens": 8}
    return [
        *session.resumed("ppo", "shared", **{**base, "steps": 3}),
        *session.both("ppo", "lora", **one_by_one, model__lora={"r": 4}),
        *session.both("ppo", "top", **{**base, "rewards": [dropped, share]}, model__trainable_layers=1),
        *session.resumed("ppo", "critic", **{**base, "steps": 3}, **separate, **BFLOAT16),
        session.run("ppo", "slow", **{**base, "rewards": [slow]}),
    ]


@pytest.fixture(scope="module")
def done(
    session: ModuleType,
    tiny: ModuleType,
    workshop: Path,
    tmp_path_factory: pytest.TempPathFactory,
    in_two_processes: Callable[..., list[str]],
) -> tuple[Path, list[str]]:
    """The directory of the runs, and what each process printed."""
    directory = tmp_path_factory.mktemp("ppo")
    file = session.listed(directory, workshop, listed(session, workshop, tiny.separate(workshop)))
    return directory, in_two_processes([sys.executable, str(Path(session.__file__)), str(file)])


@pytest.mark.parametrize("name", ["shared", "lora", "top"])
def test_after_four_updates_the_weights_are_those_of_a_run_with_whole_weights(session, done, on_disk, name):
    directory, _ = done
    assert session.difference(directory, name) <= EQUAL
    plain, sharded = (on_disk.metrics(directory / f"{name}-{how}") for how in ("plain", "sharded"))
    for one, other in zip(plain, sharded, strict=True):
        keys = [key for key in one if key.startswith("grad_norm/")]
        assert len(keys) == 2
        assert [other[key] for key in keys] == pytest.approx([one[key] for key in keys], rel=1e-4, abs=1e-7)


@pytest.mark.parametrize("name", ["shared", "lora", "top", "critic"])
def test_the_ratio_is_exactly_one_and_the_first_kl_exactly_zero(done, on_disk, name):
    rows = on_disk.metrics(done[0] / f"{name}-sharded")
    assert [row["val/first_ratio_deviation"] for row in rows] == [0.0] * len(rows)
    assert rows[0]["objective/kl"] == 0.0 != rows[1]["objective/kl"]


@pytest.mark.parametrize("name", ["shared", "critic"])
def test_policy_reference_and_reward_model_are_held_by_half(done, name):
    for rank in range(2):
        held = json.loads((done[0] / f"watched-{name}-sharded-{rank}.json").read_text())["held"]
        assert held.keys() == {"PolicyWithValueHead", "LlamaForCausalLM", "ScalarModel"}
        assert all(0.45 * whole < own < 0.55 * whole for own, whole in held.values())


@pytest.mark.parametrize("name", ["lora", "top"])
def test_a_process_whose_episodes_were_dropped_one_or_all_passes_as_often_as_the_other(done, name):
    spared = [json.loads((done[0] / f"watched-{name}-sharded-{rank}.json").read_text())["spared"] for rank in range(2)]
    assert spared[0] == 0 < spared[1]


@pytest.mark.parametrize("name", ["shared", "critic"])
def test_a_resumed_run_ends_in_the_same_bytes(done, name, on_disk):
    directory, printed = done
    assert f"resuming from {directory / f'{name}-again'}" in printed[0]
    one, other = (on_disk.tensors(directory / f"{name}-{which}") for which in ("sharded", "again"))
    assert one == other and len(one) > 5


def test_the_result_is_an_ordinary_policy_and_a_critic_beside_it(done):
    directory = done[0] / "critic-sharded"
    model, saved = AutoModelForCausalLM.from_pretrained(directory / "policy"), directory / "policy/model.safetensors"
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in load_file(saved).items())
    assert (directory / "policy/value_head.safetensors").exists() and (directory / "critic/model.safetensors").exists()


def test_a_deadline_for_a_model_in_shards_is_refused(done):
    for printed in done[1]:
        assert "slow: 2: rewards: " in printed and "deadline: 5, but a model in shards (FSDP) cannot be left" in printed
