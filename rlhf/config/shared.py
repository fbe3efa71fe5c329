"""Sections that several stages share: the model, LoRA, data sources, the optimizer, logging and checkpoints."""

from pathlib import PurePath
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
    model_validator,
)

from rlhf.config.section import Section


def _on_or_off(value: Any) -> Any:
    """YAML reads the bare words on and off as truth values."""
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


Switch = Annotated[Literal["auto", "on", "off"], BeforeValidator(_on_or_off)]
CudaGraphs = Annotated[Literal["auto", "off"], BeforeValidator(_on_or_off)]
CUDA_GRAPHS = (
    "auto: on CUDA, and nowhere else, a decode step is captured once for a number of rows and then replayed, where the "
    "model allows it (docs/gpu.md); off: never"
)
"""What the key `cuda_graphs` of several sections says."""
Precision = Literal["auto", "float32", "bfloat16"]
OverLong = Literal["drop", "cut_left", "error"]
OnEmpty = Literal["error", "skip"]
OnBadRow = Literal["stop", "drop"]
Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
REPOSITORY = r"^\w[\w.-]*(/\w[\w.-]*)?$"
"""The name of a repository on the hub."""


class LoraSection(Section):
    """Low-rank adapters (peft) in place of full finetuning."""

    r: Count = Field(16, description="rank of the adapter matrices")
    alpha: Positive = Field(32.0, description="scale of the adapter; the update is multiplied by alpha / r")
    dropout: Fraction = Field(0.0, description="dropout on the adapter's input; 0 in PPO, where dropout is off")
    target_modules: str | list[str] = Field("all-linear", description="module names, as in peft")


class ChatSection(Section):
    """How a tokenizer writes conversations; what is set here is saved with the model."""

    chat_template: str | None = Field(
        None, description="file with a chat template (Jinja) to use instead of the tokenizer's own"
    )
    chat_template_kwargs: dict[str, Any] = Field(
        {}, description="values of the template's variables, such as {enable_thinking: false}"
    )

    @property
    def chat(self) -> dict[str, Any]:
        """These settings alone, as `load_tokenizer` takes them."""
        return {"chat_template": self.chat_template, "chat_template_kwargs": self.chat_template_kwargs}


def _lora_form(value: Any) -> str:
    """Return which of its two forms `lora` has, so that errors concern only that one."""
    return "continue" if isinstance(value, str) else "settings"


Lora = Annotated[
    Annotated[LoraSection, Tag("settings")] | Annotated[Literal["continue"], Tag("continue")],
    Discriminator(_lora_form),
]


class TuningSection(ChatSection):
    """Which weights of a model are trained, and what it computes in."""

    precision: Precision = Field("auto", description="compute type; `auto` takes bfloat16 where the hardware has it")
    lora: Lora | None = Field(
        None,
        description="train new low-rank adapters, keep the model frozen; continue: train the adapter in `path` further",
    )
    trainable_layers: Count | None = Field(
        None, description="train only this many of the last blocks and the final norm; embeddings stay frozen"
    )

    quantize: Literal["nf4", "int8"] | None = Field(
        None,
        description="hold the frozen linear layers below an adapter in 4 bits (nf4, QLoRA) or 8 bits (int8); needs "
        "lora and the extra `quantized`",
    )
    gradient_checkpointing: bool = Field(
        False, description="compute each block again in the backward pass: less memory, about a third more time"
    )

    @property
    def new_lora(self) -> dict[str, Any] | None:
        """The settings of new adapters, as `make_trainable` takes them; None where none are added."""
        return self.lora.model_dump() if isinstance(self.lora, LoraSection) else None

    @model_validator(mode="after")
    def _something_frozen_to_quantize(self) -> Self:
        if self.quantize is not None and self.lora is None:
            raise ValueError(
                f"quantize: {self.quantize} holds weights that no gradient can change - set lora: {{r: 16}}, or set "
                "quantize to null"
            )
        return self

    @model_validator(mode="after")
    def _one_way_to_train(self) -> Self:
        if self.lora is not None and self.trainable_layers is not None:
            raise ValueError("lora and trainable_layers exclude each other: set one of them to null")
        return self


class ModelSource(Section):
    """Which model is loaded."""

    path: str = Field(description="a local directory, `fetch:NAME`, or a name on the Hugging Face hub")
    random_init: bool = Field(False, description="take only config.json and start from random weights (tests)")
    trust_remote_code: bool = Field(False, description="run Python code that comes with the model")


class ModelSection(TuningSection, ModelSource):
    """Which model is loaded and which of its weights are trained."""


