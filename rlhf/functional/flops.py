"""How many floating-point operations a pass of a transformer takes, from the sizes of its weight matrices.

A product of [N, I] with [I, O] weights is 2 N I O operations. Counted is what the computation needs: real tokens, the
causal half of the attention scores, logits where something is predicted. Norms, activations, softmax and the lookup of
embeddings are left out, as is usual (Kaplan et al. 2020, arXiv:2001.08361, table 1; Chowdhery et al. 2022,
arXiv:2204.02311, appendix B, which counts the masked half of the scores as well).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrices:
    """What multiplies, in a model or in a part of it."""

    trunk: int
    """Weights that each token meets."""
    scores: int
    """Width of the queries, heads x head size, summed over blocks: what a token meets of each token it attends to."""
    head: int
    """Weights that each predicting position meets: the vocabulary's, a value's, a score's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelMatrices:
    """The matrices of a model by what a pass does with them."""

    used: Matrices
    """Multiplied in a forward pass."""
    crossed: Matrices
    """Of `used`: those through which the backward pass goes on to their inputs."""
    trained: Matrices
    """Of `used`: those that receive a gradient; for scores, whose both sides are activations, the same as `crossed`."""

    @property
    def above_frozen(self) -> "ModelMatrices":
        """What remains of a pass that starts from the states that enter the lowest trained block."""
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

    It is the same whether they are read at once or, with a cache, one after the other.
    """
    return Work(
        tokens=sum(lengths), pairs=sum(length * (length + 1) // 2 for length in lengths), predictions=predictions
    )


def sampling_work(distinct_prompts: Sequence[int], prompts: Sequence[int], responses: Sequence[int]) -> Work:
    """Return the work of sampling with a cache: equal prompts are read once, the last token of a response never.

    Args:
        distinct_prompts: tokens of the prompts, each taken once.
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

    2 trunk tokens + 2 head predictions + 4 scores pairs: a query meets a key, and the outcome a value.
    """
    of_weights = matrices.trunk * work.tokens + matrices.head * work.predictions
    return 2.0 * of_weights + 4.0 * matrices.scores * work.pairs


def training_flops(model: ModelMatrices, work: Work) -> dict[str, float]:
    """Return the operations of a pass forward and back, by direction."""
    return {"forward": forward_flops(model, work), "backward": backward_flops(model, work)}


def forward_flops(model: ModelMatrices, work: Work) -> float:
    """Return the operations of a forward pass."""
    return product_flops(model.used, work)


def backward_flops(model: ModelMatrices, work: Work) -> float:
    """Return the operations of a backward pass: one product for an input's gradient, one for a weight's, where needed.

    Nothing is needed below the lowest trained block, and frozen weights above it have no gradient of their own.
    """
    return product_flops(model.crossed, work) + product_flops(model.trained, work)
