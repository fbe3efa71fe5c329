"""The evaluation stage: what policies say on held-out prompts, and what independent judges make of it."""

from rlhf.evaluation.assembly import evaluate

__all__ = ["evaluate"]
