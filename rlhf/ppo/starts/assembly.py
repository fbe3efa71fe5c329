"""Builds resets from the `reset:` section of a config: demonstrations, cut law, random numbers."""

from collections.abc import Sequence
from dataclasses import replace

from transformers import PreTrainedTokenizerBase

from rlhf.config import PPOSettings
from rlhf.config.resets import DataDemonstrations, GuideDemonstrations, OwnBestDemonstrations
from rlhf.data.records import Demonstration, Prompt
from rlhf.errors import ConfigError, DataError
from rlhf.ppo.starts.cut_laws import cut_law
from rlhf.ppo.starts.demonstrations import Ends, read_demonstrations
from rlhf.ppo.starts.guide import sample_guide
from rlhf.ppo.starts.own_best import OwnBest
from rlhf.ppo.starts.resets import Resets
from rlhf.stage.frame import Frame
from rlhf.training.randomness import generator


def make_resets(
    config: PPOSettings,
    run: Frame,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt] | None,
    eos_ids: Sequence[int],
) -> Resets | None:
    """Return the object that draws episode starts; None if all episodes begin at their prompts.

    `prompts` are those of the run, None if they are not known in advance.

    Raises:
        RlhfError: demonstrations cannot be read or sampled, or no episode can begin inside any of them.
    """
    section = config.reset
    if section is None or section.fraction == 0:
        return None
    ends = Ends(eos_ids, config.sampling.stop_strings, tokenizer)
    law = cut_law(section.cut, tokenizer)
    demonstrations = _demonstrations(config, run, tokenizer, prompts)
    if not isinstance(demonstrations, OwnBest):
        demonstrations = _opened(demonstrations, ends)
    resets = Resets(
        demonstrations,
        law,
        ends,
        generator(config.seed, "resets", run.processes.rank),
        fraction=section.fraction,
        max_new_tokens=config.sampling.max_new_tokens,
        num_steps=config.steps,
    )
    if not isinstance(demonstrations, OwnBest) and not any(max(resets.lengths(each)) for each in demonstrations):
        raise DataError(
            f"reset.cut: {section.cut.law} finds no place to cut in any of {len(demonstrations)} demonstrations within "
            f"sampling.max_new_tokens ({config.sampling.max_new_tokens}) - take another law"
        )
    return resets


def reset_inputs(config: PPOSettings) -> list[str]:
    """Return the paths that the demonstrations depend on."""
    if config.reset is None or config.reset.fraction == 0:
        return []
    section = config.reset.demonstrations
    return [] if isinstance(section, OwnBestDemonstrations) else [section.path]


def _demonstrations(
    config: PPOSettings, run: Frame, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt] | None
) -> list[Demonstration] | OwnBest:
    assert config.reset is not None
    if isinstance(config.reset.demonstrations, DataDemonstrations):
        return read_demonstrations(config.reset.demonstrations, run, tokenizer)
    if prompts is None:
        raise ConfigError(
            f"reset.demonstrations: {config.reset.demonstrations.kind} needs to know all prompts beforehand - give "
            "them as a list, or take demonstrations of kind data"
        )
    match config.reset.demonstrations:
        case OwnBestDemonstrations(size=size):
            return OwnBest(prompts, size)
        case GuideDemonstrations() as section:
            return sample_guide(section, config, run, tokenizer, prompts)


def _opened(demonstrations: Sequence[Demonstration], ends: Ends) -> list[Demonstration]:
    opened = [replace(each, response_ids=ends.open_part(each.response_ids)) for each in demonstrations]
    kept = [each for each in opened if each.response_ids]
    if not kept:
        raise DataError(
            f"reset.demonstrations: all {len(demonstrations)} end with their first token, so no episode can begin "
            "inside one - check the EOS token and sampling.stop_strings"
        )
    return kept
