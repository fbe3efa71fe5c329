"""A reward model on the disk, a scriptable reward, and a client of an application."""

import asyncio
from collections.abc import Callable

import httpx2
import pytest

from rlhf.rewards.protocol import Episode
from rlhf.serving.served_reward import Source


class Script:
    """A reward that does what each text says, and notes its calls: its length, or `raise`, or another value."""

    def __init__(self):
        self.calls = []
        self.effects = {}

    def score(self, episodes):
        texts = [episode.completion for episode in episodes]
        self.calls.append(texts)
        return [self.effects[text]() if text in self.effects else float(len(text)) for text in texts]

    def close(self):
        self.calls.append("closed")


def _episodes(request):
    return [Episode(prompt="", completion=query, columns={}, prompt_ids=(), response_ids=()) for query in request.query]


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def source(script) -> Source:
    """Offers the scriptable reward; up to eight texts are joined."""
    return Source(name="reward 'script'", reward=script, episodes=_episodes, joined_texts=8)


@pytest.fixture
def directory(saved_reward_model) -> str:
    """A reward model on a tiny Llama."""
    return saved_reward_model()


@pytest.fixture
def ask() -> Callable:
    """`ask(app, "POST", "/get_reward", json=...)` is the answer of an ASGI application, without a network."""

    def request(app, method, path, **options):
        async def once():
            transport = httpx2.ASGITransport(app)
            async with httpx2.AsyncClient(transport=transport, base_url="http://localhost:8000") as client:
                return await client.request(method, path, **options)

        return asyncio.run(once())

    return request
