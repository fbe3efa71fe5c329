"""Rewards passed from Python: functions, classifiers, or entries of a config's list."""

import hashlib
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlhf.api.models import name_of_model, weights_digest
from rlhf.config import PPOSettings
from rlhf.config.ppo import check_rewards
from rlhf.config.rewards import RewardOptions, RewardSection
from rlhf.errors import ConfigError
from rlhf.fetch import resolve
from rlhf.models.pretrained.adapted import is_adapted
from rlhf.models.pretrained.tokenizer import Language, read_tokenizer
from rlhf.rewards.kinds.model import Loaded
from rlhf.rewards.kinds.user_code import name_of
from rlhf.stage.rewards import Given, reward_inputs
from rlhf.training.storage.fingerprint import content_digest, without_later

OneReward = Callable[..., object] | PreTrainedModel | RewardOptions | Mapping[str, Any] | str | Path
"""A function or class, a classifier, a section of a config or a mapping like one, the name of a reward model."""


_SECTION: TypeAdapter[Any] = TypeAdapter(RewardSection)


@dataclass(frozen=True, slots=True)
class GivenRewards:
    """Rewards as sections of a config, and the objects that some of them stand for."""

    sections: list[RewardSection]
    objects: dict[int, Given]
    """By the index of the section."""

    def digests(self) -> list[str]:
        """Return digests of what determines the scores, as far as known: files, weights, and the code of functions."""
        named = [section for place, section in enumerate(self.sections) if place not in self.objects]
        files = [content_digest(resolve(path)) for path in reward_inputs(named)]
        objects = [
            weights_digest(each.model) if isinstance(each, Loaded) else _code_digest(each)
            for each in self.objects.values()
        ]
        sections = [without_later(section.model_dump(mode="json")) for section in self.sections]
        return [*[json.dumps(each, separators=(",", ":"), ensure_ascii=False) for each in sections], *files, *objects]


def given_rewards(reward: OneReward | Sequence[OneReward], config: PPOSettings, language: Language) -> GivenRewards:
    """Return rewards as sections of a config.

    A mapping is an entry of a config's list, with `function` (a function or class) or `model` (a classifier, with its
    `tokenizer`) instead of `kind` and `path`.

    Raises:
        ConfigError: one of them is not a reward, or they do not fit together.
    """
    several = list(reward) if isinstance(reward, Sequence) and not isinstance(reward, str) else [reward]
    sections: list[RewardSection] = []
    objects: dict[int, Given] = {}
    for place, one in enumerate(several):
        section, given = parsed(one, f"reward {place}", language.tokenizer)
        sections.append(section)
        if given is not None:
            objects[place] = given
    try:
        check_rewards(sections, config)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    if not sections:
        raise ConfigError("reward: an empty list - PPO needs at least one")
    return GivenRewards(sections, objects)


def classifier_tokenizer(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    policy_tokenizer: PreTrainedTokenizerBase,
    where: str,
) -> PreTrainedTokenizerBase:
    """Return the given tokenizer, else the one saved with the classifier, else the policy's if its ids fit.

    Raises:
        ConfigError: there is none of them; the message begins with `where`.
    """
    name = name_of_model(model)
    if tokenizer is not None:
        return tokenizer
    if name:
        return read_tokenizer(name)
    if model.config.get_text_config().vocab_size >= len(policy_tokenizer):
        return policy_tokenizer
    raise ConfigError(
        f"{where}: the classifier does not know where it was loaded from, so its tokenizer is unknown - give "
        'both: {"model": model, "tokenizer": tokenizer}'
    )


def parsed(one: OneReward, where: str, policy_tokenizer: PreTrainedTokenizerBase) -> tuple[RewardSection, Given | None]:
    """Return a reward as a section of a config, and the object that it stands for.

    Raises:
        ConfigError: it is no reward; the message begins with `where`.
    """
    if isinstance(one, RewardOptions):
        return _section(one.model_dump(), where), None
    if isinstance(one, str | Path):
        return _section({"kind": "model", "path": str(one)}, where), None
    if isinstance(one, PreTrainedModel) or is_adapted(one):
        one = {"model": one}
    options: dict[str, Any] = dict(one) if isinstance(one, Mapping) else {"function": one}
    if "function" in options:
        function = options.pop("function")
        if not callable(function):
            raise ConfigError(f"{where}: expected a function, found {type(function).__name__}")
        path = f"{getattr(function, '__module__', '')}:{name_of(function).strip('<>')}"
        return _section({"kind": "function", "path": path, **options}, where), function
    if "model" in options:
        return _model(options, where, policy_tokenizer)
    return _section(options, where), None


def _model(
    given: Mapping[str, Any], where: str, policy_tokenizer: PreTrainedTokenizerBase
) -> tuple[RewardSection, Given | None]:
    options = dict(given)
    model, tokenizer = options.pop("model"), options.pop("tokenizer", None)
    if isinstance(model, str | Path):
        return _section({"kind": "model", "path": str(model), **options}, where), None
    if not isinstance(model, PreTrainedModel):
        raise ConfigError(
            f"{where}: expected a sequence classifier of transformers, found {type(model).__name__} - merge "
            "an adapter first (merge_and_unload)"
        )
    tokenizer = read_tokenizer(resolve(str(tokenizer))) if isinstance(tokenizer, str | Path) else tokenizer
    path = name_of_model(model) or type(model).__name__
    loaded = Loaded(model, classifier_tokenizer(model, tokenizer, policy_tokenizer, where))
    return _section({"kind": "model", "path": path, **options}, where), loaded


def _section(given: Mapping[str, Any], where: str) -> RewardSection:
    try:
        section: RewardSection = _SECTION.validate_python(given)
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()]
        raise ConfigError("\n".join(f"{where}: {problem}" for problem in problems)) from None
    return section


def _code_digest(function: object) -> str:
    """Return a sha256 of a function's source, or its name where that cannot be read."""
    try:
        text = inspect.getsource(
            function if inspect.isroutine(function) or isinstance(function, type) else type(function)
        )
    except (OSError, TypeError):
        text = name_of(function)
    return hashlib.sha256(text.encode()).hexdigest()
