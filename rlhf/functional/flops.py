"""How many floating-point operations a pass of a transformer takes, from the sizes of its weight matrices.

A product of [N, I] with [I, O] weights is 2 N I O operations. Only what the computation needs counts: real tokens, the
causal half of the attention scores, logits where something is predicted. Norms, activations, softmax and embedding
lookups are left out, as usual (Kaplan et al. 2020, arXiv:2001.08361, table 1; Chowdhery et al. 2022,
arXiv:2204.02311, appendix B, which also counts the masked half of the scores).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrices:
    """Sizes of the matrix products in a model or a part of it."""

    trunk: int
    """Weights that multiply every token."""
    scores: int
    """Width of the queries, heads x head size, summed over blocks; multiplies every pair of attending tokens."""
    head: int
    """Weights that multiply every predicting position: those of the LM head, the value head or the scalar head."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelMatrices:
    """The matrices of a model, grouped by what a pass does with them."""

    used: Matrices
    """Multiplied in a forward pass."""
    crossed: Matrices
    """Of `used`: those that the backward pass goes through, to the gradients of their inputs."""
    trained: Matrices
    """Of `used`: those that get a gradient; for scores, where both factors are activations, the same as `crossed`."""

    @property
    def above_frozen(self) -> "ModelMatrices":
        """The matrices of a pass that starts from the hidden states that enter the lowest trained block."""
        kept = Matrices(trunk=self.crossed.trunk, scores=self.crossed.scores, head=self.used.head)
        return replace(self, used=kept)


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """How much a model reads."""

    tokens: int
    """Real tokens."""
    pairs: int
    """Pairs of a token and one that it attends to, itself included."""
    predictions: int
    """Positions at which the head is applied."""

    def __add__(self, other: "Work") -> "Work":
        """Return both together."""
        return Work(
            tokens=self.tokens + other.tokens,
            pairs=self.pairs + other.pairs,
            predictions=self.predictions + other.predictions,
        )


def causal_work(lengths: Sequence[int], predictions: int) -> Work:
    """Return the work of sequences of `lengths` real tokens, each token attending to itself and all before it.

    The work is the same whether the tokens are read at once or one by one with a cache.
    """
    return Work(
        tokens=sum(lengths), pairs=sum(length * (length + 1) // 2 for length in lengths), predictions=predictions
    )


def sampling_work(distinct_prompts: Sequence[int], prompts: Sequence[int], responses: Sequence[int]) -> Work:
    """Return the work of sampling with a cache: equal prompts are read once, the last token of a response never.

    Args:
        distinct_prompts: tokens of each distinct prompt.
        prompts: tokens of the prompt of each response.
        responses: tokens of each response, at least 1.
    """
    first = causal_work(distinct_prompts, len(distinct_prompts))
    steps = [step for start, num in zip(prompts, responses, strict=True) for step in range(start, start + num - 1)]
    return Work(
        tokens=first.tokens + len(steps),
        pairs=first.pairs + sum(step + 1 for step in steps),
        predictions=first.predictions + len(steps),
    )


def product_flops(matrices: Matrices, work: Work) -> float:
    """Return the operations of multiplying once with each matrix.

    2 trunk tokens + 2 head predictions + 4 scores pairs: query times key, then score times value.
    """
    of_weights = matrices.trunk * work.tokens + matrices.head * work.predictions
    return 2.0 * of_weights + 4.0 * matrices.scores * work.pairs


def training_flops(model: ModelMatrices, work: Work) -> dict[str, float]:
    """Return the operations of a forward and a backward pass, by direction."""
    return {"forward": forward_flops(model, work), "backward": backward_flops(model, work)}


def forward_flops(model: ModelMatrices, work: Work) -> float:
    """Return the operations of a forward pass."""
    return product_flops(model.used, work)


def backward_flops(model: ModelMatrices, work: Work) -> float:
    """Return the operations of a backward pass: one product for an input's gradient, one for a weight's, where needed.

    Nothing is needed below the lowest trained block, and frozen weights above it get no gradient.
    """
    return product_flops(model.crossed, work) + product_flops(model.trained, work)
