"""Checks of what only some models have: rotary factors that depend on the length, and their own decoding settings."""

from collections.abc import Iterator

from rlhf.doctor.finding import Finding, graded
from rlhf.models.passes.rotary import chosen_factors, steady_length
from rlhf.models.pretrained.generation import ignored_settings
from rlhf.ppo.run.assembly import PPORun


def factors_are_steady(parts: PPORun) -> Iterator[Finding]:
    """A row's rotary factors do not depend on its batch; no finding for a model whose factors are constant."""
    limit = steady_length(parts.trained.model)
    if limit is None:
        return
    longest = max(len(prompt.ids) for prompt in parts.prompts) + parts.trainer.config.sampling.max_new_tokens
    chosen = chosen_factors(parts.trained.model)
    yield graded(
        "positions",
        f"an episode has at most {longest} tokens, and up to {limit} all rows have the same rotary factors",
        warning=f"{chosen}; `generate` of transformers chooses by each batch, and vLLM by its max_model_len"
        if chosen is not None
        else "",
    )


def decoding_is_plain(parts: PPORun) -> Iterator[Finding]:
    """Rollouts sample from the unfiltered policy; a finding only for a model with other settings."""
    ignored = ignored_settings(parts.trained.model)
    if ignored is not None:
        yield Finding("decoding", "ok", ignored)
