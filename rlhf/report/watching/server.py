"""The server of a watched page: on 127.0.0.1, for requests to this machine by its own name, with two addresses."""

import json
import signal
import socket
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from rlhf.errors import ConfigError
from rlhf.printable import printable
from rlhf.report.options import WatchOptions
from rlhf.report.page import policy_of
from rlhf.report.watching.watched import Watched

HOST = "127.0.0.1"
NAMES = ("127.0.0.1", "localhost")
"""Accepted in the Host header: a page in a browser could make its own host name resolve to this machine."""
SILENT_SECONDS = 10.0
"""How long a connection may say nothing."""
MOST_CONNECTIONS = 32
HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def watch(options: WatchOptions) -> None:
    """Serve the page of runs until SIGINT or SIGTERM.

    Raises:
        ConfigError: the port is taken, or a directory has no place on this machine.
    """
    for run in options.runs:
        if not run.exists() and not run.absolute().parent.is_dir():
            raise ConfigError(f"{run}: neither it nor its parent exists; name the output_dir of a run")
    server = make_server(Watched(options.runs), options.port)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    names = ", ".join(printable(str(run)) for run in options.runs)
    print(f"watching {names} on http://{HOST}:{server.server_address[1]}/ - Ctrl-C ends", flush=True)
    with server:
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return


def make_server(watched: Watched, port: int) -> "WatchServer":
    """Return a server that listens, at a free port for 0.

    Raises:
        ConfigError: the port is taken.
    """
    try:
        return WatchServer(watched, port)
    except OSError as error:
        raise ConfigError(
            f"watch: cannot listen on {HOST} port {port}: {error.strerror} - give another --port, or 0 for a free one"
        ) from None


class WatchServer(ThreadingHTTPServer):
    """A thread for each connection, a bounded number of them."""

    daemon_threads = True

    def __init__(self, watched: Watched, port: int) -> None:
        self.watched = watched
        self._places = threading.BoundedSemaphore(MOST_CONNECTIONS)
        super().__init__((HOST, port), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer, unless every place is taken."""
        if self._places.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: socket.socket | tuple[bytes, socket.socket], client_address: Any) -> None:
        """Answer in a thread of its own, and free the place."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing about a browser that went away."""


class _Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD of the page and of its version; opens no file that a request names."""

    server: WatchServer
    server_version, sys_version = "rlhf", ""
    timeout = SILENT_SECONDS

    def do_GET(self) -> None:
        """Answer."""
        if self._host() not in NAMES:
            self._answer(HTTPStatus.FORBIDDEN, "text/plain", f"watch: this is {' or '.join(NAMES)}\n")
        elif self.path == "/":
            self._answer(HTTPStatus.OK, "text/html", self.server.watched.page())
        elif self.path == "/version":
            self._answer(HTTPStatus.OK, "application/json", json.dumps({"version": self.server.watched.version()}))
        else:
            self._answer(HTTPStatus.NOT_FOUND, "text/plain", "watch: there is nothing but /\n")

    do_HEAD = do_GET  # noqa: N815

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Refuse in one line, without quoting the request; a method without a function here comes here too."""
        known = HTTPStatus.METHOD_NOT_ALLOWED if code == HTTPStatus.NOT_IMPLEMENTED else HTTPStatus(code)
        self._answer(known, "text/plain", f"watch: {known.phrase.lower()}\n")

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: the terminal may be that of the run."""

    def _host(self) -> str:
        given = self.headers.get_all("Host") or []
        return given[0].partition(":")[0].strip().lower() if len(given) == 1 else ""

    def _answer(self, status: HTTPStatus, kind: str, text: str) -> None:
        body = text.encode()
        self.close_connection = True
        self.send_response(status)
        for name, value in {**HEADERS, "Content-Security-Policy": policy_of(is_watched=True)}.items():
            self.send_header(name, value)
        if status == HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET, HEAD")
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        if getattr(self, "command", None) != "HEAD":
            self.wfile.write(body)
