"""What a PPO step writes: metrics, under TRL's names, and samples."""

import json
from pathlib import Path
from typing import Any
from zlib import crc32

import torch

from rlhf.functional.masking import masked_sum
from rlhf.functional.statistics import explained_variance
from rlhf.ppo.run.traces import Tracer
from rlhf.ppo.step_records import StepResult
from rlhf.training.processes import Processes
from rlhf.training.storage.atomic import write_output


def step_metrics(result: StepResult, processes: Processes, *, has_critic: bool = True) -> dict[str, float]:
    """Return the metrics of a step over all processes. KL is in nats: `kl` per sequence, `kl_per_token` per token.

    Without a critic its metrics are left out: untrained values explain nothing.
    """
    rollout, experience = result.experience.rollout, result.experience
    mask = rollout.response_mask
    scores = rollout.episode_scores()
    names = ("episodes", "tokens", "kl", "scores", "raw", "shaped", "ended", "surprise", "squares", "forced")
    local = [
        int(mask.any(1).sum()),
        int(mask.sum()),
        float(experience.kl.sum()),
        float(scores.sum()),
        sum(result.collected.raw_scores),
        float(experience.rewards.sum()),
        int(rollout.ended.sum()),
        -float(masked_sum(rollout.logprobs, mask)),
        float(scores.double().square().sum()),
        int(rollout.forced.sum()),
    ]
    total = dict(zip(names, processes.sums(local), strict=True))
    episodes, tokens = total["episodes"], total["tokens"]
    first = result.updates[0]
    return {
        "objective/kl": total["kl"] / episodes,
        "objective/kl_per_token": total["kl"] / tokens,
        "objective/kl_coef": result.kl_coef,
        "objective/scores": total["scores"] / episodes,
        "objective/scores_std": max(total["squares"] / episodes - (total["scores"] / episodes) ** 2, 0.0) ** 0.5,
        "objective/raw_scores": total["raw"] / episodes,
        "objective/rlhf_reward": total["shaped"] / episodes,
        "objective/non_score_reward": (total["shaped"] - total["scores"]) / episodes,
        "objective/entropy": total["surprise"] / tokens,
        "val/num_eos_tokens": total["ended"],
        "val/share_ended": total["ended"] / episodes,
        "val/response_length": (tokens + total["forced"]) / episodes,
        "val/first_ratio_deviation": max(processes.gathered([first.ratio_deviation])),
        "updates": float(sum(update.stepped for update in result.updates)),
        **_update_metrics(result, processes),
        **(_critic_metrics(result, processes) if has_critic else {}),
    }


def write_samples(
    result: StepResult, path: Path, num_samples: int, tracer: Tracer | None = None
) -> list[dict[str, Any]]:
    """Write responses of this process as JSONL: prompt, response, score, KL, tokens, whether it ended; return them.

    After a reset also the forced text (`forced`) and its number of tokens (`num_forced`). The score of a dropped
    episode is null. With a tracer a few rows have the numbers of each token (`trace`). `sampled_rows` says which
    responses are written.

    Raises:
        CheckpointError: the disk is full or cannot be written.
    """
    rollout = result.experience.rollout
    scores = rollout.episode_scores()
    chosen = sampled_rows(result, num_samples)
    traces = {} if tracer is None else tracer.traces(result, chosen)
    rows = [
        {
            "prompt": result.collected.episodes[index].prompt,
            "response": result.collected.episodes[index].completion,
            "score": float(scores[index]) if bool(rollout.response_mask[index].any()) else None,
            "kl": float(result.experience.kl[index].sum()),
            "ended": bool(rollout.ended[index]),
            "tokens": len(result.collected.episodes[index].response_ids),
            **_forced(result, index),
            **({"trace": traces[index]} if index in traces else {}),
        }
        for index in chosen
    ]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_output(path, text)
    return rows


def sampled_rows(result: StepResult, num_samples: int) -> list[int]:
    """Return the rows whose prompts have the smallest checksums, in their order.

    The same prompts of the data are taken whenever they are in a batch, so that a reader sees how the answer to a
    prompt changed.
    """
    prompts = [json.dumps(episode.prompt).encode() for episode in result.collected.episodes]
    return sorted(sorted(range(len(prompts)), key=lambda row: (crc32(prompts[row]), row))[:num_samples])


def _forced(result: StepResult, index: int) -> dict[str, str | int]:
    num_forced = int(result.experience.rollout.forced[index].sum())
    return {"forced": result.collected.prefixes[index], "num_forced": num_forced} if num_forced else {}


def _critic_metrics(result: StepResult, processes: Processes) -> dict[str, float]:
    rollout = result.experience.rollout
    mask = rollout.response_mask
    everyone = processes.gathered([(rollout.values[mask].cpu(), result.experience.returns[mask].cpu())])
    values, returns = (torch.cat([pair[index] for pair in everyone]) for index in (0, 1))
    explained = explained_variance(values, returns, torch.ones_like(values, dtype=torch.bool))
    return {
        "loss/value_avg": _mean(result, "value_loss"),
        "val/clipfrac_avg": _mean(result, "value_clipped"),
        "val/explained_variance": float(explained),
    }


def _mean(result: StepResult, name: str) -> float:
    return sum(update.means[name] for update in result.updates) / len(result.updates)


def _update_metrics(result: StepResult, processes: Processes) -> dict[str, float]:
    taken, ratio, entropy = result.updates, _mean(result, "ratio"), _mean(result, "entropy")
    return {
        "loss/policy_avg": _mean(result, "policy_loss"),
        "policy/approxkl_avg": _mean(result, "approx_kl"),
        "policy/clipfrac_avg": _mean(result, "clipped"),
        # Entropy is above 0 wherever it was computed.
        **({"policy/entropy_avg": entropy} if entropy > 0 else {}),
        "val/ratio": ratio,
        "val/ratio_var": max(_mean(result, "ratio_square") - ratio**2, 0.0),
        "val/ratio_max": max(processes.gathered([max(update.ratio_max for update in taken)])),
        **next((update.optimizer for update in reversed(taken) if update.stepped), {}),
    }
