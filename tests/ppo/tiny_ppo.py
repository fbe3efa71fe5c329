"""What the PPO tests share: a tiny policy and reward model on disk, configs, trainers; and what two processes run.

Run as a script (by `test_assembly.py`) it is one process of two: it writes what it saw of one update to a file.
"""

import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

from rlhf import PPOTrainer
from rlhf.batches import Experience, Rollout
from rlhf.config import PPOConfig, PPOSettings
from rlhf.ppo.experience import make_experience
from rlhf.ppo.rollout import Collected
from rlhf.ppo.run.assembly import PPORun
from rlhf.ppo.run.stage import assemble
from rlhf.ppo.starts.start_states import StartStates, draw_start_states
from rlhf.ppo.step_records import Update
from rlhf.ppo.trainer import PPO
from rlhf.stage.frame import Frame
from rlhf.training.precision import compute_dtype
from rlhf.training.processes import Processes

ROOT = Path(__file__).parents[2]
NO_CLIPPING = {"optimizer__max_grad_norm": 1e9, "value_optimizer": {"max_grad_norm": 1e9}}
LOOSE = {"rtol": 1e-4, "atol": 1e-6}
"""Sums of some hundred float32 products in another order: hundreds of eps (1.2e-7) of the largest terms, near 1e-2."""
REWARDS = """
import os, random
seen = {}
def share_of_e(completions, **columns):
    return [c.count("e") / max(len(c), 1) for c in completions]
def length(completions): return [float(len(c)) for c in completions]
def constant(completions): return [0.1] * len(completions)
def nan(completions): return [float("nan")] * len(completions)
def noise(completions): return [random.random() for _ in completions]
def label(prompts, completions, label, **columns):
    seen.update(prompts=prompts, completions=completions, label=label, **columns)
    return [float(each) for each in label]
def one_bad_on_rank_1(completions):
    return [float("nan") if os.environ.get("RANK") == "1" and not row else 0.0 for row in range(len(completions))]
def bad_on_rank_1(completions):
    return [float("nan") if os.environ.get("RANK") == "1" else 0.0] * len(completions)
"""


