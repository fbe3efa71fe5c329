"""Runs every model once, without gradients: responses, logprobs, reference logprobs, values, scores."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from rlhf.batches import Rollout, Samples, Sequences, join, sent
from rlhf.config import PPOSettings
from rlhf.data.records import Prompt
from rlhf.models.passes.packing import packs
from rlhf.models.policy import PolicyOutput, PolicyWithValueHead
from rlhf.models.pretrained.tokenizer import Language
from rlhf.models.reference import Reference
from rlhf.ppo.correction import placed_logprobs
from rlhf.ppo.microbatches import Microbatches, cut_microbatches, num_strata_needed
from rlhf.ppo.responses import Responses, decode_steps_saved, whole_responses
from rlhf.ppo.scoring.scorer import Scored, Scorer
from rlhf.ppo.starts.start_states import StartStates
from rlhf.rewards.protocol import Episode
from rlhf.sampling.batched import Decoding
from rlhf.sampling.endings import OnOver
from rlhf.sampling.engines.local import LocalEngine
from rlhf.sampling.engines.protocol import Engine, Weights, known_sequences
from rlhf.sampling.static_decoder import release
from rlhf.training.processes import Processes
from rlhf.training.telemetry.phases import NO_PHASES, Phases


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampled:
    """The policy's responses to a batch of start states, not yet scored."""

    starts: StartStates
    responses: Responses
    episodes: list[Episode]
    """[B] prompts and responses as rewards read them."""
    engine_logprobs: Tensor | None = None
    """[B, T] float32, nats, of an engine that computes in its own way; None for one of this process."""

    @property
    def completions(self) -> list[str]:
        """[B] the texts of the responses, without special tokens."""
        return [episode.completion for episode in self.episodes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """A rollout, its microbatches, and the texts that were scored."""

    rollout: Rollout
    microbatches: Microbatches
    frozen_states: dict[int, Tensor]
    """Inputs [N, S, H] of the policy's first trained block, by a microbatch's first row; empty if all are trained."""
    sequences: dict[int, Sequences]
    """Prompts and responses of each microbatch joined, as models read them, by its first row."""
    prompts: Sequence[Prompt]
    """[B] where the episodes began."""
    episodes: list[Episode]
    raw_scores: list[float]
    """The weighted sum of the rewards, before penalty, clipping and normalisation; without scores of forced tokens."""
    text_scores: list[float]
    """The same with the scores of forced tokens, to compare whole texts."""
    reward_metrics: dict[str, float]
    """Metrics of each reward, by its name; over all processes."""
    prefixes: list[str]
    """The text of the forced tokens at the start of each response."""
    decode_steps_saved: int
    """Decode steps saved by reading forced tokens together with the prompts."""
    engine_logprobs: Tensor | None = None
    """As `Sampled` has them."""


class Collector:
    """Holds the models, and collects rollouts with them."""

    def __init__(
        self,
        policy: PolicyWithValueHead,
        reference: Reference,
        scorer: Scorer,
        language: Language,
        config: PPOSettings,
        processes: Processes,
        phases: Phases = NO_PHASES,
    ) -> None:
        self.policy = policy
        self.reference = reference
        self.scorer = scorer
        self.tokenizer, self.eos_ids = language.tokenizer, language.eos_ids
        self.config = config
        self.processes = processes
        self.phases = phases
        self.engine: Engine = LocalEngine(policy.lm)
        self.weights: Weights | None = None  # what an engine outside this process gets

    def collect(self, starts: StartStates, generator: torch.Generator) -> Collected:
        """Sample a response to every start state, then run all the other models on it."""
        sampled = self.sample(starts, generator)
        return self.complete(sampled, self.score(sampled), generator)

    @torch.no_grad()
    def sample(self, starts: StartStates, generator: torch.Generator) -> Sampled:
        """Sample a response to every start state; all processes call this together.

        Raises:
            EngineError: the engine does not answer, or not from the policy's weights.
            GuardStop: the logits are not finite, here or on another process.
        """
        with self.phases("generation"), self.processes.sharding.whole(self.policy.lm):
            samples = self.processes.agreed(lambda: self.respond(starts, generator))
            if self.config.release_gradients:
                release(self.policy.lm)
        return self.sampled(starts, samples)

    def sampled(self, starts: StartStates, samples: Samples) -> Sampled:
        """Return what an engine drew as whole responses and texts."""
        responses = whole_responses(starts, samples)
        episodes = self.episodes(starts, responses)
        drawn_at = None if self.engine.is_exact else placed_logprobs(samples, responses)
        return Sampled(starts=starts, responses=responses, episodes=episodes, engine_logprobs=drawn_at)

    @torch.no_grad()
    def score(self, sampled: Sampled) -> Scored:
        """Score the responses with every reward.

        Raises:
            RewardError: a reward failed, here or on another process.
        """
        with self.phases("reward"), self.processes.sharding.whole(*self.scorer.models):
            return self.scorer.score(sampled.episodes, sampled.starts.num_forced.tolist())

    @torch.no_grad()
    def complete(self, sampled: Sampled, scored: Scored, generator: torch.Generator) -> Collected:
        """Cut the responses into microbatches, and run policy and reference on each.

        Old logprobs come from the same forward pass on the same microbatches as the update, not from the sampler, whose
        one-token steps round differently in bfloat16. Episodes that a reward dropped are in no microbatch.
        """
        starts, responses = sampled.starts, sampled.responses
        decode_steps = decode_steps_saved(responses, self.config.sampling.batch_rows)
        responses = responses.only(torch.tensor(scored.kept, device=responses.ended.device))
        scores = self.scorer.shaped(scored.scores, responses.ended.tolist(), scored.kept)
        lengths = (starts.batch.prompt_mask.sum(1) + responses.lengths).tolist()
        microbatches = self.cut(lengths, generator).only(torch.tensor(scored.kept))
        sequences = joined_rows(starts, responses, microbatches)
        logprobs, ref_logprobs, values, frozen_states = self.forward(sequences, responses, microbatches)
        rollout = Rollout(
            prompt_ids=starts.batch.prompt_ids,
            prompt_mask=starts.batch.prompt_mask,
            response_ids=responses.response_ids,
            response_mask=responses.response_mask,
            forced=responses.forced,
            logprobs=logprobs,
            ref_logprobs=ref_logprobs,
            values=values,
            scores=torch.tensor(scores, dtype=torch.float32, device=logprobs.device),
            token_scores=_placed(scored.token_scores, responses.response_mask),
            ended=responses.ended,
        )
        return Collected(
            rollout=rollout,
            microbatches=microbatches,
            frozen_states=frozen_states,
            sequences=sequences,
            prompts=starts.prompts,
            episodes=sampled.episodes,
            raw_scores=scored.raw,
            text_scores=scored.of_texts,
            reward_metrics=scored.metrics,
            prefixes=self.tokenizer.batch_decode([list(ids) for ids in starts.prefixes], skip_special_tokens=True),
            decode_steps_saved=decode_steps,
            engine_logprobs=sampled.engine_logprobs,
        )

    def respond(self, starts: StartStates, generator: torch.Generator) -> Samples:
        """Let the engine draw what follows the start states, from the weights as they are now."""
        self.give_weights(starts)
        told = self.asking_early(starts, self.tokenizer)
        return self.engine.sample(starts.states, self.decoding(self.tokenizer), generator, starts.num_forced, told)

    def asking_early(self, starts: StartStates, tokenizer: PreTrainedTokenizerBase) -> OnOver | None:
        """Return what asks rewards about a response as soon as it is over; None where no reward wants that."""

        def ask(row: int, ids: list[int]) -> None:
            whole = (*starts.prefixes[row], *ids)
            text = str(tokenizer.decode(list(whole), skip_special_tokens=True))
            self.scorer.begin(_episode(starts.prompts[row], text, whole))

        return ask if self.scorer.asks_early else None

    def give_weights(self, starts: StartStates) -> None:
        """Give the weights as they are now to an engine outside this process.

        Raises:
            EngineError: it did not take them.
        """
        if self.weights is not None:
            known = known_sequences(starts.states)
            self.engine.load(replace(self.weights, known=known), self.engine.version + 1)

    def decoding(self, tokenizer: PreTrainedTokenizerBase) -> Decoding:
        """Return how responses are drawn; `tokenizer` decodes what may hold a stop string."""
        return Decoding(**self.config.sampling.model_dump(), eos_ids=self.eos_ids, tokenizer=tokenizer)

    def episodes(self, starts: StartStates, responses: Responses) -> list[Episode]:
        """Return what the rewards read: whole responses."""
        lengths = responses.lengths.tolist()
        whole = [tuple(ids[:n]) for ids, n in zip(responses.response_ids.tolist(), lengths, strict=True)]
        texts = self.tokenizer.batch_decode([list(ids) for ids in whole], skip_special_tokens=True)
        return [_episode(*each) for each in zip(starts.prompts, texts, whole, strict=True)]

    def cut(self, lengths: list[int], generator: torch.Generator) -> Microbatches:
        """Cut this process's rows; the number of strata is the same on all processes."""
        config, packed = self.config, packs(self.policy.lm)
        needed = num_strata_needed(lengths, config.minibatches, config.microbatch_tokens, packs=packed)
        num_strata = max(self.processes.gathered([needed]))
        return cut_microbatches(lengths, config.minibatches, num_strata, generator)

    def forward(
        self, joined: Mapping[int, Sequences], responses: Responses, microbatches: Microbatches
    ) -> tuple[Tensor, Tensor, Tensor, dict[int, Tensor]]:
        """Return [B, T] logprobs, reference logprobs and values, and the states that every later pass starts from.

        Frozen blocks run once, for the policy, the reference and all epochs.
        """
        logprobs = torch.zeros_like(responses.response_ids, dtype=torch.float32)
        ref_logprobs, values = torch.zeros_like(logprobs), torch.zeros_like(logprobs)
        num_steps, temperature = logprobs.shape[1], self.config.sampling.temperature
        kept: dict[int, Tensor] = {}
        sharding = self.processes.sharding
        # A pass that does not count gives a process the same numbers again, or none where all its rows are dropped.
        groups = [group for group, _ in sharding.equalised(microbatches.all(), microbatches.spare())]
        for group in groups:
            first, rows = int(group[0]), sent(group, logprobs.device)
            with self.phases("forward"):
                frozen, output = sharding.inside(
                    self.policy, partial(self._pass, joined[first], num_steps, temperature)
                )
            logprobs[rows], values[rows] = output.logprobs.detach(), output.values.detach()
            if frozen is not None:
                kept[first] = frozen
        with self.phases("reference"), self.reference.at_hand():
            for group in groups:
                first, rows = int(group[0]), sent(group, logprobs.device)
                make = partial(self.reference.logprobs, joined[first], num_steps, temperature, kept.get(first))
                ref_logprobs[rows] = sharding.inside(self.reference.model, make)
        return logprobs, ref_logprobs, values, kept

    def _pass(self, sequences: Sequences, num_steps: int, temperature: float) -> tuple[Tensor | None, PolicyOutput]:
        """Return the states that enter the first trained block, and what the policy makes of them."""
        frozen = self.policy.frozen_states(sequences)
        with torch.set_grad_enabled(self.policy.keeps_gradients):
            return frozen, self.policy(sequences, num_steps, temperature, frozen_states=frozen)


def joined_rows(starts: StartStates, responses: Responses, microbatches: Microbatches) -> dict[int, Sequences]:
    """Join the prompts and responses of each microbatch once, on the host, for all passes; by its first row.

    Where every row was dropped, `spare` is joined: a process may have to pass it without counting it.
    """
    device, prompts, whole = responses.ended.device, starts.batch.to("cpu"), responses.to("cpu")
    joined = {}
    for rows in microbatches.all() or [microbatches.spare()]:
        own, said = prompts.rows(rows), whole.rows(rows)
        sequences = join(own.prompt_ids, own.prompt_mask, said.response_ids, said.response_mask, said.forced)
        joined[int(rows[0])] = sequences.to(device)
    return joined


def _episode(prompt: Prompt, text: str, ids: tuple[int, ...]) -> Episode:
    return Episode(prompt=prompt.raw, completion=text, columns=prompt.columns, prompt_ids=prompt.ids, response_ids=ids)


def _placed(token_scores: Sequence[list[float] | None], mask: Tensor) -> Tensor:
    """Return token scores as float32 in the shape of `mask` [B, T], 0 where it is False or a row has none."""
    placed = torch.zeros_like(mask, dtype=torch.float32)
    for row, scores in enumerate(token_scores):
        if scores is not None:
            placed[row, : len(scores)] = torch.tensor(scores)
    return placed * mask
