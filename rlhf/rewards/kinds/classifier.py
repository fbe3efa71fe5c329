"""Any sequence classifier as a reward: an encoder or a decoder, with one label or several, reading text.

`model.ModelReward` is the reward for scalar models of this project, which read the policy's tokens; this one is for
any other model, such as a sentiment classifier.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
)

from rlhf.data.batching import padded
from rlhf.data.conversations.bounded import bounded
from rlhf.data.conversations.messages import with_continuation
from rlhf.errors import ConfigError, RewardError
from rlhf.functional.token_budget import token_budget_batches
from rlhf.models.pretrained.directory import check_directory
from rlhf.models.pretrained.loading import context_length
from rlhf.models.pretrained.quiet import quiet_transformers
from rlhf.models.pretrained.refusals import LOADING_ERRORS, offline
from rlhf.rewards.checks import checked_scores
from rlhf.rewards.kinds.model import Loaded
from rlhf.rewards.protocol import Episode

Activation = Literal["none", "softmax", "log_softmax", "sigmoid", "log_sigmoid"]

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda logits: logits,
    "softmax": lambda logits: logits.softmax(-1),
    "log_softmax": lambda logits: logits.log_softmax(-1),
    "sigmoid": torch.sigmoid,
    "log_sigmoid": nn.functional.logsigmoid,
}


class ClassifierReward:
    """Reads prompt and response through its own tokenizer, and returns one label's number.

    A conversation goes through the classifier's own chat template; without one, newlines join its messages.
    """

    def __init__(
        self,
        path: str,
        *,
        label: int | str | None,
        activation: Activation,
        device: torch.device,
        max_tokens: int = 4096,
        loaded: Loaded | None = None,
    ) -> None:
        """Load the classifier in float32, frozen, or take one that is loaded.

        Args:
            path: directory or hub name.
            label: by its name in the model's config or by its index; None if there is only one.
            activation: applied to the logits before picking the label.
            device: where it runs.
            max_tokens: padded tokens of one forward pass.
            loaded: a classifier with its tokenizer, which this reward then owns; `path` only names them.

        Raises:
            ConfigError: the model or its tokenizer cannot be loaded, or has no such label.
        """
        self._where = f"reward model {path}"
        labels = labels_of(path) if loaded is None else label_names(loaded.model.config)
        self._label = _label_index(label, labels, path)
        self._activation = _ACTIVATIONS[activation]
        self._tokenizer: Any
        self._tokenizer, model = _loaded(path) if loaded is None else (loaded.tokenizer, loaded.model)
        # Decoders read their score at the last token that is not padding.
        if model.config.pad_token_id is None:
            model.config.pad_token_id = self._tokenizer.pad_token_id
        self._model = model.requires_grad_(False).eval().to(device)
        self._max_tokens = max_tokens

    @torch.no_grad()
    def score(self, episodes: Sequence[Episode]) -> list[float]:
        """Return one score per episode, in order.

        Raises:
            RewardError: a score is not finite, or a text is longer than the model has positions for.
        """
        rows = [self._ids(episode) for episode in episodes]
        limit, longest = self._limit(), max(map(len, rows), default=0)
        if longest > limit:
            raise RewardError(f"{self._where}: prompt and response have {longest} tokens, the model reads {limit}")
        scores = torch.zeros(len(rows))
        # Without a pad token each row runs alone: nothing can pad a shorter one.
        budget = 1 if self._model.config.pad_token_id is None else self._max_tokens
        for items in token_budget_batches([len(row) for row in rows], budget):
            scores[items] = self._scores([rows[item] for item in items])
        return checked_scores(scores, len(rows), self._where, [episode.prompt for episode in episodes])

    @property
    def models(self) -> list[nn.Module]:
        """The model."""
        return [self._model]

    def close(self) -> None:
        """Do nothing: nothing needs closing."""

    def _scores(self, rows: Sequence[list[int]]) -> Tensor:
        ids, mask = padded(rows, self._model.config.pad_token_id or 0)
        device = self._model.device
        logits = self._model(input_ids=ids.to(device), attention_mask=mask.long().to(device)).logits
        return self._activation(logits.float())[:, self._label].cpu()

    def _ids(self, episode: Episode) -> list[int]:
        if isinstance(episode.prompt, str):
            return list(self._tokenizer(episode.prompt + episode.completion)["input_ids"])
        messages = with_continuation(episode.prompt, [{"role": "assistant", "content": episode.completion}])
        if self._tokenizer.chat_template is None:
            texts = [str(message.get("content", "")) for message in messages]
            return list(self._tokenizer("\n".join(texts))["input_ids"])
        with bounded(self._tokenizer.get_chat_template(), self._where):
            text = self._tokenizer.apply_chat_template(messages, tokenize=False)
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def _limit(self) -> int:
        # RoBERTa's positions begin after its pad id, so its tokenizer knows better than its config.
        known = [self._tokenizer.model_max_length, context_length(self._model)]
        return min(int(number) for number in known if number is not None)


def labels_of(path: str) -> list[str]:
    """Return the names of a classifier's labels, by index.

    Raises:
        ConfigError: the config cannot be read.
    """
    check_directory(path)
    try:
        config = AutoConfig.from_pretrained(path, trust_remote_code=False)
    except LOADING_ERRORS as problem:
        raise _unloadable(path, "config", problem) from None
    return label_names(config)


def label_names(config: PretrainedConfig) -> list[str]:
    """Return the names of the labels in a classifier's config, by index."""
    names: dict[Any, str] = {**(config.id2label or {})}
    return [str(names.get(index, index)) for index in range(config.num_labels or 0)]


