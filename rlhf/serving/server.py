"""The server process: it takes its address, loads the reward, and ends on SIGTERM."""

import logging
import signal
import socket
import sys
from ipaddress import ip_address

import uvicorn

from rlhf.errors import ConfigError
from rlhf.printable import printable
from rlhf.serving.access import log
from rlhf.serving.app import Bounds, build_app
from rlhf.serving.batcher import Batcher
from rlhf.serving.connections import connections
from rlhf.serving.options import ServingOptions
from rlhf.serving.served_reward import Source, function_source, model_source

GRACE_SECONDS = 10
"""Seconds that running requests have left after SIGTERM."""
LOCAL_HOSTS = ("localhost", "127.0.0.1", "[::1]")
"""Names of this machine in the Host header."""


def run(options: ServingOptions) -> None:
    """Serve until SIGTERM or SIGINT, then answer running requests and return.

    Raises:
        ConfigError: no token, no such address, or a reward that cannot be loaded.
    """
    token = options.token()
    with _listener(options) as listener:  # before loading the model, so that a port in use fails at once
        source = _source(options)
        try:
            _serve(options, source, token, listener)
        finally:
            source.reward.close()


def _serve(options: ServingOptions, source: Source, token: str | None, listener: socket.socket) -> None:
    bounds = Bounds(
        timeout=options.timeout,
        max_body_bytes=options.max_body_bytes,
        max_items=options.max_items,
        max_text_chars=options.max_text_chars,
    )
    hosts = [*LOCAL_HOSTS, options.host] if options.is_local else ["*"]
    app = build_app(Batcher(source), bounds, token=token, hosts=hosts)
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            http=connections(options.places_of_a_host),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=options.max_connections,
            timeout_graceful_shutdown=GRACE_SECONDS,
        )
    )
    _log_to_stderr()
    _end_on_signals(server)
    listener.listen(socket.SOMAXCONN)  # from here on connections wait instead of being refused
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    print(
        f"serving {printable(options.model or options.function or '')} on http://{shown}:{port}/get_reward", flush=True
    )
    server.run(sockets=[listener])


def _source(options: ServingOptions) -> Source:
    if options.function is not None:
        return function_source(options.function)
    return model_source(options.model or "", options.precision, options.device)


def _listener(options: ServingOptions) -> socket.socket:
    """Bind the address; connections are refused until the reward is loaded."""
    try:
        found = socket.getaddrinfo(options.host, options.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = found[0]
        if options.is_local and not ip_address(address[0]).is_loopback:
            raise ConfigError(f"serve-reward: --host {options.host} is {address[0]}, which other machines reach")
        listener = socket.socket(family)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
        except OSError:
            listener.close()
            raise
        return listener
    except OSError as error:
        raise ConfigError(
            f"serve-reward: cannot listen on {options.host} port {options.port}: {error.strerror} - give another "
            "--host or --port"
        ) from None


def _log_to_stderr() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False


def _end_on_signals(server: uvicorn.Server) -> None:
    """End normally on both signals; uvicorn handles them while it runs, and raises them again when it is done."""

    def end(*_: object) -> None:
        server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
