"""Connections that never make a request lose their place, whoever opened them."""

import asyncio
import time

import pytest
import uvicorn

from rlhf.serving.connections import connections
from rlhf.serving.options import ServingOptions

REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


async def _app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


def _served(trial, *, per_host=3, header_seconds=0.4):
    """Run `trial(port)` beside a server with short times."""
    kind = type("Quick", (connections(per_host),), {"header_seconds": header_seconds})

    async def run():
        config = uvicorn.Config(_app, port=0, http=kind, ws="none", lifespan="off", log_config=None)
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        try:
            port = server.servers[0].sockets[0].getsockname()[1]
            return await asyncio.wait_for(trial(port), 20)
        finally:
            server.should_exit = True
            await serving

    return asyncio.run(run())


async def _answer(port, head=REQUEST):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head)
    answer = await reader.read(64)
    writer.close()
    return answer


@pytest.mark.parametrize("said", [b"", b"GET / HTT", b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: "])
def test_headers_that_never_end_lose_their_connection(said) -> None:
    async def trial(port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(said)
        try:
            rest = await asyncio.wait_for(reader.read(), 8)
        except ConnectionResetError:
            rest = b""
        return rest, await _answer(port)

    rest, answer = _served(trial)
    assert rest == b"" and answer.startswith(b"HTTP/1.1 200")


def test_headers_that_come_byte_by_byte_do_not_gain_time() -> None:
    async def trial(port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        begun = time.monotonic()
        try:
            for place in range(400):
                writer.write(b"GET / HTTP/1.1\r\nX: "[place : place + 1] or b"y")
                await writer.drain()
                if reader.at_eof():
                    break
                await asyncio.sleep(0.05)
        except (ConnectionResetError, BrokenPipeError):
            pass
        return time.monotonic() - begun

    assert _served(trial) < 8


def test_a_second_request_on_a_connection_has_the_same_time_for_its_headers() -> None:
    async def trial(port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(REQUEST)
        first = await reader.readuntil(b"ok")
        writer.write(b"GET")
        try:
            return first, await asyncio.wait_for(reader.read(), 8)
        except ConnectionResetError:
            return first, b""

    first, rest = _served(trial)
    assert first.startswith(b"HTTP/1.1 200") and rest == b""


def test_a_host_gets_no_more_than_its_places_and_gets_them_back() -> None:
    async def trial(port):
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
        await asyncio.sleep(0.1)
        refused = await _answer(port)
        for _, writer in silent:
            writer.close()
        await asyncio.sleep(0.2)
        return refused, await _answer(port)

    refused, answer = _served(trial, header_seconds=15)
    assert refused.startswith(b"HTTP/1.1 429") and answer.startswith(b"HTTP/1.1 200")


def _options(**changes):
    given = {"model": "m", "function": None, "host": "127.0.0.1", "port": 0, "token_env": None, "timeout": 1.0}
    given |= {"max_body_bytes": 1, "max_items": 1, "max_text_chars": 1, "max_connections": 64}
    return ServingOptions(**{**given, "precision": "auto", "device": None, **changes})


def test_a_host_has_a_quarter_of_the_places_unless_only_this_machine_connects() -> None:
    assert _options().places_of_a_host == 64
    assert _options(host="0.0.0.0").places_of_a_host == 16
    assert _options(host="0.0.0.0", max_connections=2).places_of_a_host == 1
    assert _options(max_connections_per_host=5).places_of_a_host == 5
