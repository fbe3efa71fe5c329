"""A server that does everything wrong, one behaviour a connection."""

import contextlib
import json
import socket
import threading

SCORES = b'{"rewards": [1.5, -2]}'


class Chaos:
    """Serves each behaviour once, the last one for ever.

    A behaviour is the name of a function below with its arguments, `("drip", b"HTTP/1.1 200")`; a number alone, or in
    front, is an answer with that status: `200`, `(503, b"busy", "Retry-After: 1")`.
    """

    def __init__(self, *behaviours):
        self.requests = []
        self.closing = threading.Event()
        self._behaviours = [behaviour if isinstance(behaviour, tuple) else (behaviour,) for behaviour in behaviours]
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/get_reward"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            number = len(self.requests)
            self.requests.append(None)
            behaviour = self._behaviours[min(number, len(self._behaviours) - 1)]
            threading.Thread(target=self._serve, args=(connection, behaviour, number), daemon=True).start()

    def _serve(self, connection, behaviour, number):
        name, *arguments = behaviour if isinstance(behaviour[0], str) else ("answer", *behaviour)
        with connection, contextlib.suppress(OSError):
            if name != "slam":
                self.requests[number] = _request(connection)
            globals()[name](self, connection, *arguments)

    def close(self):
        self.closing.set()
        self._listener.close()


def answer(server, connection, status, body=SCORES, *headers):
    head = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", "Connection: close", *headers]
    connection.sendall("\r\n".join(head).encode() + b"\r\n\r\n" + body)


def rewards(server, connection, text):
    answer(server, connection, 200, b'{"rewards": ' + text + b"}")


def hang(server, connection):
    server.closing.wait()


def slam(server, connection):
    """Close with the request unread, which resets the connection."""
    connection.recv(10)


def stop(server, connection, start):
    """Close in the middle of an answer."""
    connection.sendall(start)


def drip(server, connection, start):
    connection.sendall(start)
    while not server.closing.wait(0.02):
        connection.sendall(b"a")


def endless(server, connection):
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    while not server.closing.is_set():
        connection.sendall(b" " * 65536)


def _request(connection):
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(65536)
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines[1:])}
    while len(body) < int(headers.get("content-length", 0)):
        body += connection.recv(65536)
    return lines[0], headers, json.loads(body) if body else None
