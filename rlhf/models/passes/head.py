"""Logprobs and entropies at chosen positions, straight from hidden states and the vocabulary head."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from rlhf.functional.logprobs import entropy, token_logprobs
from rlhf.kernels.library import has_kernels
from rlhf.kernels.passes import logits_gradient, read_logits
from rlhf.models.passes.anatomy import logit_shape, logits

LOGIT_CHUNK = 512
"""Positions that go through the head in one product: 512 x 49,152 bfloat16 are 50 MB."""
SLICE = 16
"""Positions converted to float32 at once on a CPU: 16 x 49,152 float32 are 3 MB, which stay in the cache."""


def head_logprobs(
    lm: PreTrainedModel, hidden: Tensor, targets: Tensor, temperature: float, *, with_entropy: bool = False
) -> tuple[Tensor, Tensor]:
    """Compute the logprobs of tokens, and the entropies of the distributions they come from.

    Args:
        lm: a causal language model; only its head is called.
        hidden: [N, H] hidden states that predict the tokens.
        targets: [N] int64, the tokens.
        temperature: logits are divided by it; above 0.
        with_entropy: also compute entropies.

    Returns:
        [N] logprobs and [N] entropies (zeros unless requested), float32, in nats.
    """
    head, (softcap, factor) = lm.get_output_embeddings(), logit_shape(lm)
    if type(head) is nn.Linear and head.bias is None and softcap is None:
        scale, keeps_logits = factor / temperature, torch.is_grad_enabled()
        return _LinearHead.apply(hidden, head.weight, targets, scale, with_entropy, keeps_logits)
    return autograd_logprobs(lm, hidden, targets, temperature, with_entropy=with_entropy)


def slice_size(hidden: Tensor) -> int:
    """Return how many positions are converted to float32 at once: on a GPU a whole chunk, in one call for each step."""
    return SLICE if hidden.device.type == "cpu" else LOGIT_CHUNK


def autograd_logprobs(
    lm: PreTrainedModel, hidden: Tensor, targets: Tensor, temperature: float, *, with_entropy: bool = False
) -> tuple[Tensor, Tensor]:
    """Do what `head_logprobs` does, for any head, by automatic differentiation.

    Logits are computed in chunks and recomputed in the backward pass, so memory does not grow with N.
    """

    def chunk(states: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        scores = logits(lm, states).float()
        spread = entropy(scores, temperature) if with_entropy else torch.zeros_like(scores[:, 0])
        return token_logprobs(scores, ids, temperature), spread

    saves_memory = len(hidden) > LOGIT_CHUNK and torch.is_grad_enabled()
    parts = [
        checkpoint(chunk, states, ids, use_reentrant=False) if saves_memory else chunk(states, ids)
        for states, ids in zip(hidden.split(LOGIT_CHUNK), targets.split(LOGIT_CHUNK), strict=True)
    ]
    return torch.cat([logprobs for logprobs, _ in parts]), torch.cat([spread for _, spread in parts])


class _LinearHead(Function):
    """log softmax(scale * W h)[target], and the entropy, keeping logits only in the dtype they are computed in.

    With z = scale * W h and p = softmax(z):
    d logprob / dz = onehot(target) - p,  d entropy / dz = -p (log p + entropy).
    The gradient takes the place of the logits, so it needs no memory, and W's is one product over all positions.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, scale: float, with_entropy: bool, keeps_logits: bool
    ) -> tuple[Tensor, Tensor]:
        kept, found = hidden.new_empty(len(hidden) if keeps_logits else 0, len(weight)), []
        for start in range(0, max(1, len(hidden)), LOGIT_CHUNK):
            rows = slice(start, start + LOGIT_CHUNK)
            place = kept[rows] if keeps_logits else None
            products = torch.mm(hidden[rows], weight.t(), out=place)
            found.append(_read(products, targets[rows], scale, with_entropy))
        logprobs, spread, normaliser = (torch.cat(parts) for parts in zip(*found, strict=True))
        if keeps_logits:
            ctx.save_for_backward(hidden, weight, targets, normaliser, spread, kept)
            ctx.scale, ctx.with_entropy, ctx.is_spent = scale, with_entropy, False
        return logprobs, spread

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.is_spent:
            raise RuntimeError("logprobs were passed backward twice: their logits are gone after the first time")
        ctx.is_spent = True
        hidden, weight, targets, normaliser, spread, kept = ctx.saved_tensors
        by_entropy = grads[1] if ctx.with_entropy else None
        by_logits = _gradient(kept, targets, (spread, normaliser), (grads[0], by_entropy), ctx.scale)
        by_hidden = by_logits @ weight if ctx.needs_input_grad[0] else None
        by_weight = by_logits.t() @ hidden if ctx.needs_input_grad[1] else None
        return by_hidden, by_weight, None, None, None, None


def _read(products: Tensor, targets: Tensor, scale: float, with_entropy: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return logprobs, entropies (zeros unless requested) and normalisers, [N] float32, of logits [N, V]."""
    if has_kernels(products):
        return read_logits(products, targets.contiguous(), scale, with_entropy=with_entropy)
    logprobs = torch.zeros(len(products), dtype=torch.float32, device=products.device)
    spread, normaliser = torch.zeros_like(logprobs), torch.zeros_like(logprobs)
    for here in _slices(products):
        z = products[here].float() * scale
        normaliser[here] = z.logsumexp(-1)
        logprobs[here] = z.gather(-1, targets[here, None]).squeeze(-1) - normaliser[here]
        if with_entropy:
            spread[here] = normaliser[here] - (z.softmax(-1) * z).sum(-1)
    return logprobs, spread, normaliser


def _gradient(
    products: Tensor, targets: Tensor, found: tuple[Tensor, Tensor], grads: tuple[Tensor, Tensor | None], scale: float
) -> Tensor:
    """Turn logits [N, V] into their gradient, in place, from what `_read` found and the gradients by that.

    Args:
        products: the logits.
        targets: [N] int64.
        found: entropies and normalisers, [N] float32.
        grads: by the logprobs and by the entropies, [N] float32; None for entropies that were not computed.
        scale: as for `_read`.

    Returns:
        `products`.
    """
    if has_kernels(products):
        by_logprob, by_entropy = grads
        both = (by_logprob.contiguous(), None if by_entropy is None else by_entropy.contiguous())
        return logits_gradient(products, targets.contiguous(), found, both, scale)
    spread, normaliser = found
    for here in _slices(products):
        log_p = (products[here].float() * scale).sub_(normaliser[here, None])
        p = log_p.exp()
        grad = p * -grads[0][here, None]
        grad.scatter_add_(-1, targets[here, None], grads[0][here, None])
        if grads[1] is not None:
            grad -= grads[1][here, None] * p * (log_p + spread[here, None])
        products[here] = grad.mul_(scale)
    return products


def _slices(products: Tensor) -> list[slice]:
    size = slice_size(products)
    return [slice(first, first + size) for first in range(0, len(products), size)]
