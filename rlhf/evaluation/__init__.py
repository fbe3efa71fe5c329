"""The evaluation stage: policies answer held-out prompts, and independent judges score the answers."""

from rlhf.evaluation.assembly import evaluate

__all__ = ["evaluate"]
