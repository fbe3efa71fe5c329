"""What the proofs share: processes small enough to enumerate, each with a policy and a critic."""

import torch

from rlhf.oracle.chain import chain
from rlhf.oracle.language import tiny_language
from rlhf.oracle.process import random_logits, random_process
from rlhf.oracle.trajectories import enumerate_trajectories

ACCURACY = 1e-8
"""Asked for; float64 sums of some thousand terms of size 1 are good to about 1e-13."""


def processes():
    return [
        chain(4),
        random_process(3, 3, 2, torch.Generator().manual_seed(0)),
        tiny_language(4, 4, torch.Generator().manual_seed(1)).process,
    ]


def cases():
    """Each process with a policy, a critic that is wrong everywhere, and all its trajectories."""
    seeds = torch.Generator().manual_seed(2)
    for process in processes():
        logits = random_logits(process, seeds)
        critic = torch.randn(process.num_states, dtype=torch.float64, generator=seeds)
        yield process, logits, critic, enumerate_trajectories(process)


def assert_equal(found, expected, accuracy=ACCURACY):
    assert float((found - expected).abs().max()) < accuracy
    assert float(expected.abs().max()) > 1e-4, "there is something to find"
