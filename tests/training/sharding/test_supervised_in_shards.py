"""SFT and the reward model under FSDP2 on two processes, beside the same runs with whole weights."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from rlhf.config import SftConfig
from rlhf.config.reading.loader import load_config
from rlhf.errors import CheckpointError
from rlhf.sft import train_sft

LORA = {"model__lora": {"r": 4}, "optimizer__learning_rate": 1e-4}
"""At this rate: AdamW takes the smallest gradients, of which rounding is a large part, for steps of full size."""
TOP = {"model__trainable_layers": 1}
EQUAL = 1e-6


@pytest.fixture(scope="module")
def session(module: Callable[[Path], ModuleType]) -> ModuleType:
    """The module `session.py`."""
    return module(Path(__file__).with_name("session.py"))


@pytest.fixture(scope="module")
def done(
    session: ModuleType,
    workshop: Path,
    tmp_path_factory: pytest.TempPathFactory,
    in_two_processes: Callable[..., list[str]],
) -> tuple[Path, list[str]]:
    """The directory of the runs, and what each process printed."""
    directory = tmp_path_factory.mktemp("supervised")
    on_adapter = {"path": str(directory / "lora-plain/policy"), "lora": "continue", "precision": "float32"}
    runs = [
        *session.resumed("sft", "full"), *session.both("sft", "top", **TOP), *session.both("sft", "lora", **LORA),
        *session.both("reward_model", "rm-full"), *session.resumed("reward_model", "rm-lora", **LORA),
        *session.both("ppo", "continued", checkpoints__every=None, microbatch_tokens=30, model=on_adapter),
        session.run("sft", "full-sharded", sharded=False, steps=6), session.run("sft", "compiled", compile="on"),
        session.run("sft", "back", guards={"rollback": {"times": 1}}, checkpoints__every=1),
    ]  # fmt: skip
    file = session.listed(directory, workshop, runs)
    return directory, in_two_processes([sys.executable, str(Path(session.__file__)), str(file)])


@pytest.mark.parametrize("name", ["full", "top", "lora", "rm-full", "rm-lora"])
def test_after_four_steps_the_weights_are_those_of_a_run_with_whole_weights(session, done, on_disk, name):
    directory, _ = done
    assert session.difference(directory, name) <= EQUAL
    plain, sharded = (on_disk.metrics(directory / f"{name}-{how}") for how in ("plain", "sharded"))
    assert any("eval/" in key for key in plain[-1]) and any("grad_norm/" in key for key in plain[-1])
    for one, other in zip(plain, sharded, strict=True):
        del one["seconds"], other["seconds"]
        assert other == pytest.approx(one, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("name", ["full", "rm-full"])
def test_each_process_holds_half_of_the_weights_and_passes_as_often_as_the_other(done, name):
    directory, _ = done
    watched = [json.loads((directory / f"watched-{name}-sharded-{rank}.json").read_text()) for rank in range(2)]
    for each in watched:
        ((own, whole),) = each["held"].values()
        assert 0.45 * whole < own < 0.55 * whole
    assert max(each["spared"] for each in watched) > 0


def test_the_result_is_an_ordinary_model(done):
    directory = done[0] / "full-sharded/policy"
    model = AutoModelForCausalLM.from_pretrained(directory)
    saved = load_file(directory / "model.safetensors")
    assert all(
        torch.equal(model.state_dict()[name], each) and each.dtype == torch.float32 for name, each in saved.items()
    )


@pytest.mark.parametrize("name", ["full", "rm-lora"])
def test_a_resumed_run_ends_in_the_same_bytes(done, name, on_disk):
    directory, printed = done
    assert f"resuming from {directory / f'{name}-again'}" in printed[0]
    one, other = (on_disk.tensors(directory / f"{name}-{which}") for which in ("sharded", "again"))
    assert one == other and len(one) > 2


def test_ppo_goes_on_with_an_adapter_in_shards(session, done, on_disk):
    assert session.difference(done[0], "continued") <= EQUAL
    rows = on_disk.metrics(done[0] / "continued-sharded")
    assert [row["val/first_ratio_deviation"] for row in rows] == [0.0, 0.0] and rows[0]["objective/kl"] == 0.0


def test_shards_are_not_compiled_nor_rolled_back_and_their_checkpoints_not_resumed_whole(done):
    for printed in done[1]:
        assert "compiled: 2: compile: on, but blocks in shards (FSDP) are not compiled - set compile: off" in printed
        assert "back: 2: guards.rollback: is not supported for weights in shards (FSDP) - leave it out" in printed
        assert "full-sharded: 4: " in printed and "these differ: sharding (saved 'fsdp2', now nothing)" in printed


@pytest.mark.usefixtures("in_the_repository")
def test_a_checkpoint_of_two_processes_is_not_resumed_on_one(done, session, workshop):
    own = [f"output_dir={done[0] / 'full-sharded'}", "model.random_init=false", f"model.path={workshop / 'policy'}"]
    longer = [*own, *session.SUPERVISED, "steps=7"]
    with pytest.raises(CheckpointError, match=r"number of processes \(saved 2, now 1\), sharding"):
        train_sft(load_config(SftConfig, Path("configs/smoke/sft.yaml"), longer))
