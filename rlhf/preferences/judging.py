"""One judge, from its section: it scores answers, or says which of two is better."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from rlhf.config.judges import EMBEDDING, GOLD, OpenAIJudgeSection
from rlhf.config.preferences import GoldJudgeSection, JudgedConfig, ScoringSection
from rlhf.config.rewards import ClassifierSection, EnsembleRewardSection, ModelRewardSection
from rlhf.errors import ConfigError
from rlhf.evaluation.judges.human_labels import train_embedding_judge, train_gold_judge
from rlhf.evaluation.judges.pairwise import ChatJudge
from rlhf.evaluation.judges.scorers import Scorers, make_scorers
from rlhf.evaluation.readers import Readers, request, whole_words
from rlhf.fetch import resolve
from rlhf.models.pretrained.tokenizer import load_tokenizer
from rlhf.preferences.answers import Written
from rlhf.rewards.kinds.classifier import reads_tokens
from rlhf.training.precision import compute_dtype

Floats = NDArray[np.float64]

JUDGE = "judge"
"""The name of the judge in messages, which is its key."""
_MAX_TOKENS = 2048
"""Padded tokens of one forward pass of a sentence encoder."""


@dataclass(frozen=True, slots=True)
class ScoringJudge:
    """Gives single answers a number."""

    judge: Readers | Scorers
    name: str
    batch_rows: int

    def scores(self, answers: Sequence[Written]) -> Floats:
        """Return the score of each answer [N], `batch_rows` at a time; NaN where the judge gives none.

        Raises:
            RlhfError: the judge failed.
        """
        found = [np.zeros(0)]
        for start in range(0, len(answers), self.batch_rows):
            some = answers[start : start + self.batch_rows]
            scores = self.judge.score(self.name, [each.prompt for each in some], [each.response for each in some])
            assert scores is not None
            found.append(scores)
        return np.concatenate(found)

    def distinct_scores(self, answers: Sequence[Written]) -> Floats:
        """Return the same, each distinct answer scored once."""
        keys = [answer.key for answer in answers]
        distinct = dict(zip(keys, answers, strict=True))
        places = {key: place for place, key in enumerate(distinct)}
        return self.scores(list(distinct.values()))[[places[key] for key in keys]]


@contextmanager
def scoring_judge(
    section: ScoringSection, settings: JudgedConfig, tokenizer: PreTrainedTokenizerBase | None
) -> Iterator[ScoringJudge]:
    """Make a judge that scores, and close it afterwards.

    Args:
        section: of the judge.
        settings: what it computes in, and how many answers it reads at once.
        tokenizer: as `tokenizer_for` returned it.

    Raises:
        RlhfError: it cannot be made.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if isinstance(section, GoldJudgeSection):
        yield _gold(section, settings, device)
        return
    assert tokenizer is not None
    dtype = compute_dtype(settings.precision, device)
    scorers = make_scorers({JUDGE: section}, None, tokenizer, dtype=dtype, device=device)
    try:
        yield ScoringJudge(scorers, JUDGE, settings.batch_rows)
    finally:
        scorers.close()


def tokenizer_for(
    section: ScoringSection | OpenAIJudgeSection, settings: JudgedConfig
) -> PreTrainedTokenizerBase | None:
    """Return the tokenizer with which a judge's answers are read; None for a judge that reads text alone.

    Raises:
        ConfigError: it cannot be loaded, or nothing says which it is.
    """
    if settings.tokenizer is not None:
        return load_tokenizer(resolve(settings.tokenizer), **settings.chat)
    if isinstance(section, GoldJudgeSection | OpenAIJudgeSection):
        return None
    for model in _models_of(section):
        if model.label is None and reads_tokens(resolve(model.path)):
            return load_tokenizer(resolve(model.path), **settings.chat)
    raise ConfigError(
        f"tokenizer: a judge of kind {section.kind} has none that reads answers as their writer did - name the model "
        "that wrote them: tokenizer=runs/mine/ppo/policy"
    )


def preferences_of_pairs(section: OpenAIJudgeSection, first: Sequence[Written], second: Sequence[Written]) -> Floats:
    """Return what a judge of pairs prefers [N]: 1 the first, 0 the second, 1/2 a tie, as where its orders disagree.

    Raises:
        RlhfError: the judge failed.
    """
    judge = ChatJudge(JUDGE, section)
    said = judge.compare(
        [request(each.prompt) for each in first],
        [whole_words(each.response) for each in first],
        [whole_words(each.response) for each in second],
    )
    if said.num_unreadable:
        print(f"{JUDGE}: {said.num_unreadable} replies name no winner, and count as ties", flush=True)
    return said.preferences


def _models_of(section: ScoringSection) -> Sequence[ClassifierSection]:
    if isinstance(section, EnsembleRewardSection):
        return section.models
    return [section] if isinstance(section, ModelRewardSection) else []


def _gold(section: GoldJudgeSection, settings: JudgedConfig, device: torch.device) -> ScoringJudge:
    embeddings = section.embeddings
    readers = Readers(
        gold=train_gold_judge(section) if embeddings is None else None,
        embeddings=None if embeddings is None else train_embedding_judge(section, embeddings, device, _MAX_TOKENS),
        fluency=None,
        max_tokens=_MAX_TOKENS,
    )
    return ScoringJudge(readers, GOLD if embeddings is None else EMBEDDING, settings.batch_rows)
