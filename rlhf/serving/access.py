"""The outermost layer of the server: who has access, how long a request may take, and a log line for each."""

import asyncio
import hmac
import logging
import time
import traceback

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger("rlhf.serving")

OPEN_PATHS = frozenset({"/health"})
"""Paths that need no token."""
KNOWN_PATHS = frozenset({"/get_reward", *OPEN_PATHS})
"""Paths that the log names; others could hold anything."""
KNOWN_METHODS = frozenset({"GET", "HEAD", "POST"})
"""Methods that the log names."""


class Gate:
    """Checks the token before it reads the request, and ends a request that takes too long."""

    def __init__(self, app: ASGIApp, *, token: str | None, timeout: float) -> None:
        """Wrap `app`.

        Args:
            app: answers the requests.
            token: what the header `Authorization: Bearer` must hold; None lets everyone in.
            timeout: seconds for reading a request, scoring it and writing the answer.
        """
        self._app = app
        self._timeout = timeout
        self._expected = None if token is None else f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; the server passes on no other events."""
        start, status = time.monotonic(), 0

        async def observed(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            async with asyncio.timeout(self._timeout):
                answer = self._app if self._admits(scope) else _refusal
                await answer(scope, receive, observed)
        except TimeoutError:
            if not status:
                problem = f"not done within the server's --timeout of {self._timeout:g} s"
                await JSONResponse({"detail": problem}, 503)(scope, receive, observed)
        except Exception as error:
            log.error("%s", named(error))
            if not status:
                await JSONResponse({"detail": "the server failed"}, 500)(scope, receive, observed)
        log.info("%s %d %.3f s", _request_line(scope), status, time.monotonic() - start)

    def _admits(self, scope: Scope) -> bool:
        if self._expected is None or scope["path"] in OPEN_PATHS:
            return True
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        return len(given) == 1 and hmac.compare_digest(given[0], self._expected)


def named(error: BaseException) -> str:
    """Return the types of an error and its causes, and where each arose; no messages, since they may quote prompts."""
    parts = []
    link: BaseException | None = error
    while link is not None:
        frames = traceback.extract_tb(link.__traceback__)
        place = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
        parts.append(type(link).__name__ + place)
        link = link.__cause__
    return " from ".join(parts)


async def _refusal(scope: Scope, receive: Receive, send: Send) -> None:
    headers = {"WWW-Authenticate": "Bearer"}
    response = JSONResponse({"detail": "expected the header Authorization: Bearer TOKEN"}, 401, headers)
    await response(scope, receive, send)


def _request_line(scope: Scope) -> str:
    method = scope["method"] if scope["method"] in KNOWN_METHODS else "other"
    return f"{method} {scope['path'] if scope['path'] in KNOWN_PATHS else 'other'}"
