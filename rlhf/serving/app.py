"""The routes of the server: `/get_reward` in OpenRLHF's form, and `/health`."""

import asyncio
from dataclasses import dataclass

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.middleware.trustedhost import TrustedHostMiddleware

from rlhf.errors import RewardError
from rlhf.serving.access import Gate, log, named
from rlhf.serving.batcher import Batcher
from rlhf.serving.served_reward import Refused, ScoreRequest

MAX_PROBLEMS = 3
"""The most schema errors that an answer lists."""
NO_TELEMETRY = {"tracing": False, "metrics": False, "logs": False, "operation_spans": False, "auto_configure": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Limits of one request."""

    timeout: float
    """Seconds from its first byte to its answer."""
    max_body_bytes: int
    max_items: int
    """Texts to score."""
    max_text_chars: int
    """Length of a query or prompt."""


class Scores(BaseModel):
    """The answer of OpenRLHF's remote reward models."""

    rewards: list[float]
    """One score per query, in order."""


def build_app(batcher: Batcher, bounds: Bounds, *, token: str | None, hosts: list[str]) -> Gate:
    """Return the application, behind its gate.

    Args:
        batcher: scores the requests.
        bounds: larger requests are refused with 413.
        token: what requests must carry; None lets everyone in.
        hosts: accepted values of the Host header ("*" for all): a page in a browser could make its own host name
            resolve to this machine.
    """
    # The documentation pages would load code from elsewhere.
    app = FastAPI(
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
        max_body_size=bounds.max_body_bytes,
        telemetry=NO_TELEMETRY,  # type: ignore[arg-type]
    )
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False)
    app.add_exception_handler(RequestValidationError, _schema_errors)
    app.add_exception_handler(Refused, _refused)
    app.add_exception_handler(RewardError, _failed)

    @app.get("/health")
    async def health() -> JSONResponse:
        if batcher.busy_seconds > bounds.timeout:
            return JSONResponse({"status": f"scoring for more than {bounds.timeout:g} s"}, 503)
        return JSONResponse({"status": "ok"})

    @app.post("/get_reward")
    async def get_reward(request: ScoreRequest) -> Scores:
        _check_size(request, bounds)
        return Scores(rewards=await asyncio.wrap_future(batcher.submit(request)))

    return Gate(app, token=token, timeout=bounds.timeout)


def _check_size(request: ScoreRequest, bounds: Bounds) -> None:
    num = len(request.query)
    if num > bounds.max_items:
        raise Refused(413, f"query: holds {num} texts, at most {bounds.max_items} are scored at a time")
    for name, texts in (("query", request.query), ("prompts", request.prompts or [])):
        for index, text in enumerate(texts):
            if len(text) > bounds.max_text_chars:
                raise Refused(413, f"{name}.{index}: has {len(text)} characters, at most {bounds.max_text_chars}")


async def _schema_errors(request: Request, error: Exception) -> JSONResponse:
    """Say what is wrong and where, without quoting the request."""
    assert isinstance(error, RequestValidationError)
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        return JSONResponse({"detail": "expected Content-Type: application/json"}, 415)
    problems = error.errors()
    lines = [".".join(map(str, problem["loc"][1:])) + ": " + problem["msg"] for problem in problems[:MAX_PROBLEMS]]
    more = [f"{len(problems) - MAX_PROBLEMS} more"] if len(problems) > MAX_PROBLEMS else []
    return JSONResponse({"detail": "; ".join(line.removeprefix(": ") for line in [*lines, *more])}, 422)


async def _refused(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Refused)
    return JSONResponse({"detail": str(error)}, error.status)


async def _failed(_: Request, error: Exception) -> JSONResponse:
    """Tell the client what the reward said, which may quote its prompt; the log says only where it happened."""
    log.error("%s", named(error))
    return JSONResponse({"detail": str(error)}, 500)
