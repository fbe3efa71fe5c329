import torch

from rlhf.oracle.chain import ADVANCE, NUM_ACTIONS, chain
from rlhf.oracle.exact import policy_gradient, solve


def test_chance_meets_the_reward_with_probability_3_to_the_minus_h():
    for length in (1, 4, 12):
        uniform = torch.zeros(length, NUM_ACTIONS, dtype=torch.float64)
        assert abs(float(solve(chain(length), uniform).objective) - 3.0**-length) < 1e-15


def test_the_gradient_vanishes_exponentially_and_a_start_along_the_chain_mends_that():
    length = 12
    uniform = torch.zeros(length, NUM_ACTIONS, dtype=torch.float64)
    everywhere = torch.full((length,), 1 / length, dtype=torch.float64)
    from_the_first = policy_gradient(chain(length), uniform).norm()
    from_anywhere = policy_gradient(chain(length, everywhere), uniform).norm()
    # d J / d logit at uniform: J * (1 - 1/3) on the right action, - J / 3 on the others
    assert abs(float(from_the_first) - 3.0**-length * (length * 6 / 9) ** 0.5) < 1e-15
    assert float(from_anywhere) > 0.9 * (6 / 9) ** 0.5 / (3 * length), "the last state alone gives this much"


def test_the_right_action_everywhere_brings_the_whole_reward():
    logits = torch.full((5, NUM_ACTIONS), -50.0, dtype=torch.float64)
    logits[:, ADVANCE] = 0.0
    solution = solve(chain(5), logits)
    torch.testing.assert_close(solution.values, torch.ones(5, dtype=torch.float64))
    torch.testing.assert_close(solution.advantages[:, 1:], -torch.ones(5, 2, dtype=torch.float64))
