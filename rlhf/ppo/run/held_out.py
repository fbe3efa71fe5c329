"""Evaluates the policy on held-out prompts during PPO: mean score, KL to the reference, how responses end."""

from collections.abc import Sequence

import torch

from rlhf.data.records import Prompt
from rlhf.errors import ConfigError
from rlhf.functional.kl import kl_estimate
from rlhf.functional.masking import keep
from rlhf.models.passes.packing import packs
from rlhf.ppo.microbatches import cut_microbatches, num_strata_needed
from rlhf.ppo.rollout import joined_rows
from rlhf.ppo.starts.start_states import draw_start_states
from rlhf.ppo.trainer import PPO
from rlhf.training.randomness import generator, global_rng_state, restore_global_rng_state


@torch.no_grad()
def held_out_metrics(trainer: PPO, prompts: Sequence[Prompt]) -> dict[str, float]:
    """Sample a response to each prompt, with the same random numbers each time, and average over all processes.

    Training is unaffected: its random numbers and the running scales of rewards stay as they were.

    Raises:
        ConfigError: there are fewer prompts than processes.
        RewardError: a reward failed.
    """
    processes, collector, config = trainer.processes, trainer.collector, trainer.config
    if len(prompts) < processes.num:
        raise ConfigError(f"evaluation: {len(prompts)} prompts for {processes.num} processes - give each at least one")
    own = prompts[processes.rank :: processes.num]
    starts = draw_start_states(own, int(collector.tokenizer.pad_token_id), processes.device)
    numbers = generator(config.seed, "evaluation", processes.rank)
    sampled = collector.sample(starts, numbers)
    before, globally = collector.scorer.state(), global_rng_state()
    scored = collector.score(sampled)
    collector.scorer.load(before)
    restore_global_rng_state(globally)  # a user's reward may draw from them
    responses, kept = sampled.responses, torch.tensor(scored.kept)
    lengths = (starts.batch.prompt_mask.sum(1) + responses.lengths).tolist()
    strata = num_strata_needed(lengths, 1, config.microbatch_tokens, packs=packs(trainer.policy.lm))
    microbatches = cut_microbatches(lengths, 1, strata, numbers)
    joined = joined_rows(starts, responses, microbatches)
    logprobs, ref_logprobs, _, _ = collector.forward(joined, responses, microbatches)
    kl = keep(kl_estimate(logprobs, ref_logprobs, config.kl_estimator), responses.response_mask).sum(1).cpu()
    raw = [score for score, keeps in zip(scored.raw, scored.kept, strict=True) if keeps]
    local = [
        len(raw),
        sum(raw),
        float(kl[kept].sum()),
        len(own),
        int(responses.ended.sum()),
        int(responses.lengths.sum()),
    ]
    num_kept, scores, divergence, episodes, ended, tokens = processes.sums(local)
    return {
        "evaluation/scores": scores / num_kept,
        "evaluation/kl": divergence / num_kept,
        "evaluation/share_ended": ended / episodes,
        "evaluation/response_length": tokens / episodes,
    }