def reads_tokens(path: str) -> bool:
    """Whether `ModelReward` can take a classifier: one label, a linear head `score`, causal attention."""
    if len(labels_of(path)) != 1:
        return False
    config = AutoConfig.from_pretrained(path, trust_remote_code=False)
    try:
        with torch.device("meta"):
            model = AutoModelForSequenceClassification.from_config(config, trust_remote_code=False)
    except ValueError:  # no classifier of this architecture: loading it raises the error
        return True
    return has_linear_score(model)


def has_linear_score(model: PreTrainedModel) -> bool:
    """Whether the head is a decoder's, as `ModelReward` reads it."""
    return isinstance(getattr(model, "score", None), nn.Linear)


def _label_index(label: int | str | None, labels: Sequence[str], path: str) -> int:
    if label is None and len(labels) == 1:
        return 0
    if isinstance(label, int) and 0 <= label < len(labels):
        return label
    if isinstance(label, str) and label in labels:
        return labels.index(label)
    said = "no label" if label is None else f"label {label!r}"
    raise ConfigError(
        f"{path}: the rewards section names {said}; the model has {list(labels)} - name one, or its index"
    )


def _loaded(path: str) -> tuple[Any, PreTrainedModel]:
    try:
        with quiet_transformers(), torch.random.fork_rng(devices=[]):
            tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
            model, report = AutoModelForSequenceClassification.from_pretrained(
                path, dtype=torch.float32, use_safetensors=True, trust_remote_code=False, output_loading_info=True
            )
    except LOADING_ERRORS as problem:
        raise _unloadable(path, "sequence classifier", problem) from None
    if report["missing_keys"]:
        raise ConfigError(
            f"{path}: the files lack weights of {type(model).__name__}: {sorted(report['missing_keys'])[:3]}"
        )
    return tokenizer, model


def _unloadable(path: str, what: str, problem: Exception) -> ConfigError:
    line = offline(path) or [*str(problem).strip().splitlines(), type(problem).__name__][0][:200]
    return ConfigError(f"{path}: no {what} could be loaded ({line}) - give a local directory or a hub name")
