import dataclasses

import pytest
import torch

from rlhf.oracle.process import random_logits, random_process


def build():
    return random_process(3, 2, 3, torch.Generator().manual_seed(0))


def test_a_random_process_moves_on_one_step_at_a_time_and_ends():
    process = build()
    assert (process.num_states, process.num_actions) == (6, 3)
    leaving = process.transitions.sum(-1)
    torch.testing.assert_close(leaving[:4], torch.ones(4, 3, dtype=torch.float64))
    assert not leaving[4:].any()
    assert (process.transitions[:2, :, 2:4] > 0).all() and not process.transitions[:2, :, 4:].any()
    assert process.start[2:].tolist() == [0.0] * 4
    assert random_logits(process, torch.Generator()).shape == (6, 3)


def test_the_generator_decides():
    again, other = build(), random_process(3, 2, 3, torch.Generator().manual_seed(1))
    assert torch.equal(build().rewards, again.rewards) and not torch.equal(again.rewards, other.rewards)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("start", lambda t: t[:-1], r"start must be \[6\], found \[5\]"),
        ("start", lambda t: 2 * t, r"start must add up to 1, found 2"),
        ("rewards", lambda t: t.float(), r"must be float64"),
        ("transitions", lambda t: t * 0.5, r"must add up to 1, or be all 0 where the episode ends"),
        ("transitions", lambda t: t.flip(2), r"must lead to a state of higher number"),
    ],
)
def test_what_is_no_process_is_refused(name, change, message):
    process = build()
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(process, **{name: change(getattr(process, name))})
