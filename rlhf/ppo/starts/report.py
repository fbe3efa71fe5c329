"""The metrics that resets add to those of a PPO step."""

from rlhf.ppo.step_records import StepResult
from rlhf.training.processes import Processes


def reset_metrics(result: StepResult, processes: Processes) -> dict[str, float]:
    """Return how many episodes began inside a demonstration, what that saved, and scores and KL by kind of episode.

    `at_prompts` and `at_resets` are the two kinds: forced tokens change scores and KL by themselves, so only episodes
    that began at their prompts are comparable with a run without resets. A kind that did not occur is left out.
    """
    rollout, kl = result.experience.rollout, result.experience.kl.sum(1)
    is_reset, is_kept = rollout.forced.any(1), rollout.response_mask.any(1)
    kinds = {"prompts": is_kept & is_reset.logical_not(), "resets": is_reset}
    scores = rollout.episode_scores()
    local = [float(rollout.forced.sum()), float(result.collected.decode_steps_saved)]
    for rows in kinds.values():
        local += [float(rows.sum()), float(scores[rows].sum()), float(kl[rows].sum())]
    tokens, steps, *figures = processes.sums(local)
    by_kind = dict(zip(kinds, (figures[:3], figures[3:]), strict=True))
    num_resets = by_kind["resets"][0]
    metrics = {
        "reset/share": num_resets / (num_resets + by_kind["prompts"][0]),
        "reset/forced_tokens": tokens / num_resets if num_resets else 0.0,
        "reset/decode_tokens_saved": tokens,
        "reset/decode_steps_saved": steps,
    }
    for kind, (count, score, divergence) in by_kind.items():
        if count:
            metrics |= {f"reset/scores_at_{kind}": score / count, f"reset/kl_at_{kind}": divergence / count}
    return metrics
