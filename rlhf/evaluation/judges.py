"""The judges of a comparison: the gold judge and the reward model."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from rlhf.config.evaluate import GoldSection
from rlhf.config.shared import DataSection
from rlhf.data.records import Prompt
from rlhf.errors import DataError
from rlhf.evaluation.gold import GoldJudge
from rlhf.evaluation.respond import Policy, Response
from rlhf.fetch import resolve
from rlhf.rewards.kinds.model import Loaded, ModelReward
from rlhf.rewards.protocol import Episode
from rlhf.stage import load_rows


def train_gold_judge(section: GoldSection) -> GoldJudge:
    """Fit the gold judge, and print the share of held-out human texts on which it agrees with the author.

    Raises:
        DataError: a row lacks text or label, the two files share a text, or all labels are the same.
        ConfigError: scikit-learn is not installed.
    """
    print("gold judge: fitting on human labels that no training stage has seen", flush=True)
    texts, labels = _labelled(section.train, section.limit)
    heldout, truth = _labelled(section.heldout, section.limit)
    penalties = {"fluency_penalty": section.fluency_penalty, "repetition_penalty": section.repetition_penalty}
    try:
        judge = GoldJudge.train(texts, labels, heldout, **penalties)
    except ValueError as problem:
        raise DataError(f"gold: {section.train} and {section.heldout}: {problem}") from problem
    right = float(np.mean(judge.verdict(heldout) == np.array(truth, dtype=bool)))
    print(f"gold judge: agrees with the author on {right:.1%} of {len(heldout)} held-out human texts", flush=True)
    return judge


def reward_scores(
    reward_model: str | Loaded,
    policy: Policy,
    prompts: Sequence[Prompt],
    responses: Sequence[Response],
    dtype: torch.dtype,
) -> NDArray[np.float64]:
    """Return the reward model's score of each response [N].

    Raises:
        ConfigError: no reward model can be loaded from the path.
        RewardError: a score is not finite, or a sequence is longer than the model has positions for.
    """
    loaded = None if isinstance(reward_model, str) else reward_model
    path = resolve(reward_model) if isinstance(reward_model, str) else "reward_model"
    judge = ModelReward(path, policy.tokenizer, dtype=dtype, device=policy.model.device, loaded=loaded)
    episodes = [_episode(prompt, response) for prompt, response in zip(prompts, responses, strict=True)]
    return np.array(judge.score(episodes))


def _labelled(path: str, limit: int | None) -> tuple[list[str], list[int]]:
    rows = list(load_rows(DataSection(path=path, limit=limit)))
    for row in rows:
        if not isinstance(row.values.get("text"), str) or row.values.get("label") not in (0, 1):
            raise DataError(f"{row.location}: a row of the gold judge needs text (a string) and label (0 or 1)")
    return [str(row.values["text"]) for row in rows], [int(row.values["label"]) for row in rows]


def _episode(prompt: Prompt, response: Response) -> Episode:
    return Episode(
        prompt=prompt.raw,
        completion=response.text,
        columns=prompt.columns,
        prompt_ids=prompt.ids,
        response_ids=response.ids,
    )
