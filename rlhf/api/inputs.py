"""The inputs of `PPOTrainer`, loaded and checked, and the digests that identify them."""

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
from rlhf.ppo.starts.assembly import reset_inputs
from rlhf.rewards.component import Component
from rlhf.stage.frame import Frame
from rlhf.stage.rewards import components


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """What `put_together` takes."""

    policy: Trainable
    language: Language
    reference: PreTrainedModel | None
    """None takes the policy as it is at the start."""
    rewards: list[Component]
    named: list[Model]
    """Policy, reference and critic as the user passed them."""
    scored_by: GivenRewards
    inputs: list[str]
    """Other files that determine the result."""

    def digests(self) -> list[str]:
        """Return digests of what determines a run's result besides its config and prompts, as far as known."""
        return [*[digest_of(each) for each in [*self.named, *self.inputs]], *self.scored_by.digests()]


def make_ready(
    policy: Model | Path,
    reference: Model | Path | None,
    reward: OneReward | Sequence[OneReward],
    tokenizer: GivenTokenizer,
    run: Frame,
    config: PPOSettings,
) -> Ready:
    """Load what is passed by name; use objects as they are.

    Raises:
        ConfigError: something cannot be loaded, or does not fit.
    """
    start, other = name_or_model(policy), name_or_model(reference)
    check_kind("policy", start)
    if other is not None:
        check_kind("reference", other)
    language = given_language(tokenizer, start, config.model)
    trained = given_policy(start, config.model, language.tokenizer)
    frozen = given_reference(other, start, language, run.dtype, run.device)
    rewards = given_rewards(reward, config, language)
    named = [start, *([] if frozen is None or other is None else [other])]
    return Ready(
        policy=trained,
        language=language,
        reference=frozen,
        rewards=components(
            rewards.sections,
            language.tokenizer,
            dtype=run.dtype,
            device=run.device,
            given=rewards.objects,
            longest=config.longest_episode,
        ),
        named=[*named, *([] if config.critic_model is None else [config.critic_model.path])],
        scored_by=rewards,
        inputs=reset_inputs(config),
    )
