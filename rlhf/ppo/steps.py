"""PPO steps as the loop runs them: which prompts, what is logged, what a checkpoint holds."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from rlhf.data.records import Prompt
from rlhf.ppo.cost import step_cost
from rlhf.ppo.report import step_metrics, write_samples
from rlhf.ppo.reset_report import reset_metrics
from rlhf.ppo.start_states import PromptOrder
from rlhf.ppo.trainer import PPOTrainer
from rlhf.ppo.watch import Watch
from rlhf.training.checkpoint import Checkpoint
from rlhf.training.profile import NO_PROFILE, Profile
from rlhf.training.randomness import generator_state, global_rng_state, restore, restore_global_rng_state


class PPOSteps:
    """Feeds the trainer with prompts and writes down what it did."""

    def __init__(
        self, trainer: PPOTrainer, prompts: Sequence[Prompt], samples: Path, profile: Profile = NO_PROFILE
    ) -> None:
        """Take the prompts of the whole data set; each process draws its share of every batch from them."""
        self.trainer = trainer
        self.prompts = prompts
        self.samples = samples
        self.profile = profile
        self._cost = step_cost(trainer) if profile.enabled else None
        self._watch = Watch()
        self._order = PromptOrder(len(prompts), trainer.config.prompts_per_step, trainer.config.seed)

    def step(self, index: int) -> dict[str, float]:
        """Do PPO step `index` and return its metrics."""
        trainer, config = self.trainer, self.trainer.config
        # The schedule follows the PPO step: an early stop inside the epochs must not stretch it.
        trainer.optimizer.num_done = index * config.epochs * config.minibatches
        share = self._order.batch(index)[trainer.processes.rank :: trainer.processes.num]
        result = trainer.step([self.prompts[prompt] for prompt in share])
        if self._cost is not None:
            self.profile.add(*self._cost.of(result))
        done = index + 1
        is_due = done % config.samples_every == 0 or done in (1, config.steps)
        if trainer.processes.is_main and is_due:
            write_samples(result, self.samples / f"step-{done:06d}.jsonl", config.num_samples)
        metrics = step_metrics(result, trainer.processes, has_critic=config.has_critic)
        if trainer.resets is not None:
            metrics |= reset_metrics(result, trainer.processes)
        for warning in self._watch.warnings(metrics):
            trainer.processes.say(warning)
        return {"episode": float(done * config.rollout_batch_size), **metrics, **result.collected.reward_metrics}

    def evaluate(self) -> dict[str, float]:
        """Return nothing: `rlhf evaluate` compares policies after the run."""
        return {}

    def saved(self) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
        """Return masters, moments, generators, the KL coefficient, the running scales and the state of resets.

        The global generators are among them: a user's reward may draw from them.
        """
        trainer = self.trainer
        own = {"rollout": generator_state(trainer.generators.rollout), **global_rng_state()}
        if trainer.resets is not None:
            own["resets"] = generator_state(trainer.resets.generator)
        everyone = trainer.processes.gathered([own])
        generators = {f"{name}_{rank}": state for rank, states in enumerate(everyone) for name, state in states.items()}
        generators["epochs"] = generator_state(trainer.generators.epochs)
        tensors = {
            "masters": {name: master.detach() for name, master in trainer.optimizer.weights.masters.items()},
            "optimizer": trainer.optimizer.tensors(),
            "generators": generators,
        }
        state = {"kl_coef": trainer.kl_control.coef, **trainer.collector.scorer.state()}
        return tensors, state if trainer.resets is None else {**state, "resets": trainer.resets.state()}

    def restore(self, checkpoint: Checkpoint) -> None:
        """Set what `saved` returned."""
        trainer = self.trainer
        trainer.optimizer.weights.load(checkpoint.tensors("masters"))
        trainer.optimizer.load(checkpoint.tensors("optimizer"), 0)
        generators = checkpoint.tensors("generators")
        restore(trainer.generators.epochs, generators.pop("epochs"))
        ending = f"_{trainer.processes.rank}"
        own = {name.removesuffix(ending): state for name, state in generators.items() if name.endswith(ending)}
        restore(trainer.generators.rollout, own.pop("rollout"))
        if trainer.resets is not None:
            restore(trainer.resets.generator, own.pop("resets"))
            trainer.resets.load(checkpoint.state["resets"])
        restore_global_rng_state(own)
        trainer.kl_control.coef = float(checkpoint.state["kl_coef"])
        trainer.collector.scorer.load(checkpoint.state)