def build_workshop(directory: Path) -> Path:
    """Write a tiny policy, a tiny reward model, prompts and reward functions into `directory`."""
    torch.manual_seed(0)
    config = AutoConfig.from_pretrained(ROOT / "data/tiny_model", initializer_range=0.2)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(directory / "policy")
    config.num_labels = 1
    scorer = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
    scorer.save_pretrained(directory / "reward_model")
    give_tokenizer(directory / "policy", directory / "reward_model")
    beginnings = ["The film", "All in all the hero of it", "At last", "A", "From the start the ending was", "So"]
    beginnings += ["It was", "I"]
    rows = [{"prompt": text, "label": index} for index, text in enumerate(beginnings)]
    (directory / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    # Without the stop strings of `ppo_config`, so that episodes can begin anywhere inside of them.
    completions = [
        " had no plot, no humor. I am out.",
        " got it right. A good film to cry to.",
        " hit.",
        " ran on and on.",
    ]
    shown = [
        {"prompt": prompt, "completion": text, "label": 9}
        for prompt, text in zip(beginnings[:4], completions, strict=True)
    ]
    (directory / "demonstrations.jsonl").write_text("".join(json.dumps(row) + "\n" for row in shown))
    (directory / "rewards.py").write_text(REWARDS)
    return directory


def give_tokenizer(*directories: Path) -> None:
    """Put the tokenizer of data/tiny_model into models."""
    for directory in directories:
        for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
            shutil.copy(ROOT / "data/tiny_model" / name, directory / name)


def ppo_config(workshop: Path, *, reward: str = "share_of_e", **changes: Any) -> PPOConfig:
    """A small config; `changes` are dotted paths with __ for the dot: `model__lora={...}`."""
    given: dict[str, Any] = {
        "output_dir": str(workshop / "run"),
        "model": {"path": str(workshop / "policy"), "precision": "float32"},
        "prompts": {"path": str(workshop / "prompts.jsonl"), "max_length": 32},
        "rewards": [{"kind": "function", "path": f"{workshop / 'rewards.py'}:{reward}"}],
        # Stop strings end many responses early, so that lengths differ.
        "sampling": {"max_new_tokens": 5, "stop_strings": ["e", "s"], "batch_rows": 5},
        "optimizer": {"learning_rate": 1e-3, "schedule": "constant", "warmup_fraction": 0.0},
        "steps": 2, "rollout_batch_size": 8, "minibatches": 2, "epochs": 2, "microbatch_tokens": 24,
    }  # fmt: skip
    for name, value in changes.items():
        *path, last = name.split("__")
        place = given
        for key in path:
            place = place.setdefault(key, {})
        place[last] = value
    return PPOConfig.model_validate(given)


def separate(workshop: Path) -> dict[str, Any]:
    """A critic with a model of its own."""
    return {"critic": "separate", "critic_model": {"path": str(workshop / "reward_model")}}


def parts(config: PPOConfig, processes: Processes | None = None) -> PPORun:
    """Assemble a trainer without a run directory."""
    processes = processes or Processes()
    dtype = compute_dtype(config.model.precision, processes.device)
    torch.manual_seed(config.seed)
    return assemble(config, Frame(config, processes, None, dtype))  # type: ignore[arg-type]


def reset_section(workshop: Path, fraction: float, **changes: Any) -> dict[str, Any]:
    """The section `reset:` with the demonstrations of the workshop."""
    shown = {"kind": "data", "path": str(workshop / "demonstrations.jsonl")}
    return {"fraction": fraction, "demonstrations": shown, **changes}


def hand_rollout(lengths: Sequence[int], width: int, **given: Any) -> Rollout:
    """A rollout with these response lengths; what is not given is 0, and `forced` False."""
    num = len(lengths)
    mask = torch.arange(width) < torch.tensor(lengths)[:, None]
    zeros = torch.zeros(num, width)
    fields: dict[str, Any] = {
        "prompt_ids": torch.full((num, 2), 5), "prompt_mask": torch.ones(num, 2, dtype=torch.bool),
        "response_ids": torch.full((num, width), 7) * mask, "response_mask": mask, "forced": torch.zeros_like(mask),
        "logprobs": zeros, "ref_logprobs": zeros, "values": zeros, "token_scores": zeros,
        "scores": torch.zeros(num), "ended": torch.ones(num, dtype=torch.bool),
    }  # fmt: skip
    return Rollout(**(fields | given))


def starts(made: PPORun, indices: Sequence[int]) -> StartStates:
    """Start states at some prompts."""
    return draw_start_states([made.prompts[i % len(made.prompts)] for i in indices], 0, torch.device("cpu"))


def collected(made: PPORun, indices: Sequence[int] = range(8)) -> Collected:
    """A rollout from the prompts with these numbers."""
    trainer = made.trainer
    return trainer.collector.collect(starts(made, indices), trainer.generators.rollout)


def experience(trainer: PPO, rollout: Rollout) -> Experience:
    """Experience with the trainer's coefficient."""
    return make_experience(rollout, trainer.kl_control.coef, trainer.config, trainer.processes)


def stir(trainer: PPO, scale: float, seed: int = 0) -> None:
    """Move every trained weight a little, and give the value head something to say."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, parameter in sorted(trainer.policy.named_parameters()):
            if parameter.requires_grad:
                parameter += scale * torch.randn(parameter.shape, generator=generator).to(parameter.dtype)


def stirred(workshop: Path, **changes: Any) -> tuple[PPORun, Collected]:
    """A trainer whose policy has left the reference, and a rollout of it."""
    settings = {"sampling__temperature": 0.7, "gamma": 0.9, "gae_lambda": 0.8, "kl_estimator": "k3", "kl_coef": 0.3}
    settings |= {"clip_range": 0.05, "value_clip_range": 0.02, "entropy_coef": 0.05, "value_coef": 0.5, **NO_CLIPPING}
    made = parts(ppo_config(workshop, **(settings | changes)))
    stir(made.trainer, 0.02, seed=1)
    return made, collected(made)


def update(
    trainer: PPO,
    batch: Experience,
    minibatch: Sequence[Tensor],
    frozen_states: Mapping[int, Tensor] | None = None,
) -> tuple[Update, dict[str, Tensor]]:
    """Do one update, and return it with the gradients that the optimizer used."""
    names = {id(master): name for name, master in trainer.optimizer.weights.masters.items()}
    found: dict[str, Tensor] = {}

    def look(optimizer: torch.optim.Optimizer, *_: object) -> None:
        for group in optimizer.param_groups:
            found.update({names[id(p)]: p.grad.clone() for p in group["params"]})

    handle = trainer.optimizer._adam.register_step_pre_hook(look)
    try:
        return trainer.update(batch, minibatch, frozen_states), found
    finally:
        handle.remove()


def weights(trainer: PPO) -> dict[str, Tensor]:
    """Copies of the trained weights."""
    return {name: master.detach().clone() for name, master in trainer.optimizer.weights.masters.items()}


def one_global_update(workshop: Path, rollout: Rollout, processes: Processes) -> dict[str, Any]:
    """One update on this process's rows of a global rollout; every trainer starts from the same stirred weights."""
    config = ppo_config(workshop, entropy_coef=0.01, **NO_CLIPPING)
    trainer = parts(config, processes).trainer
    stir(trainer, 0.02)
    batch = experience(trainer, rollout.rows(torch.arange(8)[processes.rank :: processes.num]))
    result, gradients = update(trainer, batch, torch.arange(8 // processes.num).split(2))
    return {
        "means": result.means, "grad_norm": result.optimizer["grad_norm/policy"], "gradients": gradients,
        "advantages": batch.advantages, "weights": weights(trainer), "sequence_kl": trainer.sequence_kl(batch),
    }  # fmt: skip


BEGINNINGS = ["The film", "At last", "A", "So", "It was", "I", "From the start", "All in all"]


def share_of_e(completions: list[str], **columns: Any) -> list[float]:
    return [text.count("e") / max(len(text), 1) for text in completions]


def settings(workshop: Path, **changes: Any) -> PPOSettings:
    """What `ppo_config` says, without its paths."""
    paths_alone = {"output_dir", "rewards", "reference", "eval_prompts", "eval_every"}
    given = ppo_config(workshop, **changes).model_dump(exclude=paths_alone)
    for section, paths in {"model": ("path", "random_init", "trust_remote_code"), "prompts": ("path", "split")}.items():
        given[section] = {name: value for name, value in given[section].items() if name not in paths}
    given["prompts"].pop("limit")
    return PPOSettings.model_validate(given)


def ppo_trainer(workshop: Path, reward: Any = share_of_e, **more: Any) -> PPOTrainer:
    """A trainer as Python code makes it, in the settings of `ppo_config`."""
    options = {name: more.pop(name) for name in ("output_dir", "callbacks") if name in more}
    policy, reference = more.pop("policy", str(workshop / "policy")), more.pop("reference", None)
    tokenizer = more.pop("tokenizer", None)
    return PPOTrainer(policy, reference, reward, tokenizer, settings(workshop, **more), **options)


def prompt_rows(workshop: Path) -> list[dict[str, Any]]:
    """The prompts of the workshop, with their labels."""
    return [json.loads(line) for line in (workshop / "prompts.jsonl").read_text().splitlines()]


def policy_state(made: PPOTrainer) -> dict[str, Tensor]:
    """Copies of all weights of the policy."""
    return {name: tensor.clone() for name, tensor in made.ppo.policy.state_dict().items()}


def assert_equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    """Bit for bit."""
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def logged(directory: Path) -> list[dict[str, Any]]:
    """The rows of a run's metrics."""
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


def without_time(metrics: dict[str, float]) -> dict[str, float]:
    """Metrics that two runs have alike."""
    return {name: value for name, value in metrics.items() if name not in ("seconds", "step")}


def _main(workshop: Path) -> None:
    processes = Processes()
    rollout = Rollout(**torch.load(workshop / "rollout.pt"))
    seen = one_global_update(workshop, rollout, processes)
    seen["num"] = processes.num
    try:
        made = parts(ppo_config(workshop, reward="bad_on_rank_1"), processes)
        made.trainer.step([made.prompts[i] for i in range(4)])
    except Exception as error:
        seen["error"] = f"{type(error).__name__}: {error}"
    try:
        parts(ppo_config(workshop, rollout_batch_size=6, minibatches=2), processes)
    except Exception as error:
        seen["shares"] = f"{type(error).__name__}: {error}"
    torch.save(seen, workshop / f"seen-{processes.rank}.pt")


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
