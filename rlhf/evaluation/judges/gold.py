"""The gold judge: a reader's verdict learned from human labels, never seen by training.

score = logit / (standard deviation of the logit on held-out human text)
        - fluency_penalty    if the perplexity is above the 95th percentile of held-out human text
        - repetition_penalty if the share of repeated bigrams is above the 95th percentile of human text of that length

The thresholds come from human text alone, so no policy influences them.
"""

import importlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from rlhf.disk import readable_as_its_folder
from rlhf.errors import ConfigError, DataError
from rlhf.evaluation.judges.language_model import TrigramModel
from rlhf.evaluation.text_metrics import num_words, repeated_bigram_share

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

NUM_FEATURES = 2**20
WORD_PATTERN = r"(?u)\b\w[\w']*\b"
INVERSE_REGULARISATION = 4.0
"""Of the logistic regression. Accuracy on held-out human text varies by about one point between 2 and 8."""
PERCENTILE = 95.0
LENGTH_EDGES = (8, 16, 24, 32, 48, 64, 96, 128, 192, 256)
"""Words at which one length class ends and the next begins."""
MIN_TEXTS_A_CLASS = 50
"""A length class with fewer human texts borrows the threshold of the nearest class that has enough."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The numbers of the judge besides its learned weights; all but the penalties come from human text."""

    intercept: float
    unit: float
    """Standard deviation of the logit on held-out human text; one unit of the score."""
    max_perplexity: float
    max_repeated_bigrams: list[float]
    """One share for each length class, `len(LENGTH_EDGES) + 1` in all."""
    fluency_penalty: float
    repetition_penalty: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """The verdict on N texts, part by part; every array is [N]."""

    logits: Floats
    """Of the classifier, in human standard deviations; above 0 is a favourable text."""
    perplexity: Floats
    repeated_bigrams: Floats
    is_disfluent: Bools
    is_repetitive: Bools
    scores: Floats
    """The logits minus the penalties."""

    @property
    def positive(self) -> Bools:
        """Whether the classifier calls a text favourable; penalties do not count."""
        return self.logits > 0


class GoldJudge:
    """A classifier on human labels, and what a reader also minds: gibberish and repetition."""

    def __init__(self, coef: NDArray[np.float32], rules: Rules, language_model: TrigramModel) -> None:
        self.rules = rules
        self.language_model = language_model
        self._coef = coef

    @classmethod
    def train(
        cls,
        pieces: Sequence[str],
        labels: Sequence[int],
        human_texts: Sequence[str],
        *,
        fluency_penalty: float = 1.0,
        repetition_penalty: float = 1.0,
    ) -> Self:
        """Fit classifier and language model on `pieces`, and set unit and thresholds on `human_texts`.

        Args:
            pieces: human texts.
            labels: 1 where the author liked the film, else 0.
            human_texts: human texts that are not among `pieces`, as long as the texts to be judged; no labels.
            fluency_penalty: subtracted from the score of a disfluent text, in human standard deviations.
            repetition_penalty: subtracted from the score of a repetitive text.
        """
        check_training_set(pieces, labels, human_texts)
        classifier = sklearn("linear_model").LogisticRegression(C=INVERSE_REGULARISATION, max_iter=500)
        classifier.fit(_features(pieces), np.asarray(labels))
        coef, intercept = classifier.coef_[0].astype(np.float32), float(classifier.intercept_[0])
        language_model = TrigramModel.train(pieces)
        rules = Rules(
            intercept=intercept,
            unit=float(np.std(_features(human_texts) @ coef + intercept)),
            max_perplexity=float(np.percentile(language_model.perplexity(human_texts), PERCENTILE)),
            max_repeated_bigrams=_repetition_thresholds(human_texts),
            fluency_penalty=fluency_penalty,
            repetition_penalty=repetition_penalty,
        )
        if not rules.unit > 0:
            raise ValueError("the classifier gives every held-out human text the same logit")
        return cls(coef, rules, language_model)

    def judge(self, texts: Sequence[str]) -> Judgement:
        """Return the verdict on each text with its parts."""
        logits = self._logits(texts)
        perplexity, repeated = self.perplexity(texts), self.repeated_bigrams(texts)
        is_disfluent = perplexity > self.rules.max_perplexity
        is_repetitive = repeated > np.array(self.rules.max_repeated_bigrams)[_length_classes(texts)]
        penalties = self.rules.fluency_penalty * is_disfluent + self.rules.repetition_penalty * is_repetitive
        return Judgement(
            logits=logits,
            perplexity=perplexity,
            repeated_bigrams=repeated,
            is_disfluent=is_disfluent,
            is_repetitive=is_repetitive,
            scores=logits - penalties,
        )

    def score(self, texts: Sequence[str]) -> Floats:
        """Return the gold score of each text [len(texts)], in human standard deviations."""
        return self.judge(texts).scores

    def verdict(self, texts: Sequence[str]) -> Bools:
        """Return for each text whether the classifier calls it favourable; penalties do not count."""
        return self._logits(texts) > 0

    def perplexity(self, texts: Sequence[str]) -> Floats:
        """Return the perplexity per word of each text under the independent language model."""
        return self.language_model.perplexity(texts)

    def repeated_bigrams(self, texts: Sequence[str]) -> Floats:
        """Return the share of bigrams of each text that occurred earlier in it."""
        return np.array([repeated_bigram_share(text) for text in texts], dtype=np.float64)

    def save(self, directory: str | Path) -> None:
        """Write the judge as safetensors and JSON into `directory`; `gold_judge.json` is written last."""
        folder = Path(directory)
        self.language_model.save(folder)
        save_file({"coef": self._coef}, folder / "gold_judge.safetensors")
        readable_as_its_folder(folder / "gold_judge.safetensors")
        (folder / "gold_judge.json").write_text(json.dumps(asdict(self.rules), indent=2), encoding="utf-8")

    @classmethod
    def load(cls, directory: str | Path) -> Self:
        """Read what `save` wrote; raise DataError where a file is missing or broken."""
        folder = Path(directory)
        try:
            record: dict[str, Any] = json.loads((folder / "gold_judge.json").read_text(encoding="utf-8"))
            rules, coef = Rules(**record), load_file(folder / "gold_judge.safetensors")["coef"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError, SafetensorError) as error:
            raise DataError(f"{folder}: not a readable gold judge: {error}; train it again") from error
        return cls(coef, rules, TrigramModel.load(folder))

    def _logits(self, texts: Sequence[str]) -> Floats:
        if len(texts) == 0:
            return np.zeros(0)
        raw = _features(texts) @ self._coef + self.rules.intercept
        return np.asarray(raw / self.rules.unit, dtype=np.float64)


