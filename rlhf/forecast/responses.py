"""How long the responses of a policy will be: as SFT's demonstrations are, or half of the longest."""

from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path

from rlhf.config import RunConfig
from rlhf.config.run import STAGES
from rlhf.data.records import Example
from rlhf.forecast.origin import RESULTS
from rlhf.forecast.supervised import demonstrations_of

GUESS = 0.5
"""Share of the longest response that one has, where no demonstration says it."""


def response_lengths(
    policy: str, prompts: Sequence[int], max_new_tokens: int, recipe: RunConfig, before: str
) -> list[int]:
    """Return the tokens of a response to each prompt.

    Args:
        policy: path of the model that responds.
        prompts: tokens of each.
        max_new_tokens: of the longest response.
        recipe: its SFT has demonstrations, which count where the policy comes from it.
        before: the stage that asks.

    Raises:
        Unknown: the demonstrations are not on this machine.
        RlhfError: they cannot be used.
    """
    lengths = [max(1, round(GUESS * max_new_tokens))]
    if recipe.sft is not None and _comes_from_sft(policy, recipe, before):
        mean = round(sum(prompts) / len(prompts))
        known = demonstrations_of(recipe.sft, recipe.sft.data, recipe)
        lengths = [max(1, min(_answered(example, mean), max_new_tokens)) for example in known.items]
    return list(islice(cycle(lengths), len(prompts)))


def _answered(example: Example, prompt: int) -> int:
    """Return the tokens of a completion; a text without a prompt begins with `prompt` tokens of one."""
    learnt, most = sum(example.loss_mask), len(example.loss_mask) - 1
    return learnt - prompt if learnt == most else learnt


def _comes_from_sft(policy: str, recipe: RunConfig, before: str) -> bool:
    for stage in reversed(STAGES[: STAGES.index(before)]):
        section = getattr(recipe, stage)
        if section is not None and Path(section.output_dir) / RESULTS[stage] == Path(policy):
            return stage == "sft" or _comes_from_sft(section.model.path, recipe, stage)
    return False
