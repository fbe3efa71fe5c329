"""Check of the sampler: its logprobs against those of a forward pass."""

import torch

from rlhf.batches import join
from rlhf.doctor.finding import Finding, graded
from rlhf.doctor.rounding import LARGEST_UNITS, MEAN_UNITS, rounding_unit
from rlhf.doctor.trial import sampled
from rlhf.ppo.run.assembly import PPORun


@torch.no_grad()
def sampler_agrees(parts: PPORun) -> Finding:
    """Compare the logprobs of sampled tokens with those of one pass over the whole sequences."""
    trainer = parts.trainer
    starts, samples = sampled(parts)
    mask = samples.response_mask
    sequences = join(starts.batch.prompt_ids, starts.batch.prompt_mask, samples.response_ids, mask)
    output = trainer.policy(sequences, mask.shape[1], trainer.config.sampling.temperature)
    apart = (output.logprobs - samples.logprobs)[mask].abs()
    mean, largest, unit = float(apart.mean()), float(apart.max()), rounding_unit(trainer.policy.lm)
    limits = MEAN_UNITS * unit, LARGEST_UNITS * unit
    dtype = str(trainer.policy.lm.dtype).removeprefix("torch.")
    return graded(
        "sampler",
        f"logprobs of {len(apart)} sampled tokens {mean:.2g} nats from a forward pass on average (limit in {dtype} "
        f"{limits[0]:.2g}), {largest:.2g} at most (limit {limits[1]:.2g})",
        failing="the sampler draws from another distribution than training uses - look for another temperature, or a "
        "mask or positions that the model treats differently with a cache, or use model.precision=float32"
        if not mean <= limits[0]
        else "",
        warning="single tokens differ by more than rounding usually explains - compare with model.precision=float32"
        if not largest <= limits[1]
        else "",
    )
