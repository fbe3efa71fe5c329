"""PPO, step by step. Left out: mixing in pretraining gradients (PPO-ptx), a learned KL target."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from rlhf.batches import Experience, Sequences
from rlhf.config import PPOSettings
from rlhf.data.records import Prompt
from rlhf.errors import GuardStop
from rlhf.functional.losses import PolicyLoss, policy_gradient_loss, policy_loss, value_loss
from rlhf.functional.masking import masked_sum
from rlhf.models.policy import PolicyWithValueHead
from rlhf.ppo.correction import corrected, correction_of
from rlhf.ppo.experience import make_experience
from rlhf.ppo.kl_control import KLControl
from rlhf.ppo.rollout import Collected, Collector, Sampled
from rlhf.ppo.scoring.scorer import Scored
from rlhf.ppo.starts.resets import Resets
from rlhf.ppo.starts.start_states import StartStates, draw_start_states
from rlhf.ppo.step_records import StepBatch, StepResult, Update
from rlhf.ppo.tally import largest, means_of, stacked, tally
from rlhf.training.optimizer import Optimizer
from rlhf.training.processes import Processes


@dataclass(frozen=True, slots=True)
class Generators:
    """The random streams of a process."""

    rollout: torch.Generator
    """Sampling, and dealing rows into microbatches; each process has its own."""
    epochs: torch.Generator
    """Order of minibatches; the same on every process."""


class PPO:
    """Collects a batch with the current policy, then runs several epochs of minibatch updates on it."""

    def __init__(
        self,
        policy: PolicyWithValueHead,
        collector: Collector,
        optimizer: Optimizer,
        config: PPOSettings,
        processes: Processes,
        generators: Generators,
        resets: Resets | None = None,
    ) -> None:
        self.policy = policy
        self.collector = collector
        self.optimizer = optimizer
        self.config = config
        self.processes = processes
        self.generators = generators
        self.resets = resets
        self.phases = collector.phases
        self.kl_control = KLControl(config.kl_coef, config.kl_control)
        self.num_steps = 0  # PPO steps that are done

    def step(self, prompts: Sequence[Prompt]) -> StepResult:
        """Do one PPO step on this process's share of the prompts, `num_samples_per_prompt` episodes from each.

        Raises:
            RewardError: a reward failed.
            GuardStop: something is not finite, or the KL exceeds `kl_control.max_kl`.
        """
        return self.learn_from(self.rollout(prompts))

    def learn_from(self, sampled: Sampled) -> StepResult:
        """Do what `step` does after its rollout."""
        return self.learn(self.make_experience(sampled, self.score(sampled)))

    def set_length(self, num_steps: int) -> None:
        """Make the run one of `num_steps`: its schedules span them from the next step on."""
        self.config = self.config.model_copy(update={"steps": num_steps})
        self.optimizer.num_updates = num_steps * self.config.epochs * self.config.minibatches
        if self.resets is not None:
            self.resets.num_steps = num_steps

    def rollout(self, prompts: Sequence[Prompt]) -> Sampled:
        """Sample responses to the prompts, or from the states in which `resets` starts their episodes."""
        if self.config.release_gradients:
            self.optimizer.weights.release()
        return self.collector.sample(self.start_states(prompts), self.generators.rollout)

    def start_states(self, prompts: Sequence[Prompt]) -> StartStates:
        """Return where the episodes of these prompts begin."""
        pad_id, samples = int(self.collector.tokenizer.pad_token_id), self.config.num_samples_per_prompt
        return draw_start_states(prompts, pad_id, self.processes.device, self.resets, samples)

    def score(self, sampled: Sampled) -> Scored:
        """Score the responses with the rewards."""
        return self.collector.score(sampled)

    def make_experience(self, sampled: Sampled, scored: Scored) -> StepBatch:
        """Run policy and reference on the responses, shape rewards with the KL, estimate advantages."""
        collected = self.collector.complete(sampled, scored, self.generators.rollout)
        kl_coef = self.kl_control.coef
        experience = make_experience(collected.rollout, kl_coef, self.config, self.processes)
        self.guard(experience)
        correction = correction_of(collected.rollout, collected.engine_logprobs, self.config)
        experience = corrected(experience, correction)
        return StepBatch(collected=collected, experience=experience, kl_coef=kl_coef, correction=correction)

    def learn(self, batch: StepBatch) -> StepResult:
        """Run the updates of a PPO step, then update the KL coefficient and the resets."""
        collected, experience = batch.collected, batch.experience
        # The schedule follows the PPO step: an early stop inside the epochs must not stretch it.
        self.optimizer.num_done = self.num_steps * self.config.epochs * self.config.minibatches
        updates = self.optimise(experience, collected)
        self.num_steps += 1
        self.kl_control.update(self.sequence_kl(experience), len(collected.episodes) * self.processes.num)
        if self.resets is not None:
            kept = collected.rollout.response_mask.any(1).nonzero().flatten().tolist()
            prompts = [collected.prompts[row] for row in kept]
            responses = [collected.episodes[row].response_ids for row in kept]
            self.resets.finish_step(prompts, responses, [collected.text_scores[row] for row in kept], self.processes)
        return StepResult(
            collected=collected,
            experience=experience,
            kl_coef=batch.kl_coef,
            correction=batch.correction,
            updates=updates,
        )

    def optimise(self, experience: Experience, collected: Collected) -> list[Update]:
        """Make `epochs` passes over the batch, one optimizer step per minibatch; stop early above `target_kl`."""
        updates: list[Update] = []
        for _ in range(self.config.epochs):
            for minibatch in collected.microbatches.shuffled(self.generators.epochs):
                spare = collected.microbatches.spare()
                update = self.update(experience, minibatch, collected.frozen_states, collected.sequences, spare)
                updates += [] if update is None else [update]
                if update is not None and not update.stepped:
                    return updates
        return updates

    def update(
        self,
        experience: Experience,
        minibatch: Sequence[Tensor],
        frozen_states: Mapping[int, Tensor] | None = None,
        sequences: Mapping[int, Sequences] | None = None,
        spare: Tensor | None = None,
    ) -> Update | None:
        """Step once on the clipped surrogate, the value loss and the entropy bonus of a minibatch.

        Each loss is a mean over the response tokens of the global minibatch, however it is split over microbatches and
        processes. Returns None, and takes no step, if rewards dropped every episode of the minibatch. The host reads
        all numbers of a minibatch at once, after the last backward pass: until then a GPU never waits for it.

        Args:
            experience: all episodes of this process.
            minibatch: the microbatches of this step, [N] row indices each.
            frozen_states: from `Collected`; without them the frozen blocks run again.
            sequences: from `Collected`; without them the rows are joined again.
            spare: rows [N] to pass without counting them, where weights are in shards and another process has more
                microbatches; None for the first row.
        """
        joined = [_joined(experience, rows, sequences) for rows in minibatch]
        tokens = float(sum(len(each.steps) for each in joined))
        num_tokens = self.processes.sums([tokens])[0]
        if not num_tokens:
            return None
        ratios, numbers, sharding = [], [], self.processes.sharding
        parts = list(zip(minibatch, joined, strict=True))
        for (rows, own), counts in sharding.equalised(parts, (torch.tensor([0]) if spare is None else spare, None)):
            known = (frozen_states or {}).get(int(rows[0]))
            with self.phases("forward"):
                make = partial(self.loss, experience.rows(rows), num_tokens, known, own)
                loss, statistics, ratio = sharding.inside(self.policy, make)
            with self.phases("backward"):
                (loss if counts else loss * 0.0).backward()
            if not counts:
                continue
            ratios.append((rows, ratio))
            numbers.append(statistics)
        with self.phases("optimizer"):
            norms = self.optimizer.gradient_norms()
            read = torch.cat([*numbers, norms]).tolist()
            totals, extremes = tally([len(ratio) for _, ratio in ratios], read)
            means = means_of(self.processes.sums(totals), num_tokens)
            self._check_finite(means)
            stepped = self.config.target_kl is None or means["approx_kl"] <= self.config.target_kl
            report = self.optimizer.step(norms, read[-len(norms) :]) if stepped else self.optimizer.discard()
        return Update(means=means, **extremes, stepped=stepped, optimizer=report, ratios=ratios)

    def loss(
        self,
        experience: Experience,
        num_tokens: float,
        frozen_states: Tensor | None = None,
        sequences: Sequences | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return a microbatch's share of the loss, its numbers as `tally` reads them, its ratios [N].

        The numbers are float32 on the device, where the host does not wait for them.
        """
        config, rollout = self.config, experience.rollout
        mask, sequences = rollout.response_mask, sequences or rollout.sequences()
        output = self.policy(
            sequences,
            mask.shape[1],
            config.sampling.temperature,
            frozen_states=frozen_states,
            with_entropy=config.entropy_coef > 0,
        )
        policy = policy_objective(output.logprobs, rollout.logprobs, experience.advantages, mask, config, num_tokens)
        value = value_loss(
            output.values, rollout.values, experience.returns, mask, config.value_clip_range, num_tokens=num_tokens
        )
        entropy = masked_sum(output.entropy, mask)
        value_coef = config.value_coef if config.has_critic else 0.0
        loss = policy.loss + value_coef * value.loss - config.entropy_coef * entropy / num_tokens
        ratio = (output.logprobs.detach() - rollout.logprobs)[sequences.rows, sequences.steps].exp()
        numbers = {
            "policy_loss": policy.loss,
            "value_loss": value.loss,
            "entropy": entropy,
            "clipped": policy.clip_fraction,
            "value_clipped": value.clip_fraction,
            "approx_kl": policy.approx_kl,
            "ratio": ratio.sum(),
            "ratio_square": ratio.square().sum(),
            "ratio_max": largest(ratio),
            "ratio_deviation": largest((ratio - 1).abs()),
        }
        return loss, stacked(numbers), ratio

    def sequence_kl(self, experience: Experience) -> float:
        """Return the KL to the reference in nats per sequence: sum over tokens, mean over episodes of all processes."""
        num_episodes = int(experience.rollout.response_mask.any(1).sum())
        total, episodes = self.processes.sums([float(experience.kl.sum()), num_episodes])
        return total / episodes

    def guard(self, experience: Experience) -> None:
        """Stop on numbers that are not finite, or on a policy that is too far from the reference.

        Raises:
            GuardStop: says which.
        """
        rollout = experience.rollout
        tensors = {"logprobs": rollout.logprobs, "rewards": experience.rewards, "values": rollout.values}
        bad = [name for name, tensor in tensors.items() if not bool(tensor.isfinite().all())]
        if self.processes.any(bool(bad)):
            raise GuardStop(f"not finite: {', '.join(bad) or 'a tensor of another process'} - no step was taken")
        limit, kl = self.config.kl_control.max_kl, self.sequence_kl(experience)
        if limit is not None and kl > limit:
            raise GuardStop(f"KL to the reference is {kl:.1f} nats per sequence, above kl_control.max_kl ({limit})")

    def _check_finite(self, means: dict[str, float]) -> None:
        bad = [name for name, mean in means.items() if not abs(mean) < float("inf")]
        if bad:
            raise GuardStop(f"not finite in an update: {', '.join(bad)} - no step was taken; lower the learning rate")


def _joined(experience: Experience, rows: Tensor, known: Mapping[int, Sequences] | None) -> Sequences:
    """Return the sequences of a microbatch; known ones are by its first row."""
    first = int(rows[0])
    return known[first] if known is not None and first in known else experience.rows(rows).rollout.sequences()


def policy_objective(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, mask: Tensor, config: PPOSettings, num_tokens: float
) -> PolicyLoss:
    """Return the loss of `config.objective`; all tensors [B, T], `num_tokens` of the global minibatch."""
    if config.objective == "policy_gradient":
        return policy_gradient_loss(logprobs, old_logprobs, advantages, mask, num_tokens=num_tokens)
    return policy_loss(logprobs, old_logprobs, advantages, mask, config.clip_range, num_tokens=num_tokens)
