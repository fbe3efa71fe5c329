"""What a PPO step costs: floating-point operations by phase. Left out: rewards that are not a reward model of ours."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rlhf.functional.flops import ModelMatrices, Work, backward_flops, causal_work, forward_flops
from rlhf.models.loading import scalar_head
from rlhf.models.matrices import frozen_matrices, model_matrices
from rlhf.models.policy import PolicyWithValueHead
from rlhf.ppo.trainer import PPOTrainer, StepResult
from rlhf.rewards.model import ModelReward


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCost:
    """The sizes of the models that a step asks, by what they are asked for."""

    sampling: ModelMatrices
    """The policy's language model."""
    reading: tuple[ModelMatrices, ...]
    """The policy with its value head; a separate critic is a second one."""
    reference: ModelMatrices
    rewards: tuple[ModelMatrices, ...]
    num_minibatches: int
    """Updates that make a pass over the batch."""

    def of(self, result: StepResult) -> tuple[int, dict[str, float]]:
        """Return the real tokens of a step on this process, prompts and responses, and its operations by phase.

        The last token of a response is sampled but not read by the sampler. An update counts as a mean minibatch, and a
        reward model as if it had the policy's tokenizer.
        """
        rollout = result.experience.rollout
        lengths = (rollout.prompt_mask.sum(1) + (rollout.response_mask | rollout.forced).sum(1)).tolist()
        num_sampled = int(rollout.response_mask.sum())
        read, passes = causal_work(lengths, num_sampled), len(result.updates) / self.num_minibatches
        return read.tokens, {
            "generation": forward_flops(self.sampling, causal_work([length - 1 for length in lengths], num_sampled)),
            "reward": _total(forward_flops, self.rewards, causal_work(lengths, len(lengths))),
            "reference": forward_flops(self.reference, read),
            "forward": (1 + passes) * _total(forward_flops, self.reading, read),  # 1 for the old logprobs and values
            "backward": passes * _total(backward_flops, self.reading, read),
        }


def step_cost(trainer: PPOTrainer) -> StepCost:
    """Return the cost of a trainer's steps.

    Raises:
        ConfigError: a model keeps its blocks in an unknown way.
    """
    policy, collector = trainer.policy, trainer.collector
    rewards = [reward.model.classifier for reward, _ in collector.scorer.rewards if isinstance(reward, ModelReward)]
    return StepCost(
        sampling=model_matrices(policy.lm, [policy.lm.get_output_embeddings()]),
        reading=_reading(policy),
        reference=frozen_matrices(collector.reference.model, [collector.reference.model.get_output_embeddings()]),
        rewards=tuple(frozen_matrices(model, [scalar_head(model)]) for model in rewards),
        num_minibatches=trainer.config.minibatches,
    )


def _reading(policy: PolicyWithValueHead) -> tuple[ModelMatrices, ...]:
    head = policy.lm.get_output_embeddings()
    if policy.critic is None:
        return (model_matrices(policy.lm, [head, policy.value_head]),)
    return model_matrices(policy.lm, [head]), model_matrices(policy.critic, [policy.value_head])


def _total(flops: Callable[[ModelMatrices, Work], float], models: Sequence[ModelMatrices], work: Work) -> float:
    return sum(flops(model, work) for model in models)
