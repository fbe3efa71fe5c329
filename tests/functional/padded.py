"""Eight responses of one to six tokens, and random numbers for the losses over them."""

import torch

LENGTHS = torch.tensor([[6], [1], [4], [2], [6], [3], [5], [1]])
MASK = torch.arange(6) < LENGTHS
NUM_TOKENS = int(LENGTHS.sum())


def random_tensor(seed, dtype=torch.float32):
    """Numbers [8, 6] of a normal distribution."""
    return torch.randn(8, 6, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def policy_case(dtype=torch.float32):
    """Logprobs, old logprobs and advantages, far enough apart that some ratios are clipped."""
    old = -random_tensor(0, dtype).abs()
    return old + 0.3 * random_tensor(1, dtype), old, random_tensor(2, dtype)


def value_case(dtype=torch.float32):
    """Values, old values and returns, far enough apart that some changes are clipped."""
    old = random_tensor(0, dtype)
    return old + 0.3 * random_tensor(1, dtype), old, old + random_tensor(2, dtype)


def next_token_case(dtype=torch.float32):
    """Logprobs."""
    return (-random_tensor(0, dtype).abs(),)
