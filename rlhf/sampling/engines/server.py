"""The engine that is a vLLM server: weights by path, responses over HTTP, and no response from other weights.

Left out: several servers, weights over NCCL, responses that begin with old weights and end with new ones.
"""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from secrets import token_hex
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from rlhf.batches import PromptBatch, Samples
from rlhf.errors import EngineError
from rlhf.sampling.batched import Decoding
from rlhf.sampling.endings import OnOver
from rlhf.sampling.engines.answers import check_length, drawn_logprobs, drawn_tokens, read_logprobs
from rlhf.sampling.engines.calls import Calls, Draw
from rlhf.sampling.engines.protocol import Weights
from rlhf.sampling.filters import Filters
from rlhf.sampling.stopping import StopRule

MOVED = 0.01
"""Nats a token by which the trainer's logprobs must have moved before a server's that did not are called stale."""
_SEEDS = 2**31


@dataclass(frozen=True, slots=True)
class _Probe:
    """Logprobs of the known sequences, one after the other."""

    trainer: list[float]
    server: list[float]


class ServerEngine:
    """A server that gets the weights of each rollout, and is held to them."""

    is_exact = False

    def __init__(self, calls: Calls, directory: Path | None, tolerance: float) -> None:
        """Describe the server; nothing is sent before the first weights.

        Args:
            calls: talks to it.
            directory: where weights are written for it, on a disk that it reads too; None for a temporary one, removed
                once it has read them.
            tolerance: nats a token, on average, by which its logprobs of known sequences may differ.
        """
        self.version = 0
        self._calls, self._directory, self._tolerance = calls, directory, tolerance
        self._vocabulary = 0  # token ids that the weights know
        self._run = token_hex(4)  # another run's version 3 is not this one's
        self._known: list[list[int]] = []
        self._last: _Probe | None = None
        self._busy = threading.Lock()  # no weights are loaded while a batch is being drawn in another thread

    def load(self, weights: Weights, version: int) -> None:
        """Write the weights, let the server read them, and compare its version and its logprobs.

        Where it fails on the way, the server stays paused: nobody draws from half of the weights.

        Raises:
            EngineError: a call failed, or the server answers from other weights.
        """
        with self._busy:
            self._load(weights, version)

    def sample(
        self,
        prompts: PromptBatch,
        decoding: Decoding,
        generator: torch.Generator,
        num_forced: Tensor | None = None,
        on_over: OnOver | None = None,
        stop: threading.Event | None = None,
    ) -> Samples:
        """Draw one response to each prompt, `decoding.batch_rows` requests at a time, each with a seed of its own.

        Once `stop` is set, no further request is sent.

        Raises:
            EngineError: a request failed, an answer is no whole response, the weights changed meanwhile, or `stop`.
        """
        with self._busy:
            return self._sample(prompts, decoding, generator, num_forced, on_over, stop or threading.Event())

    def _sample(
        self,
        prompts: PromptBatch,
        decoding: Decoding,
        generator: torch.Generator,
        num_forced: Tensor | None,
        on_over: OnOver | None,
        stop: threading.Event,
    ) -> Samples:
        device = prompts.prompt_ids.device
        lengths = prompts.prompt_mask.sum(1).tolist()
        rows = [ids[:length] for ids, length in zip(prompts.prompt_ids.tolist(), lengths, strict=True)]
        forced = [0] * len(rows) if num_forced is None else num_forced.tolist()
        seeds = torch.randint(0, _SEEDS, (len(rows),), generator=generator, device=generator.device).tolist()
        self._check_version("before a batch")
        pool = ThreadPoolExecutor(min(decoding.batch_rows, len(rows)), thread_name_prefix="engine")
        try:
            drawn = [
                pool.submit(self._respond, decoding, stop, *each) for each in zip(rows, forced, seeds, strict=True)
            ]
            places = {future: row for row, future in enumerate(drawn)}
            for future in as_completed(drawn):
                ids = future.result().ids
                if on_over is not None:
                    on_over(places[future], ids)
            found = [future.result() for future in drawn]
        finally:
            pool.shutdown(cancel_futures=True)
        self._check_version("after a batch")
        return _samples(found, device)

    def _load(self, weights: Weights, version: int) -> None:
        calls = self._calls
        with self._place() as directory:
            weights.save(directory)
            calls.pause()
            calls.reload(str(directory.absolute()))
        calls.reset_cache()
        calls.set_version(self._name(version))
        calls.resume()
        self.version, self._vocabulary = version, weights.vocabulary
        self._check_version("after loading")
        self._known = self._known or weights.known
        self._check_logprobs(weights.logprobs(self._known))

    def _respond(
        self, decoding: Decoding, stop: threading.Event, prompt: list[int], num_forced: int, seed: int
    ) -> "_Response":
        if stop.is_set():
            raise EngineError("nobody waits for these responses any more")
        where, limit = self._calls.where, decoding.max_new_tokens - num_forced
        how = Draw(
            max_tokens=limit,
            temperature=decoding.temperature,
            seed=seed,
            stop=list(decoding.stop_strings),
            stop_token_ids=list(decoding.eos_ids),
            filters=_filters(decoding.filters),
        )
        choice = self._calls.draw(prompt, how)
        ids = drawn_tokens(choice, prompt, self._vocabulary, where)
        logprobs = drawn_logprobs(choice, len(ids), where)
        length, ended = _first_end(ids, prompt[len(prompt) - num_forced :], decoding)
        check_length(choice, length, limit, ended=ended, where=where)
        return _Response(ids[:length], logprobs[:length], ended)

    @contextmanager
    def _place(self) -> Iterator[Path]:
        if self._directory is not None:
            yield self._directory
            return
        with TemporaryDirectory(prefix="rlhf-engine-") as directory:
            yield Path(directory) / "weights"

    def _name(self, version: int) -> str:
        return f"{self._run}-{version}"

    def _check_version(self, when: str) -> None:
        found, expected = self._calls.version(), self._name(self.version)
        if found != expected:
            raise EngineError(
                f"stale weights: {self._calls.where} has version {found!r} {when}, expected {expected!r} - does "
                "another run use the server?"
            )

    def _check_logprobs(self, own: list[list[float]]) -> None:
        where = self._calls.where
        server = [number for ids in self._known for number in read_logprobs(self._calls.read(ids), ids, where)]
        probe = _Probe([number for row in own for number in row], server)
        apart, last = _apart(probe.trainer, probe.server), self._last
        if not apart <= self._tolerance:
            raise EngineError(
                f"wrong weights: logprobs of known sequences from {where} are {apart:.3g} nats a token from the "
                f"trainer's, at most {self._tolerance:g} - it has not loaded the weights, or only some of them; raise "
                "engine.probe_tolerance if it computes in a coarser type"
            )
        if last is not None and last.server == server and _apart(last.trainer, probe.trainer) > MOVED:
            raise EngineError(
                f"stale weights: {where} gives the logprobs of the weights before, to the last digit, and says that it "
                "loaded new ones"
            )
        self._last = probe


