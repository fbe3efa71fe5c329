"""One JSON request and its answer, with retries, a deadline that holds in every phase, and a cap on the answer's size.

Left out: redirects (a request with prompts and a token goes to the address that the user gave, or nowhere), compressed
answers (a small one can expand without bound), and connections that outlive a call.
"""

import asyncio
import json
import ssl
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from random import SystemRandom

import httpx2

from rlhf.address import shown_url
from rlhf.printable import quoted

FIRST_WAIT = 0.1
"""Seconds before the second attempt, before jitter; doubled for each further one."""
LONGEST_WAIT = 10.0
"""Seconds that doubling stops at; a server may ask for more by Retry-After."""
REDACTED = b"REDACTED"
"""Replaces the token in an answer."""
_GRACE = 0.5
# Seconds past the deadline for a cancelled request to end by itself; a name look-up cannot be cancelled.
_EXCERPT_BYTES = 512
_SYSTEM_RANDOM = SystemRandom()  # jitter must not advance the generators that a run saves


class ExchangeFailed(Exception):
    """No usable answer: one line of cause, and how many attempts were made."""

    def __init__(self, cause: str, attempts: int) -> None:
        super().__init__(cause)
        self.attempts = attempts


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long to try a request, and how much of an answer to read."""

    timeout: float
    """Seconds for one attempt, from the connection to the last byte of the answer."""
    deadline: float
    """Seconds for all attempts and the waits between them."""
    retries: int
    """Attempts after the first one."""
    max_response_bytes: int
    """Size of the largest answer to read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a server answered."""

    content: object
    """The JSON value; NaN and Infinity are let through as floats."""
    attempts: int
    """How many attempts it took."""


class _Temporary(Exception):
    """A failure that another attempt may not hit."""

    def __init__(self, cause: str, wait: float = 0.0) -> None:
        super().__init__(cause)
        self.wait = wait


class _Final(Exception):
    """A failure that another attempt would hit again."""


def post_json(
    url: str, body: bytes, token: str | None, limits: Limits, trust: ssl.SSLContext, *, may_be_empty: bool = False
) -> Answer:
    """Send `body` to `url` and return the answer; an empty one is None where it `may_be_empty`.

    The token is sent as `Authorization: Bearer`, and redacted in what the server sends back.

    It tries again after a connection that failed or broke off, an answer that was not complete within `limits.timeout`,
    and the statuses 429 and 5xx; waits double, with jitter, and honour the server's Retry-After. The request runs in a
    thread of its own, so the caller may have an event loop running, as in a notebook.

    Raises:
        ExchangeFailed: no answer with status 200, JSON and small enough, came within `limits.deadline`.
    """
    return _outcome(_Exchange(url, body, token, limits, trust, may_be_empty=may_be_empty), limits)


def get_json(url: str, token: str | None, limits: Limits, trust: ssl.SSLContext) -> Answer:
    """Ask `url` for what it holds, in the way of `post_json`.

    Raises:
        ExchangeFailed: as `post_json` does.
    """
    return _outcome(_Exchange(url, None, token, limits, trust), limits)


def _outcome(exchange: "_Exchange", limits: Limits) -> Answer:
    outcome: Future[Answer] = Future()
    # A daemon: what outlives the deadline (a name look-up) does not keep the process alive.
    threading.Thread(target=lambda: asyncio.run(exchange.run(outcome)), name="json-exchange", daemon=True).start()
    try:
        return outcome.result(limits.deadline + _GRACE)
    except TimeoutError:
        raise ExchangeFailed(exchange.late(), exchange.attempts) from None


class _Exchange:
    def __init__(
        self,
        url: str,
        body: bytes | None,
        token: str | None,
        limits: Limits,
        trust: ssl.SSLContext,
        *,
        may_be_empty: bool = False,
    ) -> None:
        self.attempts = 0
        self._may_be_empty = may_be_empty
        self._trust = trust
        self._url = url
        self._method = "GET" if body is None else "POST"
        self._body = body
        self._headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token}"
        self._secret = (token or "").encode()
        self._limits = limits
        self._end = time.monotonic() + limits.deadline

    def late(self) -> str:
        return f"no complete answer within the deadline of {self._limits.deadline:g} s"

    async def run(self, outcome: "Future[Answer]") -> None:
        # Set here, before asyncio.run waits for what cannot be cancelled.
        try:
            outcome.set_result(await self._answer())
        except Exception as error:
            outcome.set_exception(error)

    async def _answer(self) -> Answer:
        # The timeout of httpx starts over at every byte; ours covers the whole answer.
        async with httpx2.AsyncClient(timeout=None, verify=self._trust, follow_redirects=False) as client:
            while True:
                self.attempts += 1
                try:
                    content = await self._attempt(client)
                    found = _parsed(content) if content or not self._may_be_empty else None
                    return Answer(content=found, attempts=self.attempts)
                except _Final as problem:
                    raise ExchangeFailed(str(problem), self.attempts) from None
                except _Temporary as problem:
                    await self._wait(problem)

    async def _attempt(self, client: httpx2.AsyncClient) -> bytes:
        left = self._end - time.monotonic()
        try:
            async with asyncio.timeout(min(left, self._limits.timeout)):
                return await self._content(client)
        except TimeoutError:
            if left <= self._limits.timeout:
                raise _Final(self.late()) from None
            raise _Temporary(f"no complete answer within the timeout of {self._limits.timeout:g} s") from None
        except httpx2.TransportError as error:
            raise _Temporary(_named(error)) from None

    async def _content(self, client: httpx2.AsyncClient) -> bytes:
        async with client.stream(self._method, self._url, content=self._body, headers=self._headers) as response:
            status = response.status_code
            if response.has_redirect_location:
                target = shown_url(response.headers["location"])
                raise _Final(f"status {status} redirects to {target}; redirects are not followed - give that address")
            if status != httpx2.codes.OK:
                cause = f"status {status} {quoted(_text(self._cleared(await _beginning(response))))}"
                if status == httpx2.codes.TOO_MANY_REQUESTS or status >= httpx2.codes.INTERNAL_SERVER_ERROR:
                    raise _Temporary(cause, _retry_after(response.headers.get("retry-after", "")))
                raise _Final(cause)
            if response.headers.get("content-encoding", "identity") != "identity":
                raise _Final("the answer is compressed; expected plain JSON")
            return self._cleared(await self._capped(response))

    def _cleared(self, content: bytes) -> bytes:
        return content.replace(self._secret, REDACTED) if self._secret else content

    async def _capped(self, response: httpx2.Response) -> bytes:
        content, cap = bytearray(), self._limits.max_response_bytes
        async for chunk in response.aiter_raw():
            content += chunk
            if len(content) > cap:
                raise _Final(f"the answer is larger than {cap} bytes")
        return bytes(content)

    async def _wait(self, problem: _Temporary) -> None:
        if self.attempts > self._limits.retries:
            raise ExchangeFailed(str(problem), self.attempts) from None
        wait = max(problem.wait, back_off(self.attempts, _SYSTEM_RANDOM.random))
        if time.monotonic() + wait >= self._end:
            cause = f"{problem}; waiting {wait:.2g} s more would pass the deadline of {self._limits.deadline:g} s"
            raise ExchangeFailed(cause, self.attempts) from None
        await asyncio.sleep(wait)


def back_off(attempts: int, random: Callable[[], float]) -> float:
    """Return the seconds to wait after `attempts` attempts: a time that doubles, times a random factor of 0.5 to 1.

    Args:
        attempts: made so far, from 1 on.
        random: gives a number in [0, 1).
    """
    return min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** min(attempts - 1, 30)) * (1 + random()) / 2


def _named(error: BaseException) -> str:
    """Return what went wrong on the connection; the operating system's message is at the end of the exception chain."""
    root = error
    while (below := root.__cause__ or root.__context__) is not None:
        root = below
    return f"{type(error).__name__}: {quoted(str(root if isinstance(root, OSError) else error))[1:-1]}"


def _retry_after(header: str) -> float:
    """Return the seconds that a server asks to wait: its header holds seconds or a date (RFC 9110, 10.2.3)."""
    try:
        seconds = float(header)
    except ValueError:
        seconds = _seconds_until(header)
    return seconds if seconds > 0 else 0.0  # also when it is NaN


def _seconds_until(date: str) -> float:
    try:
        then = parsedate_to_datetime(date)
    except ValueError:
        return 0.0
    return ((then if then.tzinfo else then.replace(tzinfo=UTC)) - datetime.now(UTC)).total_seconds()


async def _beginning(response: httpx2.Response) -> bytes:
    """Return at least the first bytes of an error's body."""
    content = bytearray()
    async for chunk in response.aiter_raw():
        content += chunk
        if len(content) >= _EXCERPT_BYTES:
            break
    return bytes(content)


def _parsed(content: bytes) -> object:
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise _Final(f"the answer is not JSON ({type(error).__name__}): {quoted(_text(content))}") from None


def _text(content: bytes) -> str:
    return content[:_EXCERPT_BYTES].decode("utf-8", "replace").strip()
