"""The judges that read text: all of them read the responses of a policy, or what people wrote."""

import re
from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlhf.config.judges import EMBEDDING, GOLD
from rlhf.data.records import Prompt, Row
from rlhf.data.tokenization import prepare_prompts
from rlhf.evaluation.judges.embeddings import EmbeddingJudge
from rlhf.evaluation.judges.gold import GoldJudge, Judgement
from rlhf.evaluation.respond import Policy, Response, response_logprobs
from rlhf.models.passes.rotary import choose_factors
from rlhf.models.pretrained.loading import check_positions

Floats = NDArray[np.float64]

NO_LIMIT = 10**9
"""Tokens of a prompt: no limit but the model's positions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyGenerations:
    """The responses of a policy with their measurements, in R rows: `samples_per_prompt` for each prompt in turn."""

    prompts: Sequence[str]
    """[R], the same for every policy of a comparison; each prompt as often as it was answered."""
    texts: Sequence[str]
    """[R] what the judges read: prompt and response together, or the response alone, the same for every policy."""
    requests: Sequence[str]
    """[R] the prompts as a reader sees them; of a conversation each message with its role."""
    answers: Sequence[str]
    """[R] the responses alone."""
    kl: Floats | None
    """[R] KL to the reference in nats, summed over the response; None for human text."""
    lengths: NDArray[np.int64]
    """[R] response length in tokens, EOS included."""
    ended: NDArray[np.bool_]
    """[R] True where the policy emitted EOS."""
    scores: Mapping[str, Floats]
    """[R] by judge, those that training never saw first; NaN where a judge gives no score."""
    gold: Judgement | None = None
    """More of the gold judge on `texts`; None if the comparison has none."""
    fluency: Floats | None = None
    """[R] perplexity of the responses under the fluency model, NaN for an empty one; None without such a model."""
    surprise: Floats | None = None
    """[R] minus the log probability of the response under its own policy, in nats; None where it was not drawn."""
    human_perplexity: Floats | None = None
    """[H] perplexity of human texts under the policy; None without human texts."""
    kl_bound: float | None = None
    """The most that a best of n is from its policy, in nats; None for a policy."""
    samples_per_prompt: int = 1

    def __post_init__(self) -> None:
        if not self.prompts:
            raise ValueError("a comparison needs at least one prompt")
        columns: dict[str, Sized | None] = {
            "texts": self.texts,
            "answers": self.answers,
            "requests": self.requests,
            "kl": self.kl,
            "lengths": self.lengths,
        }
        columns |= {"ended": self.ended, "fluency": self.fluency, "surprise": self.surprise}
        columns |= {f"scores.{judge}": given for judge, given in self.scores.items()}
        for name, column in columns.items():
            if column is not None and len(column) != len(self.prompts):
                raise ValueError(f"{name} must hold one entry per response ({len(self.prompts)}), found {len(column)}")
        if len(self.prompts) % self.samples_per_prompt:
            raise ValueError(f"{len(self.prompts)} responses are not {self.samples_per_prompt} for each prompt")

    @property
    def num_prompts(self) -> int:
        """Prompts that were answered."""
        return len(self.prompts) // self.samples_per_prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class Readers:
    """The judges of a comparison that read text; None for one that it does not have."""

    gold: GoldJudge | None
    embeddings: EmbeddingJudge | None
    fluency: Policy | None
    """A language model that no stage has trained."""
    max_tokens: int
    """Padded tokens of one forward pass."""

    def read(
        self,
        prompts: Sequence[Prompt],
        responses: Sequence[Response],
        kl: Floats | None,
        scores: Mapping[str, Floats],
        **others: Any,
    ) -> PolicyGenerations:
        """Return responses with every judgement of them.

        Args:
            prompts: one per response.
            responses: what was written.
            kl: [R] of each response.
            scores: [R] of other judges, by name.
            others: what else `PolicyGenerations` holds.
        """
        texts = [judged_text(prompt, response) for prompt, response in zip(prompts, responses, strict=True)]
        whole = [whole_words(response) for response in responses]
        fluency = None
        if self.fluency is not None:
            fluency = response_perplexity(self.fluency, prompts, whole, self.max_tokens)
        gold = None if self.gold is None else self.gold.judge(texts)
        own = {} if gold is None else {GOLD: gold.scores}
        own |= {} if self.embeddings is None else {EMBEDDING: self.embeddings.score(texts)}
        return PolicyGenerations(
            prompts=[prompt.text for prompt in prompts],
            texts=texts,
            requests=[request(prompt) for prompt in prompts],
            answers=whole,
            kl=kl,
            lengths=np.array([len(response.ids) for response in responses]),
            ended=np.array([response.ended for response in responses]),
            scores={**own, **scores},
            gold=gold,
            fluency=fluency,
            **others,
        )

    def score(self, name: str, prompts: Sequence[Prompt], responses: Sequence[Response]) -> Floats | None:
        """Return the scores [R] of one of these judges alone; None if it is not one of them."""
        judge = {GOLD: self.gold, EMBEDDING: self.embeddings}.get(name)
        if judge is None:
            return None
        texts = [judged_text(prompt, response) for prompt, response in zip(prompts, responses, strict=True)]
        return judge.judge(texts).scores if isinstance(judge, GoldJudge) else judge.score(texts)


def judged_text(prompt: Prompt, response: Response) -> str:
    """Return what a reader sees: a plain prompt and its response, without the last word of a response that was cut."""
    text = whole_words(response)
    return prompt.raw + text if isinstance(prompt.raw, str) else text


def request(prompt: Prompt) -> str:
    """Return a prompt as a reader sees it, without a chat template."""
    if isinstance(prompt.raw, str):
        return prompt.raw
    return "\n".join(f"{message.get('role', '')}: {message.get('content', '')}" for message in prompt.raw)


def whole_words(response: Response) -> str:
    """Return the text of a response, without the last word of one that was cut."""
    text = response.text
    if not response.ended and re.search(r"\S\s", text):
        text = re.sub(r"\s+\S*\Z", "", text)
    return text


def response_perplexity(judge: Policy, prompts: Sequence[Prompt], texts: Sequence[str], max_tokens: int) -> Floats:
    """Return exp of minus the mean log probability per token of each response [N], given its prompt.

    NaN for a response without tokens, which predicts nothing.

    Args:
        judge: the language model; it reads prompts and responses with its own tokenizer and chat template.
        prompts: one per response.
        texts: the responses.
        max_tokens: padded tokens of one forward pass.

    Raises:
        ConfigError: prompts are conversations and the model has no chat template, or it has too few positions.
    """
    rows = [Row({"prompt": prompt.raw}, f"prompt {number}") for number, prompt in enumerate(prompts, start=1)]
    asked = prepare_prompts(rows, judge.tokenizer, max_length=NO_LIMIT, over_long="error").items
    said = [tuple(judge.tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts]
    longest_prompt, longest_response = max(len(prompt.ids) for prompt in asked), max(map(len, said))
    check_positions(
        judge.model,
        judge.path,
        longest_prompt,
        longest_response,
        key="longest response",
        fix="name a fluency_model with more positions",
    )
    choose_factors(judge.model, longest_prompt + longest_response)
    perplexity = np.full(len(said), np.nan)
    full = [item for item, ids in enumerate(said) if ids]
    if full:
        responses = [said[item] for item in full]
        logprobs = response_logprobs(judge.model, [asked[item] for item in full], responses, 1.0, max_tokens)
        perplexity[full] = np.exp([-total / len(ids) for total, ids in zip(logprobs, responses, strict=True)])
    return perplexity
