"""What a PPO step costs: floating-point operations by phase. Left out: rewards other than our own reward models."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from torch import nn
from transformers import PreTrainedModel

from rlhf.batches import Rollout
from rlhf.functional.flops import ModelMatrices, Work, backward_flops, causal_work, forward_flops, sampling_work
from rlhf.models.passes.matrices import frozen_matrices, model_matrices
from rlhf.models.pretrained.loading import scalar_head
from rlhf.ppo.step_records import StepResult
from rlhf.ppo.trainer import PPO
from rlhf.rewards.kinds.model import ModelReward


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCost:
    """The sizes of the models in a step, by what they compute."""

    sampling: ModelMatrices
    """The policy's language model."""
    policy: ModelMatrices
    """The same, plus the value head if it sits on the policy's trunk."""
    critics: tuple[ModelMatrices, ...]
    """The separate critic with the value head, when there is one."""
    reference: ModelMatrices
    rewards: tuple[ModelMatrices, ...]
    num_minibatches: int
    """Updates per pass over the batch."""

    def of(self, result: StepResult) -> tuple[int, dict[str, float]]:
        """Return the real tokens of a step on this process, prompts and responses, and its operations by phase."""
        rollout = result.experience.rollout
        lengths = (rollout.prompt_mask.sum(1) + (rollout.response_mask | rollout.forced).sum(1)).tolist()
        read = causal_work(lengths, int(rollout.response_mask.sum()))
        return read.tokens, self.flops(
            read,
            _sampled(rollout),
            num_rows=len(lengths),
            passes=len(result.updates) / self.num_minibatches,
            keeps_states=bool(result.collected.frozen_states),
        )

    def flops(self, read: Work, sampled: Work, *, num_rows: int, passes: float, keeps_states: bool) -> dict[str, float]:
        """Return the operations of a step by phase.

        Every update counts as an average minibatch, and a reward model as if it used the policy's tokenizer.

        Args:
            read: prompts and responses, with a prediction for each token of a response.
            sampled: what the sampler reads.
            num_rows: responses.
            passes: over the batch, in updates.
            keeps_states: whether the frozen blocks run once, for the old logprobs, and not in every pass.
        """
        again, reference = self.policy, self.reference
        if keeps_states:
            again, reference = self.policy.above_frozen, self.sampling.above_frozen
        first = _total(forward_flops, (self.policy, *self.critics), read)
        return {
            "generation": forward_flops(self.sampling, sampled),
            "reward": _total(forward_flops, self.rewards, replace(read, predictions=num_rows)),
            "reference": forward_flops(reference, read),
            "forward": first + passes * _total(forward_flops, (again, *self.critics), read),
            "backward": passes * _total(backward_flops, (self.policy, *self.critics), read),
        }


def step_cost(trainer: PPO) -> StepCost:
    """Return the cost of a trainer's steps.

    Raises:
        ConfigError: the layout of a model's blocks is unknown.
    """
    policy, rewards = trainer.policy, trainer.collector.scorer.rewards
    judges = [each.reward.model.classifier for each in rewards if isinstance(each.reward, ModelReward)]
    return cost_of_models(
        policy.lm,
        policy.critic,
        policy.value_head,
        trainer.collector.reference.model,
        [(model, [scalar_head(model)]) for model in judges],
        num_minibatches=trainer.config.minibatches,
    )


def cost_of_models(
    lm: PreTrainedModel,
    critic: PreTrainedModel | None,
    value_head: nn.Module,
    reference: PreTrainedModel,
    rewards: Sequence[tuple[PreTrainedModel, Sequence[nn.Module]]],
    *,
    num_minibatches: int,
) -> StepCost:
    """Return the cost of steps with these models; their sizes count, so that weights may be on the meta device.

    Args:
        lm: the policy.
        critic: the separate one, None where the value head sits on the policy.
        value_head: of either.
        reference: the frozen model.
        rewards: reward models with their heads.
        num_minibatches: updates per pass over the batch.

    Raises:
        ConfigError: the layout of a model's blocks is unknown.
    """
    head = lm.get_output_embeddings()
    return StepCost(
        sampling=model_matrices(lm, [head]),
        policy=model_matrices(lm, [head, value_head] if critic is None else [head]),
        critics=() if critic is None else (model_matrices(critic, [value_head]),),
        reference=frozen_matrices(reference, [reference.get_output_embeddings()]),
        rewards=tuple(frozen_matrices(model, heads) for model, heads in rewards),
        num_minibatches=num_minibatches,
    )


def _sampled(rollout: Rollout) -> Work:
    """Return what the sampler read: prompts with their forced tokens, then its own tokens."""
    prompts, forced = rollout.prompt_mask.sum(1).tolist(), rollout.forced.sum(1).tolist()
    rows = zip(rollout.prompt_ids.tolist(), prompts, rollout.response_ids.tolist(), forced, strict=True)
    starts = [(*prompt[:num], *response[:start]) for prompt, num, response, start in rows]
    sampled = rollout.response_mask.sum(1).tolist()
    return sampling_work([len(ids) for ids in set(starts)], [len(ids) for ids in starts], sampled)


def _total(flops: Callable[[ModelMatrices, Work], float], models: Sequence[ModelMatrices], work: Work) -> float:
    return sum(flops(model, work) for model in models)
