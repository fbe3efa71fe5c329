"""Warnings about a PPO step that works but looks wrong."""

import pytest

from rlhf.ppo.run.step_warnings import StepWarnings

HEALTHY = {"val/share_ended": 0.5, "objective/scores": 0.3, "objective/scores_std": 1.0}


def test_a_healthy_step_is_not_warned_about() -> None:
    assert StepWarnings().warnings(HEALTHY) == []


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"val/share_ended": 0.0}, "ended"),
        ({"objective/scores_std": 0.0}, "equal"),
        ({"objective/scores": -1e6}, "score.clip"),
        ({"objective/scores_std": 1e6}, "score.clip"),
    ],
)
def test_each_sign_is_warned_about_once(change: dict[str, float], word: str) -> None:
    step_warnings = StepWarnings()
    (line,) = step_warnings.warnings(HEALTHY | change)
    assert line.startswith("warning: ")
    assert word in line
    assert step_warnings.warnings(HEALTHY | change) == []
