"""A server as a reward: it reads texts over HTTP and answers with scores.

The request is that of OpenRLHF's remote reward model (openrlhf/cli/serve_rm.py, openrlhf/utils/remote_rm_utils.py),
so that its servers and ours are interchangeable:

    POST {"query": [prompt + response, ...], "prompts": [...], "labels": [...]}  ->  {"rewards": [1.5, ...]}
"""

import json
import os
from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from rlhf.address import checked_address, shown_url, trust_of
from rlhf.errors import ConfigError, RewardError
from rlhf.json_exchange import Answer, ExchangeFailed, Limits, post_json
from rlhf.printable import quoted
from rlhf.rewards.checks import checked_scores
from rlhf.rewards.protocol import Episode


class HttpReward:
    """Posts all episodes of a call to one address, in one request.

    With the policy's tokenizer the texts are what the policy read and wrote, special tokens spelled out, as OpenRLHF
    sends them: the server sees whether a response ended by EOS. Without it they are the plain texts of prompt and
    completion, and prompts must be text.
    """

    def __init__(  # noqa: PLR0913 - one argument per key of its section
        self,
        url: str,
        *,
        timeout: float,
        deadline: float,
        retries: int,
        max_response_bytes: int,
        label_column: str | None = None,
        token_env: str | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
    ) -> None:
        """Check the address; nothing is sent before the first score.

        Args:
            url: http or https address, without user and password.
            timeout: seconds for one attempt, from the connection to the last byte.
            deadline: seconds for all attempts of a call and the waits between them.
            retries: attempts after the first one, made after connection errors, 429 and 5xx.
            max_response_bytes: size of the largest answer to read.
            label_column: column of the data to send as `labels`; None sends empty strings.
            token_env: environment variable with a token, sent as `Authorization: Bearer`.
            tokenizer: the policy's.

        Raises:
            ConfigError: an argument is out of range, or the token is missing.
        """
        self._url = checked_address(url, "reward server")
        self._where = f"reward server {shown_url(url)}"
        if not (timeout > 0 and deadline > 0 and retries >= 0 and max_response_bytes > 0):
            raise ConfigError(
                f"{self._where}: timeout ({timeout}), deadline ({deadline}) and max_response_bytes "
                f"({max_response_bytes}) must be above 0, retries ({retries}) at least 0"
            )
        self._limits = Limits(
            timeout=timeout, deadline=deadline, retries=retries, max_response_bytes=max_response_bytes
        )
        self._trust = trust_of(self._url)
        self._label_column = label_column
        self._token = None if token_env is None else token_of_environment(token_env)
        self._tokenizer = tokenizer

    def score(self, episodes: Sequence[Episode]) -> list[float]:
        """Return one score per episode, in order.

        Raises:
            RewardError: no answer came in time, or it is not one finite number per episode.
        """
        if not episodes:
            return []
        try:
            answer = post_json(self._url, self._body(episodes), self._token, self._limits, self._trust)
        except ExchangeFailed as failure:
            raise RewardError(f"{self._where} ({times(failure.attempts)}): {failure}") from None
        where = f"{self._where} ({times(answer.attempts)})"
        return checked_scores(_rewards(answer, where), len(episodes), where, [episode.prompt for episode in episodes])

    def close(self) -> None:
        """Do nothing: nothing needs closing."""

    def _body(self, episodes: Sequence[Episode]) -> bytes:
        texts = [self._texts(episode) for episode in episodes]
        body = {
            "query": [query for query, _ in texts],
            "prompts": [prompt for _, prompt in texts],
            "labels": [self._label(episode) for episode in episodes],
        }
        try:
            return json.dumps(body, allow_nan=False).encode()
        except (TypeError, ValueError) as error:
            raise RewardError(f"{self._where}: column {self._label_column!r} is not JSON: {error}") from None

    def _texts(self, episode: Episode) -> tuple[str, str]:
        """Return the query and the prompt to send."""
        if self._tokenizer is not None:
            prompt = self._decoded(episode.prompt_ids)
            return self._decoded((*episode.prompt_ids, *episode.response_ids)), prompt
        if not isinstance(episode.prompt, str):
            raise RewardError(f"{self._where}: prompts are messages, which only the policy's tokenizer can render")
        return episode.prompt + episode.completion, episode.prompt

    def _decoded(self, ids: Sequence[int]) -> str:
        assert self._tokenizer is not None
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def _label(self, episode: Episode) -> object:
        if self._label_column is None:
            return ""
        if self._label_column not in episode.columns:
            raise RewardError(
                f"{self._where}: no column {self._label_column!r} for the labels, found {sorted(episode.columns)}"
            )
        return episode.columns[self._label_column]


def token_of_environment(name: str) -> str:
    """Return the token that the environment variable `name` holds.

    Raises:
        ConfigError: it is not set, empty, or has characters other than visible ASCII.
    """
    token = os.environ.get(name, "")
    if not token:
        raise ConfigError(f"token_env: the environment variable {name} is not set - put the token there")
    if not all("!" <= character <= "~" for character in token):
        raise ConfigError(f"token_env: the token in {name} holds characters other than visible ASCII")
    return token


def _rewards(answer: Answer, where: str) -> object:
    if not isinstance(answer.content, dict) or "rewards" not in answer.content:
        raise RewardError(f'{where}: expected an answer {{"rewards": [...]}}, got {quoted(answer.content)}')
    return answer.content["rewards"]


def times(attempts: int) -> str:
    """Return a number of attempts in words."""
    return "1 attempt" if attempts == 1 else f"{attempts} attempts"
