"""The judges that read text: all of them read the responses of a policy, or what people wrote."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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
    """One response of a policy to each of N prompts, with its measurements."""

    prompts: Sequence[str]
    """[N], the same for every policy of a comparison."""
    texts: Sequence[str]
    """[N] what the judges read: prompt and response together, or the response alone, the same for every policy."""
    kl: Floats | None
    """[N] KL to the reference in nats, summed over the response; None for human text."""
    lengths: NDArray[np.int64]
    """[N] response length in tokens, EOS included."""
    ended: NDArray[np.bool_]
    """[N] True where the policy emitted EOS."""
    reward_scores: Floats | None
    """[N] scores of the reward model that training used (the proxy); None if the comparison has none."""
    gold: Judgement | None
    """Of the gold judge on `texts`; None if the comparison has none."""
    embedding: Floats | None = None
    """[N] scores of the judge on embeddings of `texts`; None if the comparison has none."""
    fluency: Floats | None = None
    """[N] perplexity of the responses under the fluency model, NaN for an empty one; None without such a model."""

    def __post_init__(self) -> None:
        if not self.prompts:
            raise ValueError("a comparison needs at least one prompt")
        scores = {"reward_scores": self.reward_scores, "gold.scores": self.gold.scores if self.gold else None}
        columns = {"texts": self.texts, "kl": self.kl, "lengths": self.lengths, "ended": self.ended, **scores}
        columns |= {"embedding": self.embedding, "fluency": self.fluency}
        for name, column in columns.items():
            if column is not None and len(column) != len(self.prompts):
                raise ValueError(f"{name} must hold one entry per prompt ({len(self.prompts)}), found {len(column)}")

    @property
    def scores(self) -> dict[str, Floats | None]:
        """[N] scores of every judge, by the name that its win rate has; None for a judge that there is not."""
        gold = None if self.gold is None else self.gold.scores
        return {"gold": gold, "embedding": self.embedding, "reward": self.reward_scores}


@dataclass(frozen=True, slots=True, kw_only=True)
class Readers:
    """The judges of a comparison besides the reward model; None for one that it does not have."""

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
        reward_scores: Floats | None,
    ) -> PolicyGenerations:
        """Return responses with every judgement of them; `kl` and `reward_scores` [N] are known already."""
        texts = [judged_text(prompt, response) for prompt, response in zip(prompts, responses, strict=True)]
        fluency = None
        if self.fluency is not None:
            whole = [whole_words(response) for response in responses]
            fluency = response_perplexity(self.fluency, prompts, whole, self.max_tokens)
        return PolicyGenerations(
            prompts=[prompt.text for prompt in prompts],
            texts=texts,
            kl=kl,
            lengths=np.array([len(response.ids) for response in responses]),
            ended=np.array([response.ended for response in responses]),
            reward_scores=reward_scores,
            gold=None if self.gold is None else self.gold.judge(texts),
            embedding=None if self.embeddings is None else self.embeddings.score(texts),
            fluency=fluency,
        )


def judged_text(prompt: Prompt, response: Response) -> str:
    """Return what a reader sees: a plain prompt and its response, without the last word of a response that was cut."""
    text = whole_words(response)
    return prompt.raw + text if isinstance(prompt.raw, str) else text


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