@dataclass(frozen=True, slots=True)
class _Response:
    ids: list[int]
    logprobs: list[float]
    ended: bool


def _first_end(ids: list[int], before: list[int], decoding: Decoding) -> tuple[int, bool]:
    """Return how many tokens a response has, and whether the last one ends it, by the rule of our own sampler."""
    rule = StopRule(decoding.eos_ids, decoding.stop_strings, decoding.tokenizer, torch.device("cpu"))
    for length in range(1, len(ids) + 1):
        if rule.ends(ids[:length], before):
            return length, True
    return len(ids), False


def _samples(found: list[_Response], device: torch.device) -> Samples:
    width = max(len(each.ids) for each in found)
    mask = torch.arange(width) < torch.tensor([len(each.ids) for each in found])[:, None]
    ids, logprobs = torch.zeros(mask.shape, dtype=torch.int64), torch.zeros(mask.shape)
    ids[mask] = torch.tensor([token for each in found for token in each.ids])
    logprobs[mask] = torch.tensor([number for each in found for number in each.logprobs])
    ended = torch.tensor([each.ended for each in found])
    return Samples(response_ids=ids, response_mask=mask, logprobs=logprobs, ended=ended).to(device)


def _filters(filters: Filters | None) -> dict[str, float]:
    return {} if filters is None else {each.name: getattr(filters, each.name) for each in fields(filters)}


def _apart(one: list[float], other: list[float]) -> float:
    return sum(abs(a - b) for a, b in zip(one, other, strict=True)) / max(len(one), 1)
