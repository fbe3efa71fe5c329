"""What every training stage has in its configuration, and what a YAML file adds to it."""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from rlhf.config.course import BestSection, EarlyStoppingSection, GuardsSection
from rlhf.config.section import Section
from rlhf.config.shared import (
    REPOSITORY,
    CheckpointSection,
    Count,
    InRunDirectory,
    LoggingSection,
    ModelSection,
    OptimizerSection,
    Positive,
    Switch,
    TuningSection,
)


class StageSettings(Section):
    """What every training stage has, wherever its models and its data come from."""

    seed: int = Field(0, ge=0, lt=2**31, description="seed of every random stream")
    expected_processes: Count | None = Field(
        None, description="refuse to start when the number of processes differs (accelerate may start fewer than asked)"
    )
    process_timeout: Positive = Field(
        1800.0, description="seconds that a process waits for another before the run ends"
    )
    model: TuningSection = TuningSection()
    compile: Switch = Field(
        "auto",
        description="compile the transformer blocks (20 to 60 s); auto: for a million tokens or more, with no kernels "
        "of our own",
    )
    packing: Switch = Field(
        "auto",
        description="compute nothing for the padding of unequal rows; auto: on a CPU, with models that allow it",
    )
    deterministic: bool = Field(False, description="on a GPU, the same bytes from the same run; slower. A CPU does so")
    optimizer: OptimizerSection = OptimizerSection()
    logging: LoggingSection = LoggingSection()
    checkpoints: CheckpointSection = CheckpointSection()
    best: BestSection | None = Field(
        None, description="which evaluated step is the best, and whether it is the result; null: the last step is"
    )
    early_stopping: EarlyStoppingSection | None = Field(
        None, description="end the run when best.metric no longer improves; null: never"
    )
    guards: GuardsSection = Field(GuardsSection(), description="what happens after a guard")
    on_overlap: Literal["warn", "error"] = Field(
        "warn", description="what happens when held-out records are also in the training data"
    )
    push_to_hub: str | None = Field(
        None,
        pattern=REPOSITORY,
        description="upload the finished model to this repository of the Hugging Face hub, such as user/name",
    )
    hub_private_repo: bool | None = Field(
        None, description="whether a repository that is made for it is private; null: as its owner's default says"
    )

    @property
    def ceiling(self) -> dict[str, Any] | None:
        """The metric whose mean over a window ends the run well at a limit, as `CeilingRule` takes it; None: none."""
        return None

    @model_validator(mode="after")
    def _checkpointed_or_compiled(self) -> Self:
        sections = {"model": self.model, "critic_model": getattr(self, "critic_model", None)}
        for name, section in sections.items():
            if self.compile == "on" and section is not None and section.gradient_checkpointing:
                raise ValueError(f"compile: on and {name}.gradient_checkpointing exclude each other: leave one out")
            if self.compile == "on" and section is not None and section.quantize is not None:
                raise ValueError(f"compile: on and {name}.quantize exclude each other: leave one out")
        return self

    @model_validator(mode="after")
    def _something_to_push(self) -> Self:
        if self.hub_private_repo is not None and self.push_to_hub is None:
            raise ValueError("hub_private_repo: nothing is pushed - set push_to_hub")
        return self

    @model_validator(mode="after")
    def _something_to_wait_for(self) -> Self:
        if self.early_stopping is not None and self.best is None:
            raise ValueError("early_stopping: nothing says what is better - set best.metric")
        return self


class StageConfig(StageSettings, InRunDirectory):
    """A training stage as a YAML file describes it."""

    model: ModelSection


def check_one_length(epochs: int | None, steps: int | None) -> None:
    """Refuse a stage with both epochs and steps, or with neither.

    Raises:
        ValueError: says so.
    """
    if (epochs is None) == (steps is None):
        raise ValueError("set exactly one of epochs and steps")
