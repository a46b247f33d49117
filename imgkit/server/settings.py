"""The settings of a server: its address, its borders, its models, and how long it keeps things."""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from imgkit.errors import ConfigurationError

DEFAULT_PORT = 8100
ANY_MODEL = "*"
_TOKEN = re.compile(r"[!-~]+")
_HOST = re.compile(r"[\w.-]+|\[[0-9A-Fa-f:.]+\]")
TOKEN_VARIABLE = "IMGKIT_SERVER_TOKEN"  # noqa: S105  # the name of a variable


class ModelRoute(NamedTuple):
    """The model behind a name that callers use.

    Attributes:
        provider: name of its provider, None for the provider of the server.
        model: its name there, None for the name that the caller gave.
    """

    provider: str | None
    model: str | None


class ServerSettings(NamedTuple):
    """The settings of an `imgkit.server.image_server.ImageServer`.

    >>> ServerSettings().is_loopback
    True

    Attributes:
        host: address to listen on. An address that is not of this machine alone needs a token.
        port: port to listen on, 0 for a free one.
        token: the token of the callers, None for none.
        hosts: further names under which callers reach the server, such as "images.example.org".
        origins: origins of pages that may use the server, such as "http://localhost:3000".
        routes: the models behind names that callers use; "*" stands for any other name.
        in_flight: most requests at the provider at once.
        per_minute: most requests to the provider in a minute, None for no limit.
        cache: use of the cache, None for the default.
        has_prompts: show prompts on the page and in lists.
        max_body_bytes: largest body of a request.
        max_uploads_bytes: most bytes of images of requests on the disk at once; half of the free disk if
            that is less.
        stop_s: seconds that running requests have when the server stops.
        repeat_s: seconds after the end of a request in which a repetition gets its reply.
        link_s: seconds for which the server keeps the image behind a result URL.
    """

    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    token: str | None = None
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    routes: Mapping[str, ModelRoute] = {}
    in_flight: int = 64
    per_minute: float | None = None
    cache: str | None = None
    has_prompts: bool = True
    max_body_bytes: int = 256 * 1024 * 1024
    max_uploads_bytes: int = 8 * 1024 * 1024 * 1024
    stop_s: float = 30.0
    repeat_s: float = 60.0
    link_s: float = 3600.0

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches the server."""
        return is_loopback(self.host)

    def check(self) -> None:
        """Check settings that depend on each other.

        Raises:
            ConfigurationError: the address needs a token or is not an address of this machine, or a token or
                an origin has a wrong form.
        """
        if self.token is not None and not _TOKEN.fullmatch(self.token):
            raise ConfigurationError("The token must be ASCII text without blanks, and not empty.")
        if not self.is_loopback and self.token is None:
            if not _is_own_host(self.host):
                raise ConfigurationError(
                    f"{self.host[:200]!r} is not an address of this machine. Pass one as --host, such as "
                    "127.0.0.1."
                )
            raise ConfigurationError(
                f"Other machines can reach {self.host!r}, and anybody there could spend your money. Set a "
                "token for the callers with --token, or listen on 127.0.0.1."
            )
        for host in self.hosts:
            if not _HOST.fullmatch(host):
                raise ConfigurationError(
                    f"{host[:200]!r} is not a host name. Give a name without scheme and port, such as "
                    "images.example.org."
                )
        for origin in self.origins:
            parts = urlsplit(origin)
            if parts.scheme not in ("http", "https") or f"{parts.scheme}://{parts.netloc}" != origin:
                raise ConfigurationError(
                    f"{origin[:200]!r} is not an origin. Give scheme, host and port only, such as "
                    "http://localhost:3000."
                )


def is_loopback(host: str) -> bool:
    """Return whether an address belongs to this machine alone.

    >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0")
    (True, True, False)
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _is_own_host(host: str) -> bool:
    """Return whether this machine can listen on an address, or on one of a name. May block."""
    name = host.strip("[]") or None
    try:
        addresses = socket.getaddrinfo(name, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, ValueError):  # ValueError: the host cannot be a name
        return False
    for family, kind, protocol, _, address in addresses:
        with suppress(OSError), socket.socket(family, kind, protocol) as listener:
            listener.bind(address)
            return True
    return False


def parse_routes(words: Iterable[str]) -> dict[str, ModelRoute]:
    """Return the routes of ``NAME=PROVIDER:MODEL`` texts.

    >>> parse_routes(["gpt-image-2=bfl:flux-2-pro", "small=gpt-image-1-mini"])["gpt-image-2"]
    ModelRoute(provider='bfl', model='flux-2-pro')

    Args:
        words: texts such as ``"gpt-image-2=bfl:flux-2-pro"``, ``"small=gpt-image-1-mini"`` for another model
            of the server's provider, and ``"*=bfl:flux-2-pro"`` for every name that has no route.

    Raises:
        ConfigurationError: a text has another form, or a name stands twice.
    """
    routes: dict[str, ModelRoute] = {}
    for word in words:
        name, equals, target = word.partition("=")
        provider, colon, model = target.partition(":")
        if not equals or not name.strip() or not target.strip() or (colon and not provider.strip()):
            raise ConfigurationError(
                f"{word[:200]!r} is not a model map. Write NAME=PROVIDER:MODEL, such as "
                "gpt-image-2=bfl:flux-2-pro."
            )
        if name.strip() in routes:
            raise ConfigurationError(f"The model {name.strip()!r} is mapped twice. Map it once.")
        if colon:
            routes[name.strip()] = ModelRoute(provider.strip(), model.strip() or None)
        else:
            routes[name.strip()] = ModelRoute(None, target.strip())
    return routes


def choose_work_folder(state_folder: Path | None) -> Path:
    """Return the folder for the files of servers: in the state folder, else in the system's own."""
    if state_folder is not None:
        return state_folder / "serve"
    import tempfile

    # Users share the system's folder: none may write where another reads.
    user = os.getuid() if hasattr(os, "getuid") else ""
    return Path(tempfile.gettempdir()) / f"imgkit-serve{user}"
