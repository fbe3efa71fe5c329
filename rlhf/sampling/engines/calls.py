"""The calls of a vLLM server: its answers as Python values, and every failure as one line that names the call."""

import json
from dataclasses import dataclass
from typing import Any

from rlhf.address import checked_address, shown_url, trust_of
from rlhf.errors import EngineError
from rlhf.json_exchange import Answer, ExchangeFailed, Limits, get_json, post_json
from rlhf.printable import quoted

NO_FILTERS = {
    "top_p": 1.0,
    "top_k": 0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}
"""Given in each request: what is left out, a server fills in from the model's generation_config.json."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """How one response is drawn."""

    max_tokens: int
    temperature: float
    seed: int
    stop: list[str]
    stop_token_ids: list[int]
    filters: dict[str, float]
    """Those of `NO_FILTERS` that differ."""


class Calls:
    """Talks to one server. The calls that change its weights exist with VLLM_SERVER_DEV_MODE=1 only."""

    def __init__(self, url: str, limits: Limits, token: str | None = None, model: str | None = None) -> None:
        """Check the address; nothing is sent.

        Args:
            url: its root, http or https.
            limits: of each request.
            token: sent as `Authorization: Bearer`.
            model: the name under which it serves the policy; None asks for its only one.

        Raises:
            ConfigError: the address is none.
        """
        self._root = checked_address(url, "engine.url").rstrip("/")
        self.where = f"engine {shown_url(url)}"
        self._limits, self._token, self._trust = limits, token, trust_of(url)
        self._model = model

    def version(self) -> str:
        """Return the version that the server's weights have."""
        found = _object(self._get("/weight_info"), "/weight_info", self.where).get("weight_version")
        return str(found)

    def pause(self) -> None:
        """Let the server finish what it draws, and draw nothing more."""
        self._post("/pause?mode=wait", {})

    def reload(self, path: str) -> None:
        """Let it read the weights of a directory."""
        body = {"method": "reload_weights", "kwargs": {"weights_path": path}}
        self._post("/collective_rpc", body, may_be_empty=True)

    def reset_cache(self) -> None:
        """Let it forget the keys and values of prompts that it has read.

        Raises:
            EngineError: also where it says that it did not.
        """
        answer = self._post("/reset_prefix_cache", {}, may_be_empty=True)
        if isinstance(answer, dict) and answer.get("success") is False:
            raise EngineError(f"stale cache: {self.where} did not reset its prefix cache - is something else using it?")

    def set_version(self, version: str) -> None:
        """Give its weights a version."""
        self._post("/update_weight_version", {"new_version": version})

    def resume(self) -> None:
        """Let it draw again."""
        self._post("/resume", {})

    def draw(self, prompt: list[int], how: Draw) -> dict[str, Any]:
        """Return the one choice of `/v1/completions` for a prompt of token ids."""
        body = {
            "prompt": prompt, "max_tokens": how.max_tokens, "temperature": how.temperature, "seed": how.seed,
            "stop": how.stop, "stop_token_ids": how.stop_token_ids, "include_stop_str_in_output": True,
            "ignore_eos": True, "skip_special_tokens": False, "logprobs": 0, **NO_FILTERS, **how.filters,
        }  # fmt: skip
        return self._choice(body)

    def read(self, ids: list[int]) -> dict[str, Any]:
        """Return the choice for a known sequence, with `prompt_logprobs`; one token is drawn and means nothing."""
        return self._choice({"prompt": ids, "max_tokens": 1, "temperature": 1.0, "seed": 0, "prompt_logprobs": 0})

    def _choice(self, body: dict[str, Any]) -> dict[str, Any]:
        path = "/v1/completions"
        body = {"model": self._served(), "n": 1, "return_token_ids": True, "add_special_tokens": False, **body}
        choices = _object(self._post(path, body), path, self.where).get("choices")
        if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], dict):
            raise EngineError(f"no response: {self.where}: {path}: expected one choice, found {quoted(choices)}")
        return choices[0]

    def _served(self) -> str:
        if self._model is None:
            listed = _object(self._get("/v1/models"), "/v1/models", self.where).get("data")
            names = [each.get("id") for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []
            if len(names) != 1 or not isinstance(names[0], str):
                raise EngineError(f"which model: {self.where} serves {quoted(names)} - name one in engine.served_model")
            self._model = names[0]
        return self._model

    def _get(self, path: str) -> object:
        try:
            return get_json(self._root + path, self._token, self._limits, self._trust).content
        except ExchangeFailed as failure:
            raise self._failed(path, failure) from None

    def _post(self, path: str, body: dict[str, Any], *, may_be_empty: bool = False) -> object:
        try:
            answer: Answer = post_json(
                self._root + path,
                json.dumps(body).encode(),
                self._token,
                self._limits,
                self._trust,
                may_be_empty=may_be_empty,
            )
        except ExchangeFailed as failure:
            raise self._failed(path, failure) from None
        return answer.content

    def _failed(self, path: str, failure: ExchangeFailed) -> EngineError:
        times = "1 attempt" if failure.attempts == 1 else f"{failure.attempts} attempts"
        hint = ""
        if str(failure).startswith("status 404") and not path.startswith("/v1/"):
            hint = " - start the server with VLLM_SERVER_DEV_MODE=1"
        return EngineError(f"no answer: {self.where}: {path.partition('?')[0]}: {failure} ({times}){hint}")


def _object(answer: object, path: str, where: str) -> dict[str, Any]:
    if not isinstance(answer, dict):
        raise EngineError(f"no answer: {where}: {path}: expected a JSON object, found {quoted(answer)}")
    return answer
