"""Warnings about a PPO step that looks wrong although nothing failed, each given once."""

from collections.abc import Mapping

from rlhf.ppo.scoring.running_scale import EQUAL_SHARE

LARGE_SCORE = 100.0
"""Scores are usually of the order of 1; far above that, the value loss dwarfs everything else."""


class StepWarnings:
    """Turns metrics into warnings, each at most once a run."""

    def __init__(self) -> None:
        """Start with no warnings given."""
        self._said: set[str] = set()

    def warnings(self, metrics: Mapping[str, float]) -> list[str]:
        """Return the warnings that were not given before."""
        signs = {
            "no response of this step ended: raise sampling.max_new_tokens, or check the EOS token": (
                metrics["val/share_ended"] == 0
            ),
            "all scores of this step are equal: the reward gives nothing to learn from": (
                metrics["objective/scores_std"] < EQUAL_SHARE * max(abs(metrics["objective/scores"]), 1.0)
            ),
            f"scores are larger than {LARGE_SCORE:g} on average: set score.clip or score.normalise": (
                max(abs(metrics["objective/scores"]), metrics["objective/scores_std"]) > LARGE_SCORE
            ),
        }
        new = [line for line, holds in signs.items() if holds and line not in self._said]
        self._said.update(new)
        return [f"warning: {line}" for line in new]
