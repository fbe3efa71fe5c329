"""Checks of the rewards: an episode's score does not depend on its batch, and the scale suits the KL penalty."""

import statistics
from collections.abc import Sequence

import torch
from torch import Tensor

from rlhf.doctor.finding import Finding, graded
from rlhf.doctor.rounding import rounding_unit
from rlhf.doctor.trial import Trial
from rlhf.doctor.verdicts import Verdict, totals
from rlhf.errors import RewardError
from rlhf.ppo.run.assembly import PPORun
from rlhf.ppo.scoring.running_scale import EQUAL_SHARE
from rlhf.rewards.kinds.model import ModelReward
from rlhf.rewards.protocol import Episode, Reward

NUM_ALONE = 4
"""Episodes that are scored alone."""
TYPICAL_KL = 10.0
"""Nats per sequence at which PPO on language models commonly ends (Ziegler et al. 2019, arXiv:1909.08593, 6 to 10)."""
DROWNS = 10.0
"""A penalty of more than this many standard deviations of the scores drowns them."""
NOTHING = 0.01
"""A penalty below this share of a standard deviation has no effect."""
FLOOR = 1e-4
"""Share of a score that the libraries behind a reward may lose to rounding."""


def same_score(verdicts: Sequence[Verdict], trial: Trial) -> list[Finding]:
    """Score episodes alone, in a batch, in the reversed batch, and with other padding; one finding per reward."""
    return [_same_score(verdict, trial.collected.episodes) for verdict in verdicts]


def scale_fits(parts: PPORun, trial: Trial) -> Finding:
    """The scores differ, by an amount that the KL penalty neither drowns nor is lost in."""
    config = parts.trainer.config
    rollout = trial.experience.rollout
    # Episodes that a reward dropped have no score.
    kept = rollout.response_mask.any(1).nonzero().flatten().tolist()
    raw, scores = [trial.collected.raw_scores[row] for row in kept], rollout.episode_scores()[kept].tolist()
    spread, shaped = statistics.pstdev(raw), statistics.pstdev(scores)
    typical = config.kl_control.target if config.kl_control.controller == "adaptive" else TYPICAL_KL
    penalty = config.kl_coef * typical
    are_equal = min(spread, shaped) <= EQUAL_SHARE * max(abs(statistics.fmean(raw)), 1.0)
    warning = ""
    if penalty > DROWNS * shaped:
        warning = "the penalty drowns the scores: the policy will stay where it is - lower kl_coef, or scale the reward"
    elif 0 < penalty < NOTHING * shaped:
        warning = "the penalty is lost in the scores: nothing holds the policy near the reference - raise kl_coef"
    return graded(
        "reward scale",
        f"scores have mean {statistics.fmean(scores):.3g} and standard deviation {shaped:.3g}, kl_coef x {typical:g} "
        f"nats is {penalty:.3g}",
        failing=f"all {len(raw)} scores are equal: there is nothing to learn from - look at the reward, at its "
        "inputs, and at score.clip; a reward that the policy never earns needs demonstrations, see docs/resets.md"
        if are_equal
        else "",
        warning=warning,
    )


def _same_score(verdict: Verdict, episodes: Sequence[Episode]) -> Finding:
    name, reward, together = f"same score, {verdict.name}", verdict.reward, verdict.scores
    if isinstance(together, RewardError):
        return _failed(name, together)
    try:
        turned = totals(reward.score(episodes[::-1]))[::-1]
    except RewardError as error:
        return _failed(name, error)
    try:
        alone = [totals(reward.score([episode]))[0] for episode in episodes[:NUM_ALONE]]
    except RewardError as error:
        return Finding(name, "warning", "a batch of one failed", f"{error}; the last batch may be that small")
    apart = max(_apart(turned, together), _apart(alone, together))
    content = _apart_by_padding(reward, episodes) if isinstance(reward, ModelReward) else 0.0
    limit = _limit(reward) * max(1.0, *map(abs, together))
    measured = f"alone, in a batch and in another order at most {apart:.2g} apart (limit {limit:.2g})"
    if not isinstance(reward, ModelReward):
        advice = "the score of an episode depends on the others, or on chance: PPO compares scores across batches"
        return graded(name, measured, warning=advice if not apart <= limit else "")
    return graded(
        name,
        f"{measured}, with other padding {content:.2g}",
        failing="the model reads its padding: its attention is not causal, or it pools over all positions - use a "
        "model that is read at its last token"
        if not (apart <= limit and content == 0.0)
        else "",
    )


def _failed(name: str, error: RewardError) -> Finding:
    return Finding(name, "warning", "it failed", f"{error}; on_error and on_nan decide what a run does then")


@torch.no_grad()
def _apart_by_padding(reward: ModelReward, episodes: Sequence[Episode]) -> float:
    """Score texts with different padding in tensors of the same shape: the scores must not differ at all."""
    device = reward.model.classifier.device
    rows = [_ids(reward, episode) for episode in episodes[:NUM_ALONE]]
    width = max(map(len, rows)) + 1
    lengths = torch.tensor([len(row) for row in rows], device=device)
    mask = torch.arange(width, device=device) < lengths[:, None]
    fillers = {int(reward.tokenizer.pad_token_id), rows[0][0], rows[0][-1]}
    scores: list[Tensor] = []
    for filler in fillers:
        ids = torch.tensor([[*row, *[filler] * (width - len(row))] for row in rows], device=device)
        scores.append(reward.model(ids, mask))
    return max(float((other - scores[0]).abs().max()) for other in scores)


def _ids(reward: ModelReward, episode: Episode) -> list[int]:
    """Return an episode's text as ids of the model's own tokenizer; ids are enough to test padding."""
    text = episode.prompt if isinstance(episode.prompt, str) else ""
    return list(reward.tokenizer(text + episode.completion + reward.tokenizer.eos_token)["input_ids"])


def _limit(reward: Reward) -> float:
    """Return by what share of itself rounding may change a score."""
    return max(rounding_unit(reward.model.classifier), FLOOR) if isinstance(reward, ModelReward) else FLOOR


def _apart(some: Sequence[float], together: Sequence[float]) -> float:
    return max(abs(a - b) for a, b in zip(some, together, strict=False))
