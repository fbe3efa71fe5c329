"""The schema of `rlhf ppo`, and the part of it that `PPOTrainer` takes from Python."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, model_validator

from rlhf.config.course import check_choice
from rlhf.config.engine import EngineSection, NativeEngineSection, ServerEngineSection
from rlhf.config.estimators import ESTIMATORS, Estimator
from rlhf.config.resets import ResetSection
from rlhf.config.rewards import RewardSection, check_names_and_gates
from rlhf.config.section import Section
from rlhf.config.shared import (
    CUDA_GRAPHS,
    Count,
    CudaGraphs,
    DataSection,
    DataSource,
    FittingSection,
    Fraction,
    LoraSection,
    ModelSection,
    NonNegative,
    OptimizerSection,
    Positive,
    TuningSection,
)
from rlhf.config.stage import StageConfig, StageSettings

if TYPE_CHECKING:
    Advantage = str
else:
    Advantage = Literal[tuple(ESTIMATORS)]  # the keys of a table: mypy cannot read them


EVALUATED = ("evaluation/scores", "evaluation/kl", "evaluation/share_ended", "evaluation/response_length")
"""What an evaluation on held-out prompts measures."""


class SamplingSection(Section):
    """How responses are drawn. Top-k and top-p are left out: they would bias the ratio."""

    max_new_tokens: Count = Field(48, description="longest response in tokens")
    temperature: Positive = Field(1.0, description="divides the logits, in sampling and in every logprob")
    stop_strings: list[str] = Field([], description="a response ends when it contains one of them")
    batch_rows: Count = Field(64, description="prompts decoded together by one process")
    cuda_graphs: CudaGraphs = Field("auto", description=CUDA_GRAPHS)


class KLSection(Section):
    """The controller of the KL coefficient."""

    controller: Literal["fixed", "adaptive"] = Field(
        "fixed", description="constant coefficient, or steered to a target"
    )
    target: Positive = Field(6.0, description="target KL in nats per sequence (adaptive)")
    horizon: Count = Field(10000, description="episodes over which the coefficient adapts (adaptive)")
    max_kl: Positive | None = Field(None, description="KL in nats per sequence above which the run stops with status 6")
    stop_at_kl: Positive | None = Field(
        None,
        description="KL in nats per sequence at which the run ends well and saves its policy: the mean over the last "
        "stop_window steps reaches it; unlike target it steers nothing, unlike max_kl it is no failure",
    )
    stop_window: Count = Field(5, description="steps whose mean KL is compared with stop_at_kl")


class ScoreSection(Section):
    """What happens to a score before it becomes a reward."""

    missing_eos_penalty: NonNegative = Field(0.0, description="subtracted from the score of a response without EOS")
    clip: Positive | None = Field(None, description="scores are clipped to [-clip, clip]")
    normalise: Literal["none", "running"] = Field("none", description="divide by a running standard deviation")


class PPOSettings(StageSettings):
    """Every PPO setting except the sources of policy, prompts and rewards."""

    model: TuningSection = Field(TuningSection(), description="which policy weights are trained, in which precision")
    critic: Literal["shared", "separate"] = Field(
        "shared", description="value head on the policy's trunk, or a second model"
    )
    critic_model: ModelSection | None = Field(None, description="init of the separate critic, usually the reward model")
    prompts: FittingSection = Field(FittingSection(), description="what happens to prompts that do not fit")
    sampling: SamplingSection = SamplingSection()
    engine: EngineSection = Field(NativeEngineSection(), description="what draws the responses")
    reset: ResetSection | None = Field(None, description="episodes that begin inside a demonstration; null: none")
    score: ScoreSection = ScoreSection()
    value_optimizer: OptimizerSection = OptimizerSection(learning_rate=1e-3)
    kl_control: KLSection = KLSection()

    steps: Count = Field(description="PPO steps: collect a batch, update on it")
    rollout_batch_size: Count = Field(64, description="episodes per PPO step, over all processes")
    num_samples_per_prompt: Count = Field(
        1,
        description="episodes per prompt of a step; must divide rollout_batch_size, at least 2 for rloo and group",
    )
    minibatches: Count = Field(2, description="optimizer steps per epoch; must divide rollout_batch_size")
    epochs: Count = Field(4, description="passes over each collected batch")
    microbatch_tokens: Count = Field(1024, description="tokens in one forward and backward pass of one process")
    kl_coef: NonNegative = Field(0.05, description="weight of the KL penalty in the reward, per nat")
    kl_estimator: Literal["k1", "k2", "k3"] = Field(
        "k1", description="per-token estimator of the KL to the reference; the penalty is unbiased only with k1"
    )
    advantage: Advantage = Field(
        "gae",
        description="advantage of each token: return of the whole response, reward to go, reward to go minus the value "
        "(baseline), GAE, or, without a critic, the return relative to the other responses to the prompt (rloo, "
        "group); only baseline and gae train a value head",
    )
    objective: Literal["policy_gradient", "ppo"] = Field(
        "ppo", description="plain policy gradient, or the importance-weighted clipped surrogate"
    )
    gamma: Fraction = Field(1.0, description="discount per token")
    gae_lambda: Fraction = Field(0.95, description="0 gives one-step TD errors, 1 gives Monte Carlo (gae)")
    clip_range: Positive | None = Field(
        0.2, description="the ratio is clipped to [1 - clip_range, 1 + clip_range]; null: no clip (ppo)"
    )
    value_clip_range: Positive | None = Field(
        0.2, description="values may move this far from the old ones; null: no clip"
    )
    value_coef: NonNegative = Field(0.1, description="weight of the value loss on the shared trunk")
    entropy_coef: NonNegative = Field(0.0, description="weight of the entropy bonus, per nat")
    whiten_advantages: bool = Field(True, description="scale advantages to mean 0 and variance 1 over the global batch")
    target_kl: Positive | None = Field(
        None, description="end the epochs early when KL(old || new) per token exceeds this"
    )
    release_gradients: bool = Field(
        False,
        description="free the memory of gradients while responses are drawn, and take it again for the update; on CUDA "
        "that of decoding is freed after the responses, and CUDA graphs are captured again",
    )
    reference_on_host: bool = Field(
        False, description="keep the reference in the host's memory, and move it to the GPU for its passes"
    )
    num_samples: Count = Field(8, description="responses written to samples/ each time")
    samples_every: Count = Field(5, description="PPO steps between writing samples")

    @property
    def minibatch_size(self) -> int:
        """Episodes per optimizer step, over all processes."""
        return self.rollout_batch_size // self.minibatches

    @property
    def prompts_per_step(self) -> int:
        """Prompts per PPO step, over all processes."""
        return self.rollout_batch_size // self.num_samples_per_prompt

    @property
    def longest_episode(self) -> int:
        """The most tokens that an episode may have, prompt and response."""
        return self.prompts.max_length + self.sampling.max_new_tokens

    @property
    def has_critic(self) -> bool:
        """Whether the advantages read values, so that there is a value head to train."""
        return self.estimator.has_critic

    @property
    def estimator(self) -> Estimator:
        """The advantage estimator."""
        return ESTIMATORS[self.advantage]

    @property
    def ceiling(self) -> dict[str, Any] | None:
        """The KL that ends the run."""
        limit, window = self.kl_control.stop_at_kl, self.kl_control.stop_window
        key = "kl_control.stop_at_kl"
        return None if limit is None else {"metric": "objective/kl", "limit": limit, "window": window, "key": key}

    @model_validator(mode="after")
    def _sizes(self) -> Self:
        if self.rollout_batch_size % self.minibatches:
            size, parts = self.rollout_batch_size, self.minibatches
            near = [n for n in range(1, size + 1) if size % n == 0]
            below = max((n for n in near if n < parts), default=1)
            above = min((n for n in near if n > parts), default=size)
            raise ValueError(
                f"minibatches ({parts}) must divide rollout_batch_size ({size}); nearest valid: {below} or {above}"
            )
        return self

    @model_validator(mode="after")
    def _groups(self) -> Self:
        size, samples = self.rollout_batch_size, self.num_samples_per_prompt
        if size % samples:
            raise ValueError(f"num_samples_per_prompt ({samples}) must divide rollout_batch_size ({size})")
        if self.estimator.compares_samples and samples < 2:
            raise ValueError(
                f"advantage: {self.advantage} compares responses to one prompt: num_samples_per_prompt must be at "
                f"least 2, found {samples}"
            )
        return self

    @model_validator(mode="after")
    def _settings_with_effect(self) -> Self:
        """Refuse a changed setting that would have no effect; the default always passes."""
        unread = {} if "gae_lambda" in self.estimator.reads else {"gae_lambda": f"advantage: {self.advantage}"}
        if not self.has_critic:
            critic = ("critic", "critic_model", "value_optimizer", "value_clip_range", "value_coef")
            unread |= dict.fromkeys(critic, f"advantage: {self.advantage}, which trains no value head")
        if self.objective == "policy_gradient":
            unread["clip_range"] = "objective: policy_gradient"
        defaults = type(self).model_fields
        for name, reason in unread.items():
            if getattr(self, name) != defaults[name].default:
                null = ", or set it to null" if name == "value_optimizer" else ""
                raise ValueError(f"{name} has no effect with {reason} - leave it out{null}")
        if self.critic_model is not None and any(self.critic_model.chat.values()):
            raise ValueError("critic_model: a chat template has no effect, it reads the policy's tokens - leave it out")
        return self

    @model_validator(mode="after")
    def _parts_that_fit(self) -> Self:
        if self.critic_model is not None and self.critic_model.lora == "continue":
            raise ValueError("critic_model.lora: a critic is a whole model without adapter - use {r: 16} or null")
        if (self.critic == "separate") != (self.critic_model is not None):
            raise ValueError("critic: separate needs critic_model, and critic: shared refuses it")
        if self.kl_control.controller == "adaptive" and self.kl_coef == 0:
            raise ValueError("kl_control.controller: adaptive multiplies kl_coef, and 0 stays 0 - start above 0")
        if self.kl_control.controller == "adaptive" and self.kl_control.horizon < self.rollout_batch_size:
            raise ValueError(
                f"kl_control.horizon ({self.kl_control.horizon}) must be at least rollout_batch_size "
                f"({self.rollout_batch_size}), else a single step overshoots"
            )
        stop, most = self.kl_control.stop_at_kl, self.kl_control.max_kl
        if stop is not None and most is not None and stop >= most:
            raise ValueError(
                f"kl_control.stop_at_kl ({stop:g}) must be below kl_control.max_kl ({most:g}), which stops it first"
            )
        if self.reset is not None and self.sampling.max_new_tokens == 1:
            raise ValueError("reset needs sampling.max_new_tokens of at least 2: one token to force, one to sample")
        if isinstance(self.model.lora, LoraSection) and self.model.lora.dropout > 0:
            raise ValueError("model.lora.dropout must be 0 in PPO: dropout makes the ratio noise")
        return self

    @model_validator(mode="after")
    def _no_states_of_scores_to_come(self) -> Self:
        if isinstance(self.engine, ServerEngineSection) and self.engine.ahead and self.reset is not None:
            raise ValueError("engine.ahead: reset chooses the next states from the scores of this step - leave one out")
        return self


class PPOConfig(PPOSettings, StageConfig):
    """Proximal policy optimisation with a value head."""

    model: ModelSection = Field(description="the policy to start from")
    reference: str | None = Field(
        None,
        description="model to which the KL is measured, a directory, `fetch:NAME` or hub name; null: the policy as it "
        "is at the start, so a run that continues from a PPO policy should name the SFT policy",
    )
    prompts: DataSection = Field(description="prompts: text or messages")
    rewards: list[RewardSection] = Field(
        min_length=1, description="what scores a response; the score is the weighted sum"
    )
    eval_prompts: DataSource | None = Field(
        None, description="held-out prompts, with columns and fitting as in prompts: mean score and KL during the run"
    )
    eval_every: Count | None = Field(None, description="PPO steps between evaluations; null evaluates at the end")

    @classmethod
    def completed(cls, given: dict[str, Any]) -> dict[str, Any]:
        """Also drop a `value_optimizer` of null, so that an override can undo what a file says."""
        filled = super().completed(given)
        return {key: value for key, value in filled.items() if key != "value_optimizer" or value is not None}

    @property
    def held_out_prompts(self) -> DataSection | None:
        """The section `prompts` with the rows of `eval_prompts`."""
        if self.eval_prompts is None:
            return None
        return self.prompts.model_copy(update=dict(self.eval_prompts))

    @model_validator(mode="after")
    def _rewards_that_fit(self) -> Self:
        check_rewards(self.rewards, self)
        return self

    @model_validator(mode="after")
    def _something_to_evaluate(self) -> Self:
        if self.eval_every is not None and self.eval_prompts is None and self.best is None:
            raise ValueError("eval_every: there is nothing to evaluate - set eval_prompts")
        check_choice(self.best, self.eval_every, self.eval_prompts, key="eval_prompts.path", metrics=EVALUATED)
        return self


def check_rewards(rewards: Sequence[RewardSection], settings: PPOSettings) -> None:
    """Refuse rewards that do not fit each other or the settings.

    Raises:
        ValueError: says which, and why.
    """
    check_names_and_gates(rewards)
    drops = any("drop_episode" in (section.on_error, section.on_nan) for section in rewards)
    if drops and settings.estimator.compares_samples:
        raise ValueError(f"advantage: {settings.advantage} needs whole groups: drop_episode would leave holes in them")