class FittingSection(Section):
    """How the columns of rows are named, and what happens to rows that do not fit."""

    column_map: dict[str, str] = Field({}, description="our column name: name in the data")
    max_length: Count = Field(512, description="longest sequence in tokens")
    over_long: OverLong = Field(
        "drop", description="what happens to longer rows: drop, cut the prompt at the left, or stop"
    )
    on_empty: OnEmpty = Field("error", description="what happens to rows with an empty prompt or completion")
    on_bad_row: OnBadRow = Field(
        "stop", description="what happens to rows that cannot be used: stop, or drop them and count them by reason"
    )
    system: Literal["keep", "merge_into_user", "drop"] = Field(
        "keep", description="what to do with system messages, for templates that refuse them"
    )

    @property
    def fitting(self) -> dict[str, Any]:
        """These settings alone, as the functions of `rlhf.data` take them."""
        return {name: getattr(self, name) for name in FittingSection.model_fields if name != "column_map"}

    @property
    def naming(self) -> dict[str, Any]:
        """The columns that these settings name, as `in_our_names` takes them."""
        return {"column_map": self.column_map, "keep_faulty": self.on_bad_row == "drop"}


class PairFittingSection(FittingSection):
    """The same for preference pairs."""

    margin_from: tuple[str, str] | None = Field(
        None, description="columns of the chosen and the rejected answer's score: the margin is their difference"
    )

    @property
    def naming(self) -> dict[str, Any]:
        """The columns that these settings name, as `in_our_names` takes them."""
        return {**super().naming, "margin_from": self.margin_from}


class DataSource(Section):
    """Where rows come from."""

    path: str = Field(
        description="a .jsonl, .json, .csv (each also .gz, .zst) or .parquet file, a `datasets` directory, "
        "`fetch:NAME/file`, or a hub name"
    )
    split: str | None = Field(None, description="split of a `datasets` directory or hub data set")
    limit: Count | None = Field(None, description="rows to take from the front")


class DataSection(FittingSection, DataSource):
    """Where rows come from and what happens to the ones that do not fit."""


class PairSection(PairFittingSection, DataSection):
    """Where preference pairs come from and what happens to the ones that do not fit."""


class OptimizerSection(Section):
    """AdamW with gradient clipping and a schedule."""

    learning_rate: Positive = Field(3e-5, description="peak learning rate")
    schedule: Literal["cosine", "linear", "constant"] = Field("cosine", description="shape after the warm-up")
    warmup_fraction: Fraction = Field(0.05, description="share of the updates with a rising learning rate")
    weight_decay: NonNegative = Field(0.0, description="decoupled weight decay on matrices, none on norms and biases")
    betas: tuple[Fraction, Fraction] = Field((0.9, 0.95), description="decay rates of Adam's two moments")
    eps: Positive = Field(1e-8, description="Adam's epsilon, outside the square root")
    max_grad_norm: Positive = Field(1.0, description="gradients are clipped to this global L2 norm")
    moments: Literal["float32", "8bit"] = Field(
        "float32", description="how Adam's moments are kept; 8bit takes a quarter of their memory, for matrices"
    )


class LoggingSection(Section):
    """What is written while a stage runs."""

    every: Count = Field(
        1, description="optimizer steps (SFT, reward model) or PPO steps between rows in metrics.jsonl"
    )
    trackers: list[Literal["tensorboard", "wandb", "mlflow", "trackio", "swanlab"]] = Field(
        [],
        description="trackers of accelerate that receive the numbers; tensorboard, wandb and trackio also get samples",
    )


class CheckpointSection(Section):
    """When a run is saved and how it resumes."""

    every: Count | None = Field(None, description="steps between checkpoints; null saves none before the end")
    keep: Count = Field(2, description="number of newest checkpoints to keep")
    resume: str = Field(
        "auto",
        min_length=1,
        description="`auto` resumes from the newest intact checkpoint, `never` refuses a directory with a run, and the "
        "path of a checkpoint (.../checkpoints/step-000020) resumes from it and from no other",
    )


class InRunDirectory(Section):
    """A stage whose strings may hold `{run_dir}`: the parent of its output directory, which other stages share."""

    output_dir: str = Field(
        min_length=1, description="directory of this stage; {run_dir} in other keys stands for its parent"
    )

    @classmethod
    def completed(cls, given: dict[str, Any]) -> dict[str, Any]:
        """Return the mapping of a file with `{run_dir}` filled in; the loader calls this before validation."""
        output_dir = given.get("output_dir")
        return filled(given, str(PurePath(output_dir).parent)) if isinstance(output_dir, str) and output_dir else given


def filled(given: dict[str, Any], run_dir: str) -> dict[str, Any]:
    """Return a stage's mapping with `{run_dir}` replaced in every string but its output_dir."""
    return {key: value if key == "output_dir" else _replaced(value, run_dir) for key, value in given.items()}


def _replaced(value: Any, run_dir: str) -> Any:
    if isinstance(value, str):
        return value.replace("{run_dir}", run_dir)
    if isinstance(value, dict):
        return {key: _replaced(item, run_dir) for key, item in value.items()}
    return [_replaced(item, run_dir) for item in value] if isinstance(value, list) else value
