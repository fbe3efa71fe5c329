"""Judges passed from Python: functions, classifiers, and sections of a config, by name."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from transformers import PreTrainedTokenizerBase

from rlhf.api.rewards import GivenRewards, OneReward, parsed
from rlhf.config import EvaluateSettings
from rlhf.config.judges import OpenAIJudgeSection, check_judges
from rlhf.errors import ConfigError
from rlhf.rewards.kinds.model import Loaded
from rlhf.stage.rewards import Given

OneJudge = OneReward | OpenAIJudgeSection
"""What PPO takes as a reward; or a model that compares two responses, as a section or a mapping with its keys."""


@dataclass(frozen=True, slots=True)
class GivenJudges:
    """The settings with every judge, and the objects that some of them stand for."""

    settings: EvaluateSettings
    objects: dict[str, Given]
    """By the name of the judge."""

    @property
    def copies(self) -> dict[str, Given]:
        """The objects, classifiers as copies: a judge prepares its model for scoring."""
        return {
            name: Loaded(copy.deepcopy(each.model), each.tokenizer) if isinstance(each, Loaded) else each
            for name, each in self.objects.items()
        }

    def digests(self) -> list[str]:
        """Return digests of what determines the scores, as far as known."""
        rewards = self.settings.rewards
        by_place = {place: self.objects[name] for place, name in enumerate(rewards) if name in self.objects}
        return GivenRewards(list(rewards.values()), by_place).digests()


def given_judges(
    judges: Mapping[str, OneJudge] | None, settings: EvaluateSettings, policy_tokenizer: PreTrainedTokenizerBase
) -> GivenJudges:
    """Add judges to those of the settings.

    Args:
        judges: by name; None adds none.
        settings: may have judges of their own.
        policy_tokenizer: for classifiers that have none of their own.

    Raises:
        ConfigError: one of them is no judge, or its name is taken.
    """
    if judges is not None and not isinstance(judges, Mapping):
        raise ConfigError(f'judges: expected a mapping such as {{"short": length}}, found {type(judges).__name__}')
    sections: dict[str, Any] = dict(settings.judges)
    objects: dict[str, Given] = {}
    for name, one in (judges or {}).items():
        if name in sections:
            raise ConfigError(f"judges.{name}: config has a judge of this name too - give one of them another name")
        if isinstance(one, OpenAIJudgeSection):
            sections[name] = one
        elif isinstance(one, Mapping) and one.get("kind") == "openai":
            sections[name] = _chat_judge(name, one)
        else:
            sections[name], given = parsed(one, f"judges.{name}", policy_tokenizer)
            if given is not None:
                objects[name] = given
    try:
        check_judges(sections)
    except ValueError as problem:
        raise ConfigError(str(problem)) from None
    return GivenJudges(settings.model_copy(update={"judges": sections}), objects)


def _chat_judge(name: str, given: Mapping[str, Any]) -> OpenAIJudgeSection:
    try:
        return OpenAIJudgeSection.model_validate(dict(given))
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()]
        raise ConfigError("\n".join(f"judges.{name}: {problem}" for problem in problems)) from None
