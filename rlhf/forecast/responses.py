"""How long the responses of a policy will be: near the length of SFT's demonstrations, or half of the longest."""

from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path

from rlhf.config import RunConfig
from rlhf.config.evaluate import DecodingSection
from rlhf.config.ppo import SamplingSection
from rlhf.config.run import STAGES
from rlhf.data.records import Example
from rlhf.forecast.origin import RESULTS
from rlhf.forecast.supervised import demonstrations_of

GUESS = 0.5
"""Share of the longest response that one has, where no demonstration says it."""
BELOW_ONE = 0.8
"""Length of responses at a temperature below 1, in lengths of demonstrations: likely tokens end a text sooner.

Measured at temperature 0.8: 20.1, 19.6 and 20.3 tokens where people wrote 24.9 (docs/results.md).
PPO may shorten them further.
"""


def response_lengths(
    policy: str, prompts: Sequence[int], sampling: SamplingSection | DecodingSection, recipe: RunConfig, before: str
) -> list[int]:
    """Return the tokens of a response to each prompt.

    Args:
        policy: path of the model that responds.
        prompts: tokens of each.
        sampling: of the responses; its most new tokens and temperature count.
        recipe: its SFT has demonstrations, which count where the policy comes from it.
        before: the stage that asks.

    Raises:
        Unknown: the demonstrations are not on this machine.
        RlhfError: they cannot be used.
    """
    most = sampling.max_new_tokens
    lengths = [max(1, round(GUESS * most))]
    if recipe.sft is not None and _comes_from_sft(policy, recipe, before):
        mean = round(sum(prompts) / len(prompts))
        known = demonstrations_of(recipe.sft, recipe.sft.data, recipe)
        share = BELOW_ONE if sampling.temperature < 1 else 1.0
        lengths = [max(1, min(round(share * _answered(example, mean)), most)) for example in known.items]
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
