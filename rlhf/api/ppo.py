"""PPO from Python: `PPOTrainer` offers each part of a step as a method; `rlhf ppo` runs the same code."""

from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import ClassVar

from transformers import PreTrainedTokenizerBase

from rlhf.api.callbacks import Callback
from rlhf.api.data import GivenPrompts, given_prompts, made_ready
from rlhf.api.generation import Generating
from rlhf.api.inputs import make_ready
from rlhf.api.models import GivenTokenizer, Model
from rlhf.api.rewards import OneReward
from rlhf.api.trainer import StageTrainer, check_evaluation, checked_config
from rlhf.config import PPOSettings
from rlhf.config.stage import StageSettings
from rlhf.data.records import Prompt
from rlhf.data.tokenization import prepare_prompts, prompt_maker
from rlhf.errors import ConfigError, DataError
from rlhf.models.pretrained.setup import Trainable
from rlhf.ppo.rollout import Sampled
from rlhf.ppo.run.assembly import (
    check_context,
    check_shares,
    compile_parts,
    holds_something_else,
    put_together,
    save_parts,
    take_up_parts,
)
from rlhf.ppo.run.held_out import held_out_metrics
from rlhf.ppo.run.prompt_source import GivenPrompt, ListedPrompts, PromptSource, StreamedPrompts
from rlhf.ppo.run.steps import SHOWN, PPOSteps, all_metrics
from rlhf.ppo.scoring.scorer import Scored, given_scores
from rlhf.ppo.starts.assembly import make_resets
from rlhf.ppo.step_records import StepBatch

Evaluation = Callable[["PPOTrainer"], Mapping[str, float]] | GivenPrompts
"""A function that returns metrics, or held-out prompts."""


