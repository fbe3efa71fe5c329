"""Whatever comes over HTTP, our server answers with a documented status and our client with scores or a RewardError."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from odd_values import ANYTHING, GARBAGE, TEXTS, as_json, damaged, trials
from rlhf.errors import RewardError
from rlhf.rewards.kinds.http import HttpReward
from rlhf.rewards.protocol import Episode
from rlhf.serving.access import Gate
from rlhf.serving.app import Bounds, build_app
from rlhf.serving.batcher import Batcher
from rlhf.serving.served_reward import ScoreRequest, Source

BOUNDS = Bounds(timeout=10.0, max_body_bytes=10_000, max_items=3, max_text_chars=10)


class Lengths:
    """A reward: the length of each text."""

    def score(self, episodes: list[Episode]) -> list[float]:
        return [float(len(episode.completion)) for episode in episodes]

    def close(self) -> None: ...


def _episodes(request: ScoreRequest) -> list[Episode]:
    return [Episode(prompt="", completion=text, columns={}, prompt_ids=(), response_ids=()) for text in request.query]


@pytest.fixture(scope="module")
def app() -> Gate:
    source = Source(name="reward 'lengths'", reward=Lengths(), episodes=_episodes, joined_texts=8)
    return build_app(Batcher(source), BOUNDS, token=None, hosts=["localhost"])


REQUEST = {"query": ["ab", "c"], "prompts": ["a", ""], "labels": ["", 1]}
BODIES = damaged(REQUEST, ["query", "prompts", "labels", "more"]).map(as_json) | ANYTHING.map(as_json) | GARBAGE
KINDS = st.sampled_from(["application/json"] * 6 + ["", "text/plain", "application/json; charset=utf-16", "a" * 5000])


@trials(150)
@given(body=BODIES, kind=KINDS)
def test_any_body_gets_a_documented_status(app: Gate, body: bytes, kind: str) -> None:
    async def once() -> httpx2.Response:
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://localhost") as client:
            return await client.post("/get_reward", content=body, headers={"Content-Type": kind})

    answer = asyncio.run(once())
    assert answer.status_code in (200, 400, 413, 415, 422)
    if len(body) <= BOUNDS.max_body_bytes:  # FastAPI itself answers a larger one
        assert set(answer.json()) in ({"rewards"}, {"detail"})


class Parrot:
    """A server that answers every connection with the same bytes, and closes it."""

    def __init__(self) -> None:
        self.answer = b""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/get_reward"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection, suppress(OSError):
                connection.recv(65536)
                connection.sendall(self.answer)

    def close(self) -> None:
        self._listener.close()


@pytest.fixture(scope="module")
def parrot() -> Iterator[Parrot]:
    server = Parrot()
    yield server
    server.close()


STATUSES = st.sampled_from([200] * 6 + [100, 204, 301, 302, 404, 429, 500, 999])
HEADERS = st.sampled_from(
    ["Location", "Retry-After", "Content-Encoding", "Transfer-Encoding", "Content-Length", "Set-Cookie", "X"]
)
DATES = ["Wed, 21 Oct 9999999999 07:28:00 GMT", "Mon, 01 Jan 0001 00:00:00 +2359", "Wed, 99 Oct 2015 07:28:00 GMT"]
PLACES = ["//", "http://[", "http://a b", "\xff", "x" * 9000]
HEADER_VALUES = st.sampled_from(["", "0", "-1", "nan", "inf", "1e400", "chunked", "gzip", *PLACES, *DATES])
CONTENTS = (
    damaged({"rewards": [1.5]}, ["rewards"]).map(as_json) | ANYTHING.map(lambda v: as_json({"rewards": v})) | GARBAGE
)


@st.composite
def answers(draw: st.DrawFn) -> bytes:
    """Draw what a server sends: mostly HTTP."""
    body = draw(CONTENTS)
    if draw(st.integers(0, 9)) == 0:
        return body
    drawn = draw(st.lists(st.tuples(HEADERS, HEADER_VALUES | TEXTS), max_size=2))
    head = [f"HTTP/1.1 {draw(STATUSES)} X", *(f"{name}: {value}" for name, value in drawn)]
    if draw(st.booleans()):
        head.append(f"Content-Length: {len(body)}")
    return "\r\n".join(head).encode("utf-8", "surrogatepass") + b"\r\n\r\n" + body


@trials(100)
@given(answer=answers())
def test_any_answer_gives_scores_or_a_reward_error(parrot: Parrot, answer: bytes) -> None:
    parrot.answer = answer
    reward = HttpReward(parrot.url, timeout=0.5, deadline=0.5, retries=0, max_response_bytes=10_000)
    episode = Episode(prompt="a", completion="b", columns={}, prompt_ids=(), response_ids=())
    with suppress(RewardError):
        assert len(reward.score([episode])) == 1
