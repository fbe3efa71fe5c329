import pytest

from rlhf.lab.language_model.phrase_report import Outcome, figure, finding, table, wilson
from rlhf.lab.language_model.phrase_task import Task


def outcome(found, num=10, steps=((8, 0), (8, 4))):
    return Outcome(at_prompts=list(steps), num_decoded=100, num_judged=num, num_solved=found, probability=1e-6)


def test_the_interval_of_a_share_is_wilsons():
    # 5 of 10: centre (0.5 + 3.8415 / 20) / 1.38415 = 0.5, half 1.96 / 1.38415 * sqrt(0.025 + 3.8415 / 400) = 0.2634.
    found = wilson(5, 10)
    assert (found.value, found.low, found.high) == pytest.approx((0.5, 0.2366, 0.7634), abs=1e-4)
    # 0 of n: from 0 to z^2 / (n + z^2).
    assert wilson(0, 10).low == 0.0 and wilson(0, 10).high == pytest.approx(3.8415 / 13.8415, abs=1e-4)
    assert wilson(10, 10).high == pytest.approx(1.0)
    with pytest.raises(ValueError, match="found 3 of 2"):
        wilson(3, 2)


def test_the_page_pools_seeds_and_says_how_many_each_arm_solves():
    task = Task(steps=8, batch=8, seeds=2)
    low = ((8, 0),) * 8
    rising = ((8, 0),) * 4 + ((4, 4),) * 4
    runs = {
        "plain PPO": [outcome(0, 100, low)] * 2,
        "cloning, then PPO": [outcome(90, 100, rising), outcome(80, 100, rising)],
        "PPO with resets": [outcome(70, 100, rising)] * 2,
    }
    solved = "plain PPO solves 0 of 2; cloning, then PPO solves 2 of 2; PPO with resets solves "
    assert solved + "2 of 2" in finding(runs, task)
    one = [outcome(91, 100, rising), outcome(40, 100, rising)]
    assert solved + "1 of 2" in finding({**runs, "PPO with resets": one}, task)
    rows = {row[0]: row[1:] for row in table(runs, task).rows}
    assert rows["cloning, then PPO"][1].startswith("85.0%") and rows["cloning, then PPO"][2] == "90%, 80%"
    assert rows["plain PPO"][3] == "never, never" and rows["PPO with resets"][3] == "32, 32"
    curve = figure(runs, task).curves[1]
    assert curve.x == [12.0, 44.0] and curve.y == [0.0, 1.0]
