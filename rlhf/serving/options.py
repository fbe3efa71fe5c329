"""The options of `rlhf serve-reward`; parsed without importing torch."""

import argparse
import os
from dataclasses import dataclass, fields
from ipaddress import ip_address
from typing import Literal, Self

from rlhf.errors import ConfigError

MIN_TOKEN_LENGTH = 16
"""Minimum length of the token of a server that other machines can reach."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingOptions:
    """Which reward is served, to whom, and within which limits."""

    model: str | None
    """Directory, `fetch:NAME` or hub name of a reward model."""
    function: str | None
    """`path/to/file.py:name` or `package.module:name`."""
    host: str
    """Address to listen on."""
    port: int
    """Port to listen on; 0 takes a free one."""
    token_env: str | None
    """Environment variable with the token that requests must carry."""
    timeout: float
    """Seconds from the first byte of a request to its answer."""
    max_body_bytes: int
    """Size of the largest request."""
    max_items: int
    """The most texts in one request."""
    max_text_chars: int
    """Length of the longest query or prompt."""
    max_connections: int
    """Simultaneous connections."""
    max_connections_per_host: int | None = None
    """Of these, the most from one host; None for a quarter, and for all where only this machine can connect."""
    precision: Literal["auto", "float32", "bfloat16"]
    """The dtype that the model computes in."""
    device: str | None
    """Of the model; None picks a GPU if there is one."""

    def __post_init__(self) -> None:
        """Refuse what cannot be served."""
        if (self.model is None) == (self.function is None):
            raise ConfigError("serve-reward: give --model DIR or --function FILE.py:NAME, and not both")
        for name in ("timeout", "max_body_bytes", "max_items", "max_text_chars"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"serve-reward: {_flag(name)}: must be above 0, got {getattr(self, name)}")
        if self.max_connections < 2:  # uvicorn counts the current connection too
            raise ConfigError(f"serve-reward: --max-connections: must be at least 2, got {self.max_connections}")
        if self.max_connections_per_host is not None and self.max_connections_per_host < 1:
            raise ConfigError(
                f"serve-reward: --max-connections-per-host: must be at least 1, got {self.max_connections_per_host}"
            )
        if not 0 <= self.port < 1 << 16:
            raise ConfigError(f"serve-reward: --port: must be in [0, 65535], got {self.port}")

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach the server."""
        if self.host == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def places_of_a_host(self) -> int:
        """The most connections that one host may hold."""
        if self.max_connections_per_host is not None:
            return self.max_connections_per_host
        return self.max_connections if self.is_local else max(1, self.max_connections // 4)

    def token(self) -> str | None:
        """Return the token that requests must carry, or None if everyone on this machine has access.

        Raises:
            ConfigError: other machines can reach the server and there is no token, or it is too weak.
        """
        if self.token_env is None:
            if self.is_local:
                return None
            raise ConfigError(
                f"serve-reward: --host {self.host} lets other machines in - set --token-env to the name of an "
                "environment variable with a token, or listen on 127.0.0.1"
            )
        token = os.environ.get(self.token_env, "")
        if len(token) < MIN_TOKEN_LENGTH or not all("!" <= character <= "~" for character in token):
            raise ConfigError(
                f"serve-reward: --token-env {self.token_env}: expected at least {MIN_TOKEN_LENGTH} visible ASCII "
                f"characters in that environment variable, found {len(token)} characters"
            )
        return token

    @classmethod
    def of(cls, options: argparse.Namespace) -> Self:
        """Copy the options from the command line."""
        return cls(**{field.name: getattr(options, field.name) for field in fields(cls)})


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `rlhf serve-reward`."""
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--model", metavar="DIR", help="a reward model: directory, fetch:NAME or hub name")
    what.add_argument("--function", metavar="F", help="FILE.py:NAME or package.module:NAME; this runs its code")
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen on; one that others reach needs a token (%(default)s)")
    add("--port", type=int, default=8000, help="port to listen on, 0 for a free one (%(default)s)")
    add("--token-env", metavar="NAME", help="environment variable with the token that requests must carry")
    add("--timeout", type=float, default=60.0, metavar="SECONDS", help="for one request (%(default)s)")
    add("--max-body-bytes", type=int, default=16 << 20, metavar="N", help="of one request (%(default)s)")
    add("--max-items", type=int, default=4096, metavar="N", help="texts of one request (%(default)s)")
    add("--max-text-chars", type=int, default=65536, metavar="N", help="of one text (%(default)s)")
    add("--max-connections", type=int, default=64, metavar="N", help="at a time (%(default)s)")
    add("--max-connections-per-host", type=int, metavar="N", help="of these (default: a quarter; all on 127.0.0.1)")
    add("--precision", choices=("auto", "float32", "bfloat16"), default="auto", help="of the model (%(default)s)")
    add("--device", help="of the model, for example cpu or cuda:1 (default: a GPU if there is one)")


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
