"""One token from each row of logits: by inverting the cumulative distribution, or the most probable one."""

from dataclasses import dataclass

import torch
from torch import Tensor

BLOCK = 256
"""Tokens summed together: about the square root of a vocabulary, so that both searches are short."""

FLOAT64_DIGITS = 53
"""Integers of so many binary digits are exact in float64."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """One token for each row."""

    ids: Tensor
    """[B] int64."""
    logprobs: Tensor
    """[B] float32, nats; not finite where the row of logits holds NaN or +inf, or only -inf."""


def draw_tokens(logits: Tensor, uniforms: Tensor, temperature: float) -> Draw:
    """Draw from softmax(logits / temperature) the token whose interval of the cumulative sum holds the uniform number.

    id = min { i : w_0 + ... + w_i > u * sum(w) },  w = exp((logits - max) / temperature)

    `torch.multinomial` draws an exponential number for each token of the vocabulary; this needs one number per row. The
    sum has two levels: over blocks of the vocabulary, then inside the one block that holds the token. That reads the
    weights once and never sums more than `BLOCK` numbers in float32, so that the many improbable tokens at the end of a
    vocabulary are not lost to rounding. A token of weight 0 is never drawn.

    Args:
        logits: [B, V].
        uniforms: [B] float64 in [0, 1), on the device of the logits.
        temperature: above 0.
    """
    num_rows, vocab_size = logits.shape
    padded_size = -(-vocab_size // BLOCK) * BLOCK
    # One float32 buffer, changed in place: at 64 rows of 49152 tokens, fresh memory costs more than the arithmetic.
    buffer = torch.empty(num_rows, padded_size, dtype=torch.float32, device=logits.device)
    buffer[:, vocab_size:] = 0.0
    weights = buffer[:, :vocab_size].copy_(logits).div_(temperature)
    largest = weights.amax(-1, keepdim=True)
    weights.sub_(largest).exp_()
    blocks = buffer.view(num_rows, -1, BLOCK)
    cumulative = cumulated(blocks.sum(-1), padded_size)
    total = cumulative[:, -1:]
    block, before = _invert(cumulative, uniforms[:, None] * total)
    inside = cumulated(blocks.gather(1, block[:, :, None].expand(-1, -1, BLOCK))[:, 0], padded_size)
    offset, _ = _invert(inside, uniforms[:, None] * total - before)
    ids = (block * BLOCK + offset).clamp(max=vocab_size - 1)  # a row of NaN; the caller finds it by its logprob
    logprobs = logits.gather(-1, ids).float() / temperature - largest - total.log().float()
    return Draw(ids=ids[:, 0], logprobs=logprobs[:, 0])


def cumulated(weights: Tensor, vocab_size: int) -> Tensor:
    """Return the cumulative sums of weights [B, N] float32, each at most 1 a token, as float64.

    On CUDA the order of a sum of floating-point numbers changes from run to run; that of integers does not matter.
    There weights are rounded to multiples of a power of 2, so small that the sum over a vocabulary just fits into an
    integer that float64 holds.
    """
    if weights.device.type != "cuda":
        return weights.double().cumsum(-1)
    scale = 2.0 ** (FLOAT64_DIGITS - vocab_size.bit_length())
    return weights.double().mul_(scale).round_().long().cumsum(-1).double().div_(scale)


def most_probable_tokens(logits: Tensor) -> Draw:
    """Take the most probable token of each row of `logits` [B, V]; its logprob is the one at temperature 1."""
    scaled = logits.float()
    ids = scaled.argmax(-1, keepdim=True)
    logprobs = scaled.gather(-1, ids) - scaled.logsumexp(-1, keepdim=True)
    return Draw(ids=ids[:, 0], logprobs=logprobs[:, 0])


def _invert(cumulative: Tensor, threshold: Tensor) -> tuple[Tensor, Tensor]:
    """Return the first index [B, 1] whose cumulative sum is above the threshold, and the sum before that index."""
    # A threshold that was rounded up to the total would lie above every sum, or reach an entry of weight 0.
    below_total = torch.nextafter(cumulative[:, -1:], cumulative.new_zeros(()))
    index = torch.searchsorted(cumulative, torch.minimum(threshold, below_total), right=True)
    index = index.clamp(max=cumulative.shape[-1] - 1)  # a row of NaN again
    before = torch.where(index > 0, cumulative.gather(-1, (index - 1).clamp(min=0)), 0.0)
    return index, before
