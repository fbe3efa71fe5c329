"""The task of the GPT-2 sentiment tutorial: continue the first 2 to 8 tokens of a film review favourably.

The reward is the positive logit of a sentiment classifier with its own tokenizer: one from the hub (`--classifier`),
or a logistic regression on the words of labelled reviews, fitted here in seconds (extra `demo`). The policy is the one
that `make demo` finetunes on reviews; the tutorial's is GPT-2 finetuned on them.

python examples/gpt2_sentiment_task.py
"""

import argparse
import json
import random
from collections.abc import Iterator
from pathlib import Path

from transformers import AutoTokenizer

from rlhf import PPOSettings, PPOTrainer
from rlhf.fetch import resolve


def openings(texts: list[str], model: str) -> Iterator[str]:
    """Yield the first 2 to 8 tokens of reviews, endlessly."""
    tokenizer, draw = AutoTokenizer.from_pretrained(resolve(model)), random.Random(0)  # noqa: S311  # not a secret
    while True:
        ids = tokenizer(draw.choice(texts))["input_ids"]
        yield str(tokenizer.decode(ids[: draw.randint(2, 8)], skip_special_tokens=True))


class WordSentiment:
    """The logit of "the author liked it", from the words of a text."""

    def __init__(self, texts: list[str], labels: list[int]) -> None:
        from sklearn.feature_extraction.text import HashingVectorizer
        from sklearn.linear_model import LogisticRegression

        self.words = HashingVectorizer(ngram_range=(1, 2), n_features=2**18)
        self.classifier = LogisticRegression(C=4.0, max_iter=300).fit(self.words.transform(texts), labels)

    def __call__(self, prompts: list[str], completions: list[str], **columns: list[object]) -> list[float]:
        """Score whole texts, prompt and response."""
        texts = [prompt + completion for prompt, completion in zip(prompts, completions, strict=True)]
        return [float(logit) for logit in self.classifier.decision_function(self.words.transform(texts))]


def main() -> None:
    """Train, print the mean logit of each step, and some texts from before and after."""
    parser = argparse.ArgumentParser(description="the task of the GPT-2 sentiment tutorial")
    parser.add_argument("--model", default="runs/quickstart/sft/policy", help="directory or hub name of the policy")
    parser.add_argument("--classifier", help="a sequence classifier with a label POSITIVE, instead of our own")
    parser.add_argument("--reviews", default="fetch:movie-reviews/gold_train.jsonl", help="rows of text and label")
    parser.add_argument("--steps", type=int, default=15, help="PPO steps")
    options = parser.parse_args()

    lines = Path(resolve(options.reviews)).read_text(encoding="utf-8").splitlines()[:20_000]
    rows = [json.loads(line) for line in lines]
    texts = [row["text"] for row in rows]
    theirs = {"kind": "model", "path": options.classifier, "label": "POSITIVE"}
    reward = theirs if options.classifier else WordSentiment(texts, [row["label"] for row in rows])
    settings = PPOSettings(
        steps=options.steps,
        rollout_batch_size=64,
        minibatches=2,
        epochs=2,
        sampling={"max_new_tokens": 16},
        optimizer={"learning_rate": 1e-4},
        kl_coef=0.1,
        prompts={"on_empty": "skip"},
    )
    trainer = PPOTrainer(options.model, reward=reward, config=settings)
    prompts = openings(texts, options.model)
    shown = [next(prompts) for _ in range(4)]
    before = trainer.rollout(shown).completions
    for row in trainer.train(prompts):
        raw, kl = row["objective/raw_scores"], row["objective/kl"]
        print(f"step {row['step']:.0f}: logit {raw:.2f}, KL {kl:.2f} nats")
    for prompt, old, new in zip(shown, before, trainer.rollout(shown).completions, strict=True):
        print(f"{prompt!r}\n  before: {old!r}\n  after:  {new!r}")


if __name__ == "__main__":
    main()
