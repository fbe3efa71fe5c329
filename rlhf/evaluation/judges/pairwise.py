"""A language model as a judge of pairs: an OpenAI-compatible endpoint is asked about two responses, in both orders."""

import json
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rlhf.address import checked_address, shown_url, trust_of
from rlhf.config.judges import OpenAIJudgeSection
from rlhf.errors import RewardError
from rlhf.evaluation.judges.answer_cache import AnswerCache
from rlhf.fetch import cache_home
from rlhf.json_exchange import ExchangeFailed, Limits, post_json
from rlhf.printable import quoted
from rlhf.rewards.kinds.http import times, token_of_environment
from rlhf.training.storage.manifest import JSON

Floats = NDArray[np.float64]

TIE = 0.5
_VERDICT = re.compile(r"\W*(?:(?:[Tt]he )?[Aa]nswer(?: is)?\W+)?(A|B|[Tt]ie|TIE)\W*")
_PLACE = re.compile(r"\{(prompt|first|second)\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """What a judge said about pairs of responses; 1 for ours, 0 for theirs, 1/2 for a tie."""

    preferences: Floats
    """[R] what both orders agree on; where they disagree, a tie."""
    ours_first: Floats
    """[R] with ours in the first place; NaN where the two responses are equal, and nothing was asked."""
    theirs_first: Floats
    """[R] with theirs in the first place."""
    num_unreadable: int
    """Answers that name no winner; they count as ties."""


class ChatJudge:
    """Asks a chat model which of two responses is better; the temperature is 0."""

    def __init__(self, name: str, section: OpenAIJudgeSection) -> None:
        """Check address and token; nothing is sent yet.

        Raises:
            ConfigError: the address is none, or the environment variable with the token is not set.
        """
        assert section.deadline is not None
        self.name, self.pairs = name, section.pairs
        self._section = section
        self._url = checked_address(section.url, f"judges.{name}")
        self._where = f"judge {name!r} at {shown_url(section.url)}"
        self._limits = Limits(
            timeout=section.timeout,
            deadline=section.deadline,
            retries=section.retries,
            max_response_bytes=section.max_response_bytes,
        )
        self._trust = trust_of(self._url)
        self._token = None if section.token_env is None else token_of_environment(section.token_env)
        self._cache = AnswerCache(cache_home() / "judges" / "pairwise") if section.cache else None

    def compare(self, prompts: Sequence[str], ours: Sequence[str], theirs: Sequence[str]) -> Compared:
        """Compare two responses to each prompt, each pair in both orders; equal responses are a tie unasked.

        Raises:
            RewardError: an answer did not come in time, or is not that of a chat completion.
        """
        rows = list(zip(prompts, ours, theirs, strict=True))
        asked = [row for row in rows if row[1] != row[2]]
        questions = [self._question(*row) for row in asked] + [self._question(p, b, a) for p, a, b in asked]
        distinct = list(dict.fromkeys(questions))
        with ThreadPoolExecutor(self._section.parallel) as pool:
            replies = dict(zip(distinct, pool.map(self._asked, distinct), strict=True))
        # The first place wins 1; in the second half of the questions that is theirs.
        verdicts = [verdict(replies[question]) for question in questions]
        unreadable = sum(each is None for each in verdicts)
        numbers = np.array([TIE if each is None else each for each in verdicts], dtype=np.float64)
        different = np.array([row[1] != row[2] for row in rows], dtype=bool)
        forward, backward = np.full(len(rows), np.nan), np.full(len(rows), np.nan)
        forward[different], backward[different] = numbers[: len(asked)], 1 - numbers[len(asked) :]
        agreed = np.where(different & (forward == backward), forward, TIE)
        return Compared(preferences=agreed, ours_first=forward, theirs_first=backward, num_unreadable=unreadable)

    def _question(self, prompt: str, first: str, second: str) -> str:
        texts = {"prompt": prompt, "first": first, "second": second}
        # In one pass: a response that holds `{second}` stays as it is.
        return _PLACE.sub(lambda place: texts[place[1]], self._section.question)

    def _asked(self, question: str) -> str:
        section = self._section
        body: dict[str, JSON] = {
            "model": section.model,
            "messages": [{"role": "user", "content": question}],
            "temperature": 0,
            "max_tokens": section.max_tokens,
        }
        key: JSON = [self._url, body]
        known = None if self._cache is None else self._cache.recall(key)
        if known is not None:
            return known
        try:
            answer = post_json(self._url, json.dumps(body).encode(), self._token, self._limits, self._trust)
        except ExchangeFailed as failure:
            raise RewardError(f"{self._where} ({times(failure.attempts)}): {failure}") from None
        reply = self._reply(answer.content)
        if self._cache is not None:
            self._cache.keep(key, reply)
        return reply

    def _reply(self, content: object) -> str:
        try:
            reply = content["choices"][0]["message"]["content"]  # type: ignore[index]
        except (KeyError, IndexError, TypeError):
            reply = None
        if not isinstance(reply, str):
            expected = '{"choices": [{"message": {"content": "A"}}]}'
            raise RewardError(f"{self._where}: expected an answer {expected}, got {quoted(content)}")
        return reply


def verdict(reply: str) -> float | None:
    """Return 1 where a reply names the first response, 0 the second, 1/2 a tie; None where it names none.

    The last line counts: a judge may reason before it.
    """
    lines = [line for line in reply.splitlines() if line.strip()]
    found = _VERDICT.fullmatch(lines[-1].strip()) if lines else None
    return None if found is None else {"A": 1.0, "B": 0.0}.get(found[1], TIE)