class PPOTrainer(StageTrainer, Generating):
    """Trains a policy with PPO.

        trainer = PPOTrainer("path/to/policy", reward=reward_function, config=PPOSettings(steps=100))
        trainer.train(prompts)
        trainer.save("path/to/result")

    Or step by step, in your own loop:

        for batch in trainer.batches(prompts):
            rollout = trainer.rollout(batch)
            scores = trainer.score(rollout)
            experience = trainer.make_experience(rollout, scores)
            metrics = trainer.update(experience)

    The trainer owns the models you give it: it trains the policy in place, in the run's compute type. Under
    `accelerate launch` every process makes the same calls with the same prompts, and works on its share.
    """

    stage: ClassVar[str] = "ppo"
    result: ClassVar[str] = "policy"
    config: PPOSettings

    def __init__(  # two models, what judges them, and what every trainer takes
        self,
        policy: Model | Path,
        reference: Model | Path | None = None,
        reward: OneReward | Sequence[OneReward] | None = None,
        tokenizer: GivenTokenizer = None,
        config: PPOSettings | None = None,
        *,
        output_dir: str | Path | None = None,
        callbacks: Sequence[Callback] = (),
    ) -> None:
        """Load what is passed by name, and assemble the run. Seeds the global generators, as a stage does.

        Args:
            policy: a causal language model or adapter (peft), or the name of one; `config.model` says what is trained.
            reference: the KL is measured to it; None takes the policy as it is now, or the model below its adapter.
            reward: a function with TRL's signature, a class, a sequence classifier, or a list of these and of mappings
                as in a config, `{"kind": "length", "at_most": 60}` or `{"function": f, "weight": 0.5}`.
            tokenizer: the policy's; left unchanged; None loads the one saved with the policy.
            config: the settings of the run.
            output_dir: where `train` writes metrics, samples, checkpoints and the policy; None writes nothing.
            callbacks: called after each step, save and evaluation.

        Raises:
            RlhfError: something cannot be loaded, or the parts do not fit together.
        """
        settings = checked_config(config, PPOSettings, "policy, reference, reward, tokenizer, config")
        if output_dir is None and settings.engine.kind == "vllm":
            raise ConfigError("engine.kind: vllm gets its weights by path - give output_dir")
        if reward is None:
            raise ConfigError("reward: it is missing - give a function, a model, or a mapping such as a YAML file has")
        super().__init__(settings, output_dir, callbacks)
        check_shares(settings, self.processes)
        made = make_ready(policy, reference, reward, tokenizer, self._run, settings)
        self._digests = made.digests() if self.output_dir is not None else []
        self.parts = put_together(settings, self._run, made.policy, made.language, made.rewards, made.reference)
        self.ppo = self.parts.trainer
        self._has_begun = False

    def train(
        self,
        prompts: GivenPrompts,
        *,
        evaluation: Evaluation | None = None,
        evaluate_every: int | None = None,
    ) -> list[dict[str, float]]:
        """Do the `steps` of the config; metrics, samples, checkpoints and the policy go to `output_dir`.

        A list or data set of prompts is shuffled and repeated as needed. An iterator yields only what each step needs,
        and ends the run when it ends. A stopped run in `output_dir` resumes from its newest checkpoint; an iterator
        must then start over. Of a complete run there, model and history are taken up and nothing is done. Another call
        does as many steps again; an iterator then begins with the prompts of the next step.

        Args:
            prompts: texts, lists of messages, or mappings with `prompt` and the columns that rewards read; or the name
                of a file or data set of such mappings.
            evaluation: held-out prompts, for mean score and KL; or a function of this trainer that returns metrics.
            evaluate_every: steps between evaluations; None evaluates only after the last step.

        Returns:
            The metrics of each step that this trainer has done, named as in metrics.jsonl.

        Raises:
            RlhfError: bad data, reward or checkpoint, or a guard or a signal stopped the run.
        """
        check_evaluation(evaluation, evaluate_every, self.config)
        source = self._source(prompts, self._num_done)
        measure = self._measuring(evaluation, partial(self._measuring_prompts, source))
        inputs = [*self._digests, source.digest()]
        if self._takes_up(inputs):
            return self._finished()
        with self._entered(inputs) as run:
            with closing(PPOSteps(self.ppo, source, run.directory.samples, evaluation=measure)) as steps:
                run.run(
                    steps,
                    num_steps=self.config.steps,
                    eval_every=evaluate_every,
                    description=self.stage,
                    shown=SHOWN,
                    observer=self._announcer,
                    num_done=self._num_done,
                )
            if self.output_dir is not None:
                policy, critic = self.output_dir / self.result, self.output_dir / "critic"
                self._save(policy, partial(save_parts, self.parts, policy, critic, self._card))
        return self._finished()

    def batches(self, prompts: GivenPrompts) -> Iterator[Sequence[Prompt]]:
        """Yield the prompts of each step, over all processes, in the order of `train`."""
        source = self._source(prompts, self.ppo.num_steps)
        for step in range(self.ppo.num_steps, self.config.steps):
            batch = source.batch(step)
            if self.processes.any(batch is None) or batch is None:
                return
            yield batch

    def rollout(self, prompts: Sequence[GivenPrompt] | Sequence[Prompt]) -> Sampled:
        """Let the policy respond to this process's share of the prompts, `num_samples_per_prompt` times each.

        Raises:
            DataError: there are fewer prompts than processes, or one does not fit.
        """
        ready = made_ready(prompts, self._encoded, self.config.prompts.max_length)
        self._begin(None)
        check_context(self.parts, ready)
        num = self.processes.num
        if len(ready) < num:
            raise DataError(f"rollout: {len(ready)} prompts for {num} processes - give each at least one")
        return self.ppo.rollout(ready[self.processes.rank :: num])

    def score(self, rollout: Sampled) -> Scored:
        """Score the responses with the rewards.

        Raises:
            RewardError: a reward failed, here or on another process.
        """
        return self.ppo.score(rollout)

    def make_experience(self, rollout: Sampled, scores: Scored | Sequence[float]) -> StepBatch:
        """Pass the responses through policy and reference, shape rewards with the KL, estimate advantages.

        Args:
            rollout: what the policy answered.
            scores: what `score` returned, or your own numbers, one per response of this process.

        Raises:
            ConfigError: the responses cannot be divided over processes and minibatches.
            GuardStop: something is not finite, or the KL is beyond `kl_control.max_kl`.
        """
        check_shares(self.config, self.processes, int(self.processes.sums([len(rollout.episodes)])[0]))
        scored = scores if isinstance(scores, Scored) else given_scores(scores, rollout.episodes)
        return self.ppo.make_experience(rollout, scored)

    def update(self, experience: StepBatch) -> dict[str, float]:
        """Do the optimizer steps of one PPO step, `epochs` passes over `minibatches`, and return its metrics.

        Raises:
            ConfigError: all steps of the config are done, and with them the learning-rate schedule.
        """
        if self.ppo.num_steps >= self.config.steps:
            raise ConfigError(
                f"update: all {self.config.steps} steps of the config are done, and with them the learning-rate "
                "schedule - raise steps"
            )
        metrics = all_metrics(self.ppo, self.ppo.learn(experience))
        self._announcer.stepped(self.ppo.num_steps, metrics)
        return metrics

    def evaluate(self, prompts: GivenPrompts) -> dict[str, float]:
        """Return the policy's mean score, KL to the reference and more on held-out prompts."""
        return held_out_metrics(self.ppo, self._encoded(prompts))

    def save(self, path: str | Path) -> None:
        """Save the policy with its value head in float32, for `AutoModelForCausalLM` or as a peft adapter.

        A separate critic goes next to it, under the same name with `-critic`.

        Raises:
            CheckpointError: the path holds something else, or cannot be written.
        """
        super().save(path)

    def close(self) -> None:
        """Close the rewards: they release a server's connection, or whatever a class of yours holds open."""
        self.ppo.collector.scorer.close()

    @property
    def _trained(self) -> Trainable:
        return self.parts.trained

    @property
    def _tokenizer(self) -> PreTrainedTokenizerBase:
        return self.parts.tokenizer

    @property
    def _num_done(self) -> int:
        return 0 if self._is_taken_up else self.ppo.num_steps

    @property
    def _is_spent(self) -> bool:
        return self.ppo.num_steps >= self.config.steps

    def _use(self, config: StageSettings) -> None:
        super()._use(config)
        self.ppo.set_length(self.config.steps)

    def _load_result(self, output_dir: Path) -> None:
        take_up_parts(self.parts, output_dir / self.result, output_dir / "critic")
        self.ppo.num_steps = int(self.history[-1]["step"]) if self.history else 0
        self._is_merged = self.parts.critic is not None and self.parts.critic.is_merged_when_saved

    def _holds_something_else(self, directory: Path) -> bool:
        return holds_something_else(directory)

    def _write(self, directory: Path) -> None:
        save_parts(self.parts, directory, directory.with_name(f"{directory.name}-critic"), self._card)

    def _encoded(self, prompts: GivenPrompts) -> list[Prompt]:
        source = given_prompts(prompts, self.config.prompts)
        prepared = prepare_prompts(source.rows, self.parts.tokenizer, **source.fitting.fitting)
        if prepared.notes:  # nothing is dropped as bad in silence
            self._run.report(source.name, prepared)
        check_context(self.parts, prepared.items)
        return prepared.items

    def _source(self, prompts: GivenPrompts, num_given: int = 0) -> PromptSource:
        """Return the source of each step's prompts; an iterator begins with those of step `num_given`."""
        if isinstance(prompts, Sized | Path):
            known = self._encoded(prompts)
            self._begin(known)
            return ListedPrompts(known, self.config)
        self._begin(None)
        make = prompt_maker(self.parts.tokenizer, **self.config.prompts.fitting)
        return StreamedPrompts(prompts, make, partial(check_context, self.parts), self.config, num_given)

    def _begin(self, prompts: list[Prompt] | None) -> None:
        """Do, once, the set-up that needs the run's prompts, as far as they are known."""
        if self._has_begun:
            return
        resets = make_resets(self.config, self._run, self.parts.tokenizer, prompts, self.ppo.collector.eos_ids)
        self.ppo.resets = resets
        begun = [*(prompts or []), *([] if resets is None else (each.prompt for each in resets.pool()))]
        if begun:
            check_context(self.parts, begun)
        compile_parts(self.parts, self._run, begun)
        self._has_begun = True  # last: after an error the next call checks everything again

    def _measuring_prompts(self, source: PromptSource, prompts: GivenPrompts) -> Callable[[], dict[str, float]]:
        ready = self._encoded(prompts)
        if isinstance(source, ListedPrompts):  # a stream is not known
            self._run.check_overlap([known.text for known in source.prompts], [prompt.text for prompt in ready])
        check_context(self.parts, ready)
        return lambda: held_out_metrics(self.ppo, ready)
