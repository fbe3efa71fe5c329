"""What `PPOTrainer` is given, made ready all together, and the fingerprint of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedModel

from rlhf.api.models import (
    GivenTokenizer,
    Model,
    check_kind,
    digest_of,
    given_language,
    given_policy,
    given_reference,
    name_or_model,
)
from rlhf.api.rewards import GivenRewards, OneReward, given_rewards
from rlhf.config import PPOSettings
from rlhf.models.pretrained.setup import Trainable
from rlhf.models.pretrained.tokenizer import Language
from rlhf.ppo.scoring.assembly import components
from rlhf.ppo.starts.assembly import reset_inputs
from rlhf.rewards.component import Component
from rlhf.stage import Frame


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """What `put_together` takes."""

    policy: Trainable
    language: Language
    reference: PreTrainedModel | None
    """None where what the policy is at the start is to be it."""
    rewards: list[Component]
    named: list[Model]
    """Policy, reference and critic as they were given."""
    scored_by: GivenRewards
    inputs: list[str]
    """Files that decide the result besides."""

    def digests(self) -> list[str]:
        """Return what decides the result of a run besides its config and its prompts, as far as it can be told."""
        return [*[digest_of(each) for each in [*self.named, *self.inputs]], *self.scored_by.digests()]


def make_ready(
    policy: Model | Path,
    reference: Model | Path | None,
    reward: OneReward | Sequence[OneReward],
    tokenizer: GivenTokenizer,
    run: Frame,
    config: PPOSettings,
) -> Ready:
    """Load what is given by name, and take the rest as it is.

    Raises:
        ConfigError: something cannot be loaded, or does not fit.
    """
    start, other = name_or_model(policy), name_or_model(reference)
    check_kind("policy", start)
    if other is not None:
        check_kind("reference", other)
    language = given_language(tokenizer, start)
    trained = given_policy(start, config.model, language.tokenizer)
    frozen = given_reference(other, start, language, run.dtype, run.device)
    rewards = given_rewards(reward, config, language)
    named = [start, *([] if frozen is None or other is None else [other])]
    return Ready(
        policy=trained,
        language=language,
        reference=frozen,
        rewards=components(
            rewards.sections, language.tokenizer, dtype=run.dtype, device=run.device, given=rewards.objects
        ),
        named=[*named, *([] if config.critic_model is None else [config.critic_model.path])],
        scored_by=rewards,
        inputs=reset_inputs(config),
    )
