"""Demonstrations sampled from another policy (a guide, as in jump-start RL: Uchendu et al. 2022, arXiv:2204.02372)."""

from collections.abc import Sequence

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlhf.config import PPOSettings
from rlhf.config.resets import GuideDemonstrations
from rlhf.data.batching import collate_prompts
from rlhf.data.records import Demonstration, Prompt
from rlhf.errors import ConfigError
from rlhf.fetch import resolve
from rlhf.models.pretrained.loading import check_positions, frozen_in, load_causal_lm
from rlhf.models.pretrained.tokenizer import eos_ids, load_tokenizer, tokenizer_fingerprint
from rlhf.models.pretrained.vocabulary import fit_vocabulary
from rlhf.ppo.starts.demonstrations import Ends
from rlhf.sampling.batched import Decoding, sample_in_batches
from rlhf.stage.frame import Frame
from rlhf.training.randomness import generator

Numbered = tuple[int, tuple[int, ...]]
"""The index of a prompt, and the response to it."""


def sample_guide(
    section: GuideDemonstrations,
    config: PPOSettings,
    run: Frame,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
) -> list[Demonstration]:
    """Sample the guide's responses to the run's prompts; each process samples its share and gets all of them.

    Raises:
        ConfigError: the guide cannot be loaded, has another tokenizer, or too few positions; or weights are in shards.
        GuardStop: the guide's logits are not finite.
    """
    if run.processes.sharding.name != "none":
        raise ConfigError(
            "reset.demonstrations: kind: guide is not supported under FSDP, where every process would hold the whole "
            "guide - let `rlhf generate` write its responses, and give them as kind: data"
        )
    asked = [prompts[place % len(prompts)] for place in range(section.num_demonstrations)]
    source = resolve(section.path)
    model = _load(source, tokenizer, asked, config, run)
    model = frozen_in(model, run.dtype).to(run.device)  # type: ignore[arg-type]  # decorated without types
    places = list(range(len(asked)))[run.processes.rank :: run.processes.num]
    numbers = generator(config.seed, "guide", run.processes.rank)
    ending = eos_ids(source, tokenizer)
    ends = Ends(ending, (), tokenizer)  # the policy may not know what ends the guide's responses
    own: list[Numbered] = []
    if places:
        drawn = {**config.sampling.model_dump(), "temperature": section.temperature}
        batch = collate_prompts([asked[place] for place in places], int(tokenizer.pad_token_id))
        decoding = Decoding(**drawn, eos_ids=ending, tokenizer=tokenizer)
        own = list(zip(places, sample_in_batches(model, batch, decoding, numbers).responses, strict=True))
    everyone: dict[int, tuple[int, ...]] = dict(run.processes.gathered(own))
    run.processes.say(f"demonstrations: {len(asked)} responses sampled from {section.path}")
    return [Demonstration(prompt, ends.open_part(everyone[place])) for place, prompt in enumerate(asked)]


def _load(
    source: str, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt], config: PPOSettings, run: Frame
) -> PreTrainedModel:
    own = load_tokenizer(source)
    if tokenizer_fingerprint(own) != tokenizer_fingerprint(tokenizer):
        raise ConfigError(
            f"reset.demonstrations.path: {source} has another tokenizer ({len(own)} ids) than the policy "
            f"({len(tokenizer)} ids) - let `rlhf generate` write its responses, and give them as kind: data"
        )
    model = load_causal_lm(source)
    fit_vocabulary(model, tokenizer, source)
    run.choose_factors(config.longest_episode, guide=model)
    check_positions(
        model,
        source,
        max(len(prompt.ids) for prompt in prompts),
        config.sampling.max_new_tokens,
        key="sampling.max_new_tokens",
        fix="take another guide",
        where="reset.demonstrations.path: ",
    )
    return model
