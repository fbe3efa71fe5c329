"""Human answers to the same prompts, cut as the policies' are: what the numbers of human text are."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rlhf.data.records import Prompt
from rlhf.evaluation.respond import Policy, Response


@dataclass(frozen=True, slots=True)
class HumanTexts:
    """What people wrote, as if a policy had."""

    prompts: list[Prompt]
    responses: list[Response]
    same_prompts: bool
    """Whether these are the prompts that the policies answer."""


def human_texts(
    prompts: Sequence[Prompt], column: str, others: Sequence[str], policy: Policy, *, max_new_tokens: int, seed: int
) -> HumanTexts | None:
    """Return human responses of at most `max_new_tokens` tokens, as many as there are prompts.

    Args:
        prompts: that the policies answer; `column` of their rows holds the human text, with or without the prompt.
        column: its name.
        others: human texts to draw from where a row has none; each begins with as many words as a prompt has, then
            comes what is taken for the response.
        policy: its tokenizer counts the tokens.
        max_new_tokens: longest response, EOS included.
        seed: of the draw.

    Returns:
        None where the rows hold no human text, and there are no others or a prompt is a conversation.
    """
    written = [prompt.columns.get(column) for prompt in prompts]
    same = all(isinstance(text, str) and text.strip() for text in written)
    if same:
        asked = list(prompts)
        continued = [_after(prompt, str(text)) for prompt, text in zip(prompts, written, strict=True)]
    else:
        pairs = _drawn(prompts, others, seed)
        if not pairs:
            return None
        asked, continued = [prompt for prompt, _ in pairs], [text for _, text in pairs]
    return HumanTexts(asked, [_cut(text, policy, max_new_tokens) for text in continued], same)


def _after(prompt: Prompt, text: str) -> str:
    return text.removeprefix(prompt.raw) if isinstance(prompt.raw, str) else text


def _drawn(prompts: Sequence[Prompt], others: Sequence[str], seed: int) -> list[tuple[Prompt, str]]:
    """Split texts, in an order drawn by the seed, into a beginning as long as a prompt, and the rest."""
    if not all(isinstance(prompt.raw, str) for prompt in prompts):
        return []
    left = iter(np.random.default_rng(seed).permutation(len(others)).tolist())
    pairs: list[tuple[Prompt, str]] = []
    for prompt in prompts:
        num_words = max(len(str(prompt.raw).split()), 1)
        beginning = re.compile(rf"\s*(?:\S+\s+){{{num_words - 1}}}\S+(?=\s+\S)")
        found = next(((others[i], match) for i in left if (match := beginning.match(others[i]))), None)
        if found is None:
            break
        text, match = found
        pairs.append((Prompt(text=match[0], ids=(), raw=match[0], columns={}), text[match.end() :]))
    return pairs


def _cut(text: str, policy: Policy, max_new_tokens: int) -> Response:
    ids = [*policy.tokenizer(text, add_special_tokens=False)["input_ids"], policy.eos_ids[0]]
    if len(ids) <= max_new_tokens:
        return Response(text, tuple(ids), ended=True)
    kept = ids[:max_new_tokens]
    return Response(str(policy.tokenizer.decode(kept, skip_special_tokens=True)), tuple(kept), ended=False)
