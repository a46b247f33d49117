"""The borders of a server: which hosts, pages and callers it answers."""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Mapping

from aiohttp.web import BaseRequest

from imgkit.server.envelopes import Rejection
from imgkit.server.settings import ServerSettings

PUBLIC_PATHS = ("/", "/healthz")
"""Addresses that need no token. A result URL needs none either: its name is the secret."""

FILES_PATH = "/files/"

_ANY_ADDRESS = ("0.0.0.0", "::", "[::]")  # noqa: S104  # hosts to compare with
_LOCAL_NAMES = ("127.0.0.1", "localhost", "[::1]")


class Borders:
    """Decides whether a request is answered.

    Args:
        settings: settings of the server.
        port: the port on which it listens.
    """

    def __init__(self, settings: ServerSettings, port: int) -> None:
        self._settings = settings
        self._port = port
        own = settings.host if ":" not in settings.host else f"[{settings.host.strip('[]')}]"
        names = {*_LOCAL_NAMES, own, *settings.hosts}
        self._hosts = {name.lower() for name in names if name not in _ANY_ADDRESS}
        self._origins = {origin.lower() for origin in settings.origins}
        self._answers_any_address = settings.host in _ANY_ADDRESS

    def check_page(self, request: BaseRequest) -> None:
        """Check the host of a request, and the page that sends it.

        Raises:
            Rejection: the request is refused; its body was not read.
        """
        self.check_host(request.headers.getall("host", []))
        if not request.raw_path.startswith("/") and "://" in request.raw_path:
            # A target with a host of its own, as a proxy gets it.
            self.check_host([request.raw_path.partition("://")[2].partition("/")[0]])
        self._check_origin(request)

    def check_caller(self, request: BaseRequest) -> None:
        """Check the token of a request.

        Raises:
            Rejection: the request is refused; its body was not read.
        """
        path = request.path
        if request.method != "OPTIONS" and path not in PUBLIC_PATHS and not path.startswith(FILES_PATH):
            self._check_token(request)

    def cors_headers(self, request: BaseRequest) -> Mapping[str, str]:
        """Return the headers that let a page read the reply, if its origin may use the server."""
        origins = request.headers.getall("origin", [])
        if len(origins) != 1 or origins[0].lower() not in self._origins:
            return {}
        origin = origins[0]
        return {
            "access-control-allow-origin": origin,
            "access-control-allow-methods": "GET, POST",
            "access-control-allow-headers": request.headers.get(
                "access-control-request-headers", "authorization, content-type"
            ),
            "access-control-expose-headers": "retry-after, x-should-retry, x-request-id, x-imgkit-call-id, "
            "x-imgkit-cost-usd, x-imgkit-cached",
            "vary": "origin",
        }

    def check_host(self, given: list[str]) -> None:
        """Check the host that a request names.

        Args:
            given: the values of its Host headers.

        Raises:
            Rejection: it is no name of this server, or there is not one of them.
        """
        host = given[0].strip().lower() if len(given) == 1 else ""
        name, _, port = host.rpartition(":") if not host.endswith("]") and ":" in host else (host, "", "")
        is_port_right = (
            port == str(self._port)
            or (not port and self._port in (80, 443))
            or name in {each.lower() for each in self._settings.hosts}
        )
        is_known = name in self._hosts or (self._answers_any_address and _is_address(name))
        if not is_known or not is_port_right:
            raise Rejection(
                421,
                "invalid_host",
                f"This server does not answer for the host {host[:200]!r}. Use its own address, or start it "
                "with --allow-host NAME. Nothing was sent.",
                closes=True,
            )

    def _check_origin(self, request: BaseRequest) -> None:
        """Refuse requests that a page of a stranger makes a browser send."""
        origin = ", ".join(request.headers.getall("origin", [])) if "origin" in request.headers else None
        host = request.headers.get("host", "").strip().lower()
        if origin is not None:
            if origin.lower() in self._origins or origin.lower() in (f"http://{host}", f"https://{host}"):
                return
        elif (
            request.headers.get("sec-fetch-site", "none") in ("none", "same-origin")
            or request.method == "GET"
        ):
            return
        raise Rejection(
            403,
            "invalid_origin",
            f"Pages of {(origin or 'another site')[:200]!r} may not use this server. Start it with "
            "--allow-origin ORIGIN if you trust them. Nothing was sent.",
            closes=True,
        )

    def _check_token(self, request: BaseRequest) -> None:
        token = self._settings.token
        if token is None:
            return
        headers = request.headers.getall("authorization", [])
        scheme, _, given = (headers[0] if len(headers) == 1 else "").partition(" ")
        is_right = hmac.compare_digest(given.strip().encode("utf-8", "surrogateescape"), token.encode())
        if scheme.lower() != "bearer" or not is_right:
            raise Rejection(
                401,
                "invalid_api_key",
                "The token is missing or wrong. Pass the token of this server as the API key of your client. "
                "Nothing was sent.",
                headers={"www-authenticate": "Bearer"},
                closes=True,
            )


def _is_address(name: str) -> bool:
    """Return whether a host is a number: a page of a stranger can only use names."""
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True
