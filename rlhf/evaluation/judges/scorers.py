"""Judges that score single responses: rewards as in PPO, by name, and the reward model."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from rlhf.config.judges import PROXY
from rlhf.config.rewards import RewardSection
from rlhf.data.records import Prompt
from rlhf.evaluation.respond import Response
from rlhf.fetch import resolve
from rlhf.rewards.component import Component, GuardedReward
from rlhf.rewards.kinds.model import Loaded, ModelReward
from rlhf.rewards.protocol import Episode
from rlhf.stage.rewards import Given, components

Floats = NDArray[np.float64]


class Scorers:
    """Asks rewards about responses; what a reward's options say about failures holds here too."""

    def __init__(self, judges: Sequence[Component]) -> None:
        """Take the rewards; their names are those of the judges."""
        self._judges = {each.name: (GuardedReward(each), each) for each in judges}

    @property
    def names(self) -> list[str]:
        """The names of the judges."""
        return list(self._judges)

    def score(self, name: str, prompts: Sequence[Prompt], responses: Sequence[Response]) -> Floats:
        """Return one judge's score of each response [R]: times its weight, clipped; NaN where it gives none.

        Raises:
            RlhfError: the judge failed, and its options say `stop`.
        """
        guarded, judge = self._judges[name]
        episodes = [episode_of(prompt, response) for prompt, response in zip(prompts, responses, strict=True)]
        answer = guarded.answer(episodes)
        if answer.stop is not None:
            raise answer.stop
        scores = np.array([np.nan if each is None else each for each in answer.totals], dtype=np.float64)
        if answer.neutral and not np.isnan(scores).all():
            scores[sorted(answer.neutral)] = np.nanmean(scores)
        if judge.options.clip is not None:
            scores = np.clip(scores, -judge.options.clip, judge.options.clip)
        return np.asarray(scores * judge.weight)

    def scores(self, prompts: Sequence[Prompt], responses: Sequence[Response]) -> dict[str, Floats]:
        """Return every judge's scores by name."""
        return {name: self.score(name, prompts, responses) for name in self.names}

    def close(self) -> None:
        """Close the rewards."""
        for guarded, _ in self._judges.values():
            guarded.close()


def make_scorers(
    sections: Mapping[str, RewardSection],
    reward_model: str | Loaded | None,
    tokenizer: PreTrainedTokenizerBase,
    *,
    dtype: torch.dtype,
    device: torch.device,
    given: Mapping[str, Given] = MappingProxyType({}),
) -> Scorers:
    """Build the judges that score single responses; the reward model that training used is the last.

    Args:
        sections: named rewards.
        reward_model: directory or name of the reward model, or a loaded one; None where there is none.
        tokenizer: of the policies.
        dtype: compute type of reward models.
        device: where they run.
        given: functions and classifiers in memory, by the name of their section.

    Raises:
        ConfigError: one of them cannot be built.
    """
    by_place = {place: given[name] for place, name in enumerate(sections) if name in given}
    made = components(list(sections.values()), tokenizer, dtype=dtype, device=device, given=by_place)
    judges = [each._replace(name=name) for name, each in zip(sections, made, strict=True)]
    if reward_model is not None:
        loaded = None if isinstance(reward_model, str) else reward_model
        path = resolve(reward_model) if isinstance(reward_model, str) else "reward_model"
        proxy = ModelReward(path, tokenizer, dtype=dtype, device=device, loaded=loaded)
        judges.append(Component(proxy, name=PROXY))
    return Scorers(judges)


def episode_of(prompt: Prompt, response: Response) -> Episode:
    """Return what a reward reads."""
    return Episode(
        prompt=prompt.raw,
        completion=response.text,
        columns=prompt.columns,
        prompt_ids=prompt.ids,
        response_ids=response.ids,
    )