def check_training_set(pieces: Sequence[str], labels: Sequence[int], human_texts: Sequence[str]) -> None:
    """Refuse labels of one kind only, and held-out texts that are missing or among the pieces (ValueError)."""
    if len(pieces) != len(labels):
        raise ValueError(f"one label per piece: found {len(pieces)} pieces and {len(labels)} labels")
    if set(labels) != {0, 1}:
        raise ValueError(f"labels must be 0 and 1, both present; found {sorted(set(labels))}")
    shared = len(set(pieces) & set(human_texts))
    if shared:
        raise ValueError(f"human_texts must be held out: {shared} of them are also among the pieces")
    if not human_texts:
        raise ValueError("human_texts is empty: unit and thresholds need held-out human text")


def _features(texts: Sequence[str]) -> Any:
    """Return hashed uni- and bigrams [len(texts), NUM_FEATURES], rows of length 1; nothing is learned here."""
    vectorizer = sklearn("feature_extraction.text").HashingVectorizer(
        n_features=NUM_FEATURES, ngram_range=(1, 2), token_pattern=WORD_PATTERN, alternate_sign=False
    )
    return vectorizer.transform(texts)


def _repetition_thresholds(human_texts: Sequence[str]) -> list[float]:
    """Return the 95th percentile of the repeated share for each length class."""
    shares = np.array([repeated_bigram_share(text) for text in human_texts])
    classes = _length_classes(human_texts)
    counts = np.bincount(classes, minlength=len(LENGTH_EDGES) + 1)
    full = np.flatnonzero(counts >= min(MIN_TEXTS_A_CLASS, counts.max()))
    nearest = [full[np.argmin(np.abs(full - index))] for index in range(len(counts))]
    return [float(np.percentile(shares[classes == index], PERCENTILE)) for index in nearest]


def _length_classes(texts: Sequence[str]) -> NDArray[np.int64]:
    lengths = np.array([num_words(text) for text in texts], dtype=np.int64)
    return np.searchsorted(LENGTH_EDGES, lengths, side="right").astype(np.int64)


def sklearn(name: str) -> Any:
    """Return a part of scikit-learn; raise ConfigError where it is not installed."""
    try:
        return importlib.import_module(f"sklearn.{name}")
    except ImportError as error:
        raise ConfigError("the gold judge needs scikit-learn; install it: pip install 'rlhf-ppo[demo]'") from error
