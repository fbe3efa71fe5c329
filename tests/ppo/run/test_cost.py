"""The operations of a PPO step against those that torch counts in each of its phases."""

from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from rlhf.functional.flops import Work, forward_flops
from rlhf.ppo.run.cost import step_cost
from rlhf.ppo.step_records import StepResult
from rlhf.ppo.trainer import PPO
from rlhf.sampling import sampler

NUM_ROWS, NUM_NEW = 8, 5


class Counting:
    """Stands in for the clock: counts operations by phase, without rotary angles."""

    def __init__(self) -> None:
        self.flops: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Any:
        in_place = {torch.ops.aten.addmm_: lambda _, a, b, **__: 2 * a[0] * a[1] * b[1]}  # torch leaves it out
        with FlopCounterMode(display=False, custom_mapping=in_place) as counter:
            yield
        found = counter.get_flop_counts().items()
        rotary = sum(sum(counts.values()) for part, counts in found if part.endswith("rotary_emb"))
        self.flops[name] = self.flops.get(name, 0.0) + counter.get_total_flops() - rotary


def step(trainer: PPO, prompt: Any, **changes: Any) -> tuple[StepResult, dict[str, float]]:
    """Do a step on equal prompts; no response ends early, so that nothing is padded."""
    models = [trainer.policy.lm, trainer.policy.critic, trainer.collector.reference.model]
    models += [
        getattr(getattr(component.reward, "model", None), "classifier", None)
        for component in trainer.collector.scorer.rewards
    ]
    for model in models:
        if model is not None:
            model.set_attn_implementation("eager")  # torch does not count the fused attention of a CPU
    counting = Counting()
    trainer.phases = trainer.collector.phases = counting  # type: ignore[assignment]
    result = trainer.step([prompt] * NUM_ROWS)
    assert bool(result.experience.rollout.response_mask.all()) and result.experience.rollout.values.shape[1] == NUM_NEW
    return result, counting.flops


@pytest.mark.slow
@pytest.mark.parametrize("case", ["full", "partial", "lora", "critic", "partial critic", "stopped"])
def test_each_phase_has_the_operations_that_torch_counts(
    tiny: ModuleType, workshop: Path, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampler, "is_packable", lambda model: False)  # torch cannot look into packed products
    reward = {"kind": "model", "path": str(workshop / "reward_model")}
    critic = tiny.separate(workshop)
    changes: dict[str, Any] = {
        "full": {},
        "partial": {"model__trainable_layers": 1},
        "lora": {"model__lora": {"r": 2, "alpha": 4.0}},
        "critic": critic,
        "partial critic": {**critic, "model__trainable_layers": 1},
        "stopped": {"target_kl": 1e-12},
    }[case]
    config = tiny.ppo_config(
        workshop, sampling__stop_strings=[], sampling__batch_rows=NUM_ROWS, rewards=[reward, reward], **changes
    )
    made = tiny.parts(config)
    trainer = made.trainer
    trainer.collector.eos_ids = ()
    tiny.stir(trainer, 1e-3)
    cost = step_cost(trainer)
    result, seen = step(trainer, made.prompts[0])
    assert len(result.updates) == (2 if case == "stopped" else 4)

    tokens, flops = cost.of(result)
    prompt, length = len(made.prompts[0].ids), len(made.prompts[0].ids) + NUM_NEW
    assert tokens == NUM_ROWS * length
    # Eager attention also multiplies each token with the later ones, which is not counted. The prompt is read once.
    above, above_prompt = NUM_ROWS * length * (length - 1) // 2, prompt * (prompt - 1) // 2
    passes = len(result.updates) / 2
    first, kept = [cost.policy, *cost.critics], bool(result.collected.frozen_states)
    again = [cost.policy.above_frozen if kept else cost.policy, *cost.critics]
    reference = cost.sampling.above_frozen if kept else cost.reference
    masked = {
        "generation": above_prompt * cost.sampling.used.scores,
        "reward": above * sum(model.used.scores for model in cost.rewards),
        "reference": above * reference.used.scores,
        "forward": above * sum(model.used.scores for model in first)
        + passes * above * sum(model.used.scores for model in again),
        "backward": passes * 2 * above * sum(model.crossed.scores for model in first),
    }
    expected = {name: flops[name] + 4 * masked[name] for name in masked} | {"optimizer": 0.0}
    assert kept == (case in ("partial", "partial critic"))
    if case == "lora":
        # The first block's inputs to q, k and v have no gradient: nothing trained lies before them.
        read = trainer.policy.lm.base_model.layers[0].self_attn
        sizes = [p for name in "qkv" for p in getattr(read, f"{name}_proj").named_parameters()]
        inputs = sum(p.numel() for name, p in sizes if p.ndim == 2 and "lora_B" not in name)
        expected["backward"] -= passes * 2 * tokens * inputs
    assert seen == expected


def test_the_sampler_reads_forced_tokens_with_the_prompt_and_equal_beginnings_once(
    tiny: ModuleType, workshop: Path
) -> None:
    # Prompts of 2 tokens; responses of 4 and 3 tokens of which 2 and 2 are forced, the same ones, and of 1 and none.
    forced = torch.tensor([[True, True, False, False], [True, True, False, False], [False] * 4])
    mask = torch.tensor([[False, False, True, True], [False, False, True, False], [True, False, False, False]])
    rollout = tiny.hand_rollout([4, 3, 1], 4, forced=forced, response_mask=mask)
    result = SimpleNamespace(
        experience=SimpleNamespace(rollout=rollout), collected=SimpleNamespace(frozen_states={}), updates=[]
    )
    cost = step_cost(tiny.parts(tiny.ppo_config(workshop)).trainer)
    tokens, flops = cost.of(result)  # type: ignore[arg-type]
    # Read: 4 tokens and 2, which attend to 10 and 3; then one step that sees 5. Sampled: 2 beginnings and the step.
    assert flops["generation"] == forward_flops(cost.sampling, Work(tokens=7, pairs=18, predictions=3))
    # Sequences of 6, 5 and 3 tokens; logits for the 4 that the policy emitted.
    assert (tokens, flops["reference"]) == (
        14, forward_flops(cost.reference, Work(tokens=14, pairs=21 + 15 + 6, predictions=4))
    )  # fmt: skip


def test_rewards_that_are_no_model_of_ours_cost_no_operations(tiny: ModuleType, workshop: Path) -> None:
    made = tiny.parts(tiny.ppo_config(workshop))
    result = made.trainer.step(made.prompts)
    assert step_cost(made.trainer).of(result)[1]["reward"] == 0
