"""The second gold judge: a logistic regression on a sentence encoder's embeddings, which knows no single word.

score = logit / (standard deviation of the logit on held-out human text)
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import normalize
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlhf.data.batching import padded
from rlhf.errors import ConfigError
from rlhf.evaluation.judges.gold import INVERSE_REGULARISATION, check_training_set, sklearn
from rlhf.functional.token_budget import token_budget_batches
from rlhf.models.pretrained.loading import context_length, frozen_in, load_encoder
from rlhf.models.pretrained.tokenizer import read_tokenizer

Floats = NDArray[np.float64]

MAX_ITERATIONS = 2000
"""Of the solver; 6,000 texts take about 30."""


@dataclass(frozen=True, slots=True)
class Encoder:
    """A sentence encoder, frozen."""

    path: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase

    @classmethod
    def load(cls, path: str, device: torch.device) -> Self:
        """Load it with its tokenizer, in float32: a judge scores alike on every machine, and is not slower.

        (At 384 numbers a token bfloat16 took half as long again as float32, on a processor that has units for it.)

        Raises:
            ConfigError: there is none at `path`, or its tokenizer adds nothing, so that an empty text has no token.
        """
        tokenizer = read_tokenizer(path)
        if not tokenizer("")["input_ids"]:
            raise ConfigError(f"{path}: its tokenizer adds no token to a text, so this is no sentence encoder")
        model = frozen_in(load_encoder(path), torch.float32).to(device)  # type: ignore[arg-type]  # decorated without types
        return cls(path, model, tokenizer)

    @torch.no_grad()
    def embed(self, texts: Sequence[str], max_tokens: int) -> Floats:
        """Return embeddings [len(texts), H] of length 1: the mean of the last states over the text's tokens.

        As sentence-transformers does it (Reimers and Gurevych 2019, arXiv:1908.10084, section 3, mean pooling).

        Args:
            texts: cut on the right at what tokenizer and model can take.
            max_tokens: padded tokens of one forward pass.
        """
        embeddings = np.zeros((len(texts), self.model.config.hidden_size))
        if not texts:
            return embeddings
        longest = min(self.tokenizer.model_max_length, context_length(self.model) or self.tokenizer.model_max_length)
        rows: list[list[int]] = self.tokenizer(list(texts), truncation=True, max_length=longest)["input_ids"]
        for items in token_budget_batches([len(row) for row in rows], max_tokens):
            ids, mask = (part.to(self.model.device) for part in padded([rows[item] for item in items], self._pad_id))
            states = self.model(input_ids=ids, attention_mask=mask.long()).last_hidden_state.float()
            means = (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
            embeddings[items] = normalize(means, dim=1).cpu().numpy()
        return embeddings

    @property
    def _pad_id(self) -> int:
        return int(self.tokenizer.pad_token_id or 0)  # masked, so any id will do


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """What the judge has learned from human labels."""

    coef: list[float]
    """One weight for each number of an embedding."""
    intercept: float
    unit: float
    """Standard deviation of the logit on held-out human text; one unit of the score."""
    accuracy: float
    """Share of the held-out texts on which the judge agrees with the author."""
    num_heldout: int

    @classmethod
    def fit(cls, train: Floats, labels: Sequence[int], heldout: Floats, truth: Sequence[int]) -> Self:
        """Fit the regression on embeddings `train` [N, H] with N labels, 0 or 1; scale and accuracy on `heldout`.

        Raises:
            ValueError: the solver did not converge, or gives every held-out text the same logit.
        """
        classifier = sklearn("linear_model").LogisticRegression(C=INVERSE_REGULARISATION, max_iter=MAX_ITERATIONS)
        classifier.fit(train, np.asarray(labels))
        if int(classifier.n_iter_[0]) >= MAX_ITERATIONS:
            raise ValueError(f"the regression on embeddings did not converge in {MAX_ITERATIONS} iterations")
        logits = heldout @ classifier.coef_[0] + classifier.intercept_[0]
        if not logits.std() > 0:
            raise ValueError("the judge of embeddings gives every held-out human text the same logit")
        return cls(
            coef=classifier.coef_[0].tolist(),
            intercept=float(classifier.intercept_[0]),
            unit=float(logits.std()),
            accuracy=float(np.mean((logits > 0) == np.asarray(truth, dtype=bool))),
            num_heldout=len(heldout),
        )

    def to_json(self) -> str:
        """Return it as JSON text, numbers in full."""
        return json.dumps(asdict(self))

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """Read what `to_json` gave; None where there is no such file, or it is broken."""
        try:
            record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            return cls(**record)
        except (OSError, ValueError, TypeError, RecursionError):
            return None


@dataclass(frozen=True, slots=True)
class EmbeddingJudge:
    """A classifier on human labels that reads a text as a whole."""

    encoder: Encoder
    fitted: Fitted
    max_tokens: int
    """Padded tokens of one forward pass."""

    @classmethod
    def train(
        cls,
        encoder: Encoder,
        max_tokens: int,
        pieces: tuple[Sequence[str], Sequence[int]],
        human_texts: tuple[Sequence[str], Sequence[int]],
    ) -> Self:
        """Fit the judge on human `pieces`, texts and labels; unit and accuracy come from `human_texts`, held out.

        Raises:
            ValueError: the two share a text, the labels are all the same, or nothing can be learned from them.
        """
        check_training_set(*pieces, human_texts[0])
        train, heldout = (encoder.embed(texts, max_tokens) for texts in (pieces[0], human_texts[0]))
        return cls(encoder, Fitted.fit(train, pieces[1], heldout, human_texts[1]), max_tokens)

    def score(self, texts: Sequence[str]) -> Floats:
        """Return the score of each text [len(texts)] in human standard deviations; above 0 it is favourable."""
        logits = self.encoder.embed(texts, self.max_tokens) @ np.array(self.fitted.coef) + self.fitted.intercept
        return np.asarray(logits / self.fitted.unit, dtype=np.float64)
