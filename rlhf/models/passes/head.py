"""Logprobs and entropies at chosen positions, straight from hidden states and the vocabulary head."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
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
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, scale: float, with_entropy: bool, keeps_logits: bool
    ) -> tuple[Tensor, Tensor]:
        kept, found = [], []
        for states, ids in zip(hidden.split(LOGIT_CHUNK), targets.split(LOGIT_CHUNK), strict=True):
            products = nn.functional.linear(states, weight)
            kept += [products] if keeps_logits else []
            found.append(_read(products, ids, scale, with_entropy))
        logprobs, spread, normaliser = (torch.cat(parts) for parts in zip(*found, strict=True))
        if keeps_logits:
            ctx.save_for_backward(hidden, weight, targets, normaliser, spread, *kept)
            ctx.scale, ctx.with_entropy = scale, with_entropy
        return logprobs, spread

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, targets, normaliser, spread, *kept = ctx.saved_tensors
        grad_hidden = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        # Sums over many chunks would lose digits in bfloat16.
        sum_type = weight.dtype if len(kept) < 2 else torch.promote_types(weight.dtype, torch.float32)
        grad_weight = torch.zeros_like(weight, dtype=sum_type) if ctx.needs_input_grad[1] else None
        for index, products in enumerate(kept):
            rows = slice(index * LOGIT_CHUNK, index * LOGIT_CHUNK + len(products))
            by_entropy = grads[1][rows] if ctx.with_entropy else None
            found = (spread[rows], normaliser[rows])
            grad_products = _gradient(products, targets[rows], found, (grads[0][rows], by_entropy), ctx.scale)
            if grad_hidden is not None:
                grad_hidden[rows] = grad_products @ weight
            if grad_weight is not None and sum_type == products.dtype:
                grad_weight.addmm_(grad_products.T, hidden[rows])
            elif grad_weight is not None:
                grad_weight += grad_products.T @ hidden[rows]
        return grad_hidden, None if grad_weight is None else grad_weight.to(weight.dtype), None, None, None, None


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
    """Return the gradient by logits [N, V] from what `_read` found, entropies and normalisers, and theirs."""
    if has_kernels(products):
        by_logprob, by_entropy = grads
        both = (by_logprob.contiguous(), None if by_entropy is None else by_entropy.contiguous())
        return logits_gradient(products, targets.contiguous(), found, both, scale)
    grad_products, (spread, normaliser) = torch.empty_like(products), found
    for here in _slices(products):
        log_p = (products[here].float() * scale).sub_(normaliser[here, None])
        p = log_p.exp()
        grad = p * -grads[0][here, None]
        grad.scatter_add_(-1, targets[here, None], grads[0][here, None])
        if grads[1] is not None:
            grad -= grads[1][here, None] * p * (log_p + spread[here, None])
        grad_products[here] = grad.mul_(scale)
    return grad_products


def _slices(products: Tensor) -> list[slice]:
    size = slice_size(products)
    return [slice(first, first + size) for first in range(0, len(products), size)]
