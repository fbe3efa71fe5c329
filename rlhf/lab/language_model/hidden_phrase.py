"""Experiment: a reward that plain PPO never earns, without and with demonstrations: behaviour cloning, and resets."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from rlhf.batches import join
from rlhf.data.batching import collate_prompts
from rlhf.lab.language_model.phrase_report import Outcome, figure, finding, method, table
from rlhf.lab.language_model.phrase_task import Run, Task, cloning_config, ppo_settings, reset_settings, write_task
from rlhf.lab.language_model.ppo_run import assembled, do_steps
from rlhf.lab.section import Section, Settings
from rlhf.ppo.responses import whole_responses
from rlhf.ppo.run.assembly import PPORun
from rlhf.ppo.starts.start_states import draw_start_states
from rlhf.sft import train_sft
from rlhf.training.randomness import generator

FULL = Task()
QUICK = Task(steps=2, batch=8, num_layers=1, precision="float32", cloning_steps=2, num_judged=8, seeds=1)


def plain(run: Run) -> dict[str, Any]:
    """PPO from the prompts alone."""
    return ppo_settings(run)


def cloned(run: Run) -> dict[str, Any]:
    """Behaviour cloning of the demonstrations, then the same PPO."""
    return ppo_settings(replace(run, model=str(train_sft(cloning_config(run)))))


def reset(run: Run) -> dict[str, Any]:
    """The same PPO with half of its episodes begun inside the demonstrations."""
    return {**ppo_settings(run), "reset": reset_settings(run.directory)}


ARMS: dict[str, Callable[[Run], dict[str, Any]]] = {
    "plain PPO": plain,
    "cloning, then PPO": cloned,
    "PPO with resets": reset,
}
"""Name and function that makes a run's configuration."""


def run(settings: Settings) -> Section:
    """Run every arm with every seed."""
    task = QUICK if settings.quick else FULL
    runs: dict[str, list[Outcome]] = {name: [] for name in ARMS}
    for seed in range(settings.seed, settings.seed + task.seeds):
        for name, arm in ARMS.items():
            with TemporaryDirectory() as directory:
                one = Run(task=task, model=settings.model, seed=seed, directory=Path(directory))
                write_task(task, one.directory)
                runs[name].append(outcome(arm(one), task))
    return Section(
        name="hidden_phrase",
        title="A phrase that must be found",
        statement="A policy that must do many things right before anything is rewarded does not learn from its own "
        "episodes: it never sees the reward. Behaviour cloning of a few demonstrations, or episodes that begin inside "
        "them, bring the reward within reach.",
        formula="P(reward) = prod_t pi(a_t | s_t) from the prompt,   and only the last factors from inside",
        method=method(settings, task, runs),
        tables=[table(runs, task)],
        figures=[figure(runs, task)],
        finding=finding(runs, task),
    )


def outcome(given: dict[str, Any], task: Task) -> Outcome:
    """Do a run and return its outcome."""
    parts = assembled(given)
    try:
        start = phrase_probability(parts, task.phrase)
        metrics = do_steps(parts, task.steps, Path(given["output_dir"]) / "samples")
        return Outcome(
            at_prompts=[at_prompts(each, task.batch) for each in metrics],
            num_decoded=sum(decoded(each, task.batch) for each in metrics),
            num_judged=task.num_judged,
            num_solved=solved(parts, task.num_judged),
            probability=start,
        )
    finally:
        parts.trainer.collector.scorer.close()


def at_prompts(metrics: dict[str, float], batch: int) -> tuple[int, int]:
    """Return how many episodes of a step began at their prompts, and how many of these found the phrase."""
    num = round(batch * (1.0 - metrics.get("reset/share", 0.0)))
    rate = metrics["reset/scores_at_prompts" if "reset/share" in metrics else "objective/scores"] if num else 0.0
    return num, round(num * rate)


def decoded(metrics: dict[str, float], batch: int) -> int:
    """Return the tokens that the policy sampled in a step."""
    return round(batch * metrics["val/response_length"] - metrics.get("reset/decode_tokens_saved", 0.0))


def solved(parts: PPORun, num: int) -> int:
    """Sample `num` responses to the prompts, in turn and without resets, and count those that contain the phrase."""
    trainer = parts.trainer
    prompts = [parts.prompts[index % len(parts.prompts)] for index in range(num)]
    starts = draw_start_states(prompts, int(trainer.collector.tokenizer.pad_token_id), trainer.processes.device)
    samples = trainer.collector.respond(starts, generator(trainer.config.seed, "lab", "hidden_phrase"))
    episodes = trainer.collector.episodes(starts, whole_responses(starts, samples))
    return round(sum(trainer.collector.scorer.score(episodes).raw))


@torch.no_grad()
def phrase_probability(parts: PPORun, phrase: str) -> float:
    """Return the probability that a response begins with the phrase, the mean over the prompts."""
    collector, device = parts.trainer.collector, parts.trainer.processes.device
    batch = collate_prompts(parts.prompts, int(collector.tokenizer.pad_token_id)).to(device)
    ids = collector.tokenizer(f" {phrase}", add_special_tokens=False)["input_ids"]
    responses = torch.tensor([ids] * len(parts.prompts), device=device)
    sequences = join(batch.prompt_ids, batch.prompt_mask, responses, torch.ones_like(responses, dtype=torch.bool))
    output = collector.policy(sequences, len(ids), parts.trainer.config.sampling.temperature)
    return float(output.logprobs.double().sum(1).exp().mean())
