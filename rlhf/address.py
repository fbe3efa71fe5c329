"""Addresses that requests go to: checked, shown without secrets, and the certificates that they trust."""

import ssl

import httpx2

from rlhf.errors import ConfigError
from rlhf.printable import quoted


def checked_address(url: str, what: str) -> str:
    """Return a URL that requests can be sent to; `what` names it in a message.

    Raises:
        ConfigError: it is none, or holds a user or a password.
    """
    try:
        parts = httpx2.URL(url)
    except httpx2.InvalidURL:
        raise ConfigError(f"{what}: url is not a URL - expected for example http://host:8000/get_reward") from None
    if parts.scheme not in ("http", "https") or not parts.host:
        raise ConfigError(f"{what} {shown_url(url)}: expected an http or https address with a host")
    if parts.userinfo:
        raise ConfigError(
            f"{what} {shown_url(url)}: the url holds a user or a password - put a token into an environment variable "
            "and name it in token_env"
        )
    return str(parts)


def trust_of(url: str) -> ssl.SSLContext:
    """Return the certificates that a connection to `url` trusts: the system's for https, none where none is needed.

    Reading the system's takes up to a second, which must not count against the deadline of each call.
    """
    return httpx2.create_ssl_context() if url.startswith("https:") else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def shown_url(url: str) -> str:
    """Return what is safe to print of a URL: scheme, host and path, without user, password, query and fragment."""
    try:
        parts = httpx2.URL(url)
    except httpx2.InvalidURL:
        return "an address that is not a URL"
    return quoted(str(parts.copy_with(username=None, password=None, query=None, fragment=None)))[1:-1]
