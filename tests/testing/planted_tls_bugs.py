"""Planted bugs of backends: certificates, the environment and proxies."""

from __future__ import annotations

import netrc
import os
import ssl
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit
from urllib.request import proxy_bypass

import requests

from imgkit.backends.aiohttp import AiohttpBackend
from imgkit.backends.requests import RequestsBackend
from imgkit.wire.messages import BackendOptions, HttpRequest
from imgkit.wire.transfer import Transfer
from tests.testing.planted_backend_bugs import TOO_LONG_S, Reply, plant, with_header


def build_trusting_context() -> ssl.SSLContext:
    """Return a context that verifies nothing."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


# --- Certificates ------------------------------------------------------------------------------


@plant("test_trusts_ca", "certificate verify failed|CERTIFICATE_VERIFY_FAILED|certificate")
class IgnoresCa(RequestsBackend):
    """Nobody behind the authority of a company can connect."""

    def __init__(self, options: BackendOptions) -> None:
        super().__init__(replace(options, ca=None))


@plant("test_trusts_ca_alone", "DID NOT RAISE")
class IgnoresContext(RequestsBackend):
    """A context that trusts one authority trusts everybody."""

    def __init__(self, options: BackendOptions) -> None:
        super().__init__(replace(options, ca=build_trusting_context() if options.ca else None))


@plant("test_refuses_unknown_authority", "DID NOT RAISE")
@plant("test_verifies_server_behind_proxy", "DID NOT RAISE")
class VerifiesNothing(RequestsBackend):
    """Anybody on the way reads the key."""

    def __init__(self, options: BackendOptions) -> None:
        super().__init__(replace(options, ca=build_trusting_context()))


@plant("test_refuses_certificate_of_another_host", "DID NOT RAISE")
class AcceptsAnyHost(RequestsBackend):
    """The owner of any certificate reads the key."""

    def __init__(self, options: BackendOptions) -> None:
        context = ssl.create_default_context(cafile=options.ca)
        context.check_hostname = False
        super().__init__(replace(options, ca=context))


@plant("test_uses_context_as_it_is", "Could not connect")
class ChecksHostAnyway(RequestsBackend):
    """A server under a name of its own cannot be reached, though the caller allows it."""

    def __init__(self, options: BackendOptions) -> None:
        if isinstance(options.ca, ssl.SSLContext):
            options.ca.check_hostname = True
        super().__init__(options)


@plant("test_limits_tls_handshake", "not limited by the connect timeout")
class WaitsForHandshake(RequestsBackend):
    """A port that accepts and says nothing holds a call until its deadline."""

    def open(self, request: HttpRequest, transfer: Transfer) -> Reply:
        transfer.connect_timeout_s = lambda: TOO_LONG_S  # type: ignore[method-assign]
        return super().open(request, transfer)


@plant("test_ignores_certificates_of_environment", "DID NOT RAISE")
class TrustsVariable(RequestsBackend):
    """Whoever sets ``SSL_CERT_FILE`` reads the key."""

    def __init__(self, options: BackendOptions) -> None:
        super().__init__(replace(options, ca=options.ca or ssl.create_default_context()))


@plant("test_ignores_certificates_of_environment", "writes TLS secrets to SSLKEYLOGFILE")
class WritesTlsSecrets(RequestsBackend):
    """Whoever reads the file decrypts the traffic."""

    def __init__(self, options: BackendOptions) -> None:
        if options.ca is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.load_verify_locations(options.ca)
            context.keylog_filename = os.environ.get("SSLKEYLOGFILE", os.devnull)
            options = replace(options, ca=context)
        super().__init__(options)


# --- Environment -------------------------------------------------------------------------------


@plant("test_ignores_proxy_of_environment", "a proxy that nobody gave it")
class UsesProxyOfVariable(RequestsBackend):
    """A proxy that the caller does not know sees every request."""

    def __init__(self, options: BackendOptions) -> None:
        super().__init__(replace(options, proxy=options.proxy or os.environ.get("HTTP_PROXY")))


@plant("test_ignores_proxy_of_environment", "a proxy that nobody gave it")
class TrustsEnvironment(AiohttpBackend):
    """``trust_env`` turns on proxies and netrc at once."""

    async def open(self, request: HttpRequest, transfer: Transfer) -> Any:
        self._get_session(request.public_peer_only)._trust_env = True
        return await super().open(request, transfer)


@plant("test_ignores_netrc", "Do not read netrc files")
class ReadsNetrc(RequestsBackend):
    """A server that needs no key gets a password for another service."""

    def open(self, request: HttpRequest, transfer: Transfer) -> Reply:
        login = netrc.netrc().authenticators(urlsplit(request.url).hostname or "")
        if login and "authorization" not in request.headers:
            request = with_header(request, "authorization", f"Basic {login[0]}")
        return super().open(request, transfer)


@plant("test_stores_no_cookies", "Store no cookies")
class StoresCookies(RequestsBackend):
    """The server connects calls of different users, and equal calls differ."""

    cookie = ""

    def open(self, request: HttpRequest, transfer: Transfer) -> Reply:
        if self.cookie:
            request = with_header(request, "cookie", self.cookie)
        reply = super().open(request, transfer)
        self.cookie = reply.head.headers.get("set-cookie", "").partition(";")[0]
        return reply


# --- Proxies -----------------------------------------------------------------------------------


@plant("test_uses_proxy", "Could not connect")
class DropsProxy(RequestsBackend):
    """Requests leave a network that must not be left."""

    def __init__(self, options: BackendOptions) -> None:
        super().__init__(replace(options, proxy=None))


@plant("test_never_bypasses_proxy", "DID NOT RAISE|connects without its proxy")
class ObeysNoProxy(RequestsBackend):
    """A variable decides against the argument of the caller."""

    def open(self, request: HttpRequest, transfer: Transfer) -> Reply:
        if proxy_bypass(urlsplit(request.url).hostname or ""):
            self._options = replace(self._options, proxy=None)
        return super().open(request, transfer)


@plant("test_never_bypasses_proxy", "DID NOT RAISE|connects without its proxy")
class ConnectsWithoutDeadProxy(RequestsBackend):
    """A proxy that is down looks like success."""

    def open(self, request: HttpRequest, transfer: Transfer) -> Reply:
        try:
            return super().open(request, transfer)
        except requests.exceptions.ProxyError:
            return RequestsBackend(replace(self._options, proxy=None)).open(request, transfer)


@plant("test_sends_proxy_password_to_proxy_alone", "The server sees the password")
class SendsProxyPasswordToServer(RequestsBackend):
    """The API learns the password of the proxy."""

    def open(self, request: HttpRequest, transfer: Transfer) -> Reply:
        if self._options.proxy and request.url.startswith("https:"):
            request = with_header(request, "proxy-authorization", self._options.proxy)
        return super().open(request, transfer)


@plant("test_sends_proxy_password_to_proxy_alone", "unquote name and password")
class QuotesProxyPassword(RequestsBackend):
    """The proxy refuses every password with a special character."""

    def __init__(self, options: BackendOptions) -> None:
        super().__init__(replace(options, proxy=(options.proxy or "").replace("%", "%25") or None))


@plant("test_tunnels_through_proxy", "The proxy sees the key")
class SendsKeyToProxy(RequestsBackend):
    """The owner of the proxy pays with the key."""

    def open(self, request: HttpRequest, transfer: Transfer) -> Reply:
        adapter = self._get_adapter()
        adapter.proxy_headers = lambda proxy: dict(request.headers)  # type: ignore[method-assign]
        return super().open(request, transfer)


@plant("test_uses_https_proxy", "Could not connect|outcome is unknown")
class SpeaksPlainlyToProxy(RequestsBackend):
    """The password of the proxy travels unencrypted."""

    def __init__(self, options: BackendOptions) -> None:
        super().__init__(replace(options, proxy=(options.proxy or "").replace("https:", "http:") or None))


@plant("test_verifies_https_proxy", "trusts the certificate of the proxy|DID NOT RAISE")
class TrustsVariableForProxy(RequestsBackend):
    """Whoever sets ``SSL_CERT_FILE`` reads the password of the proxy."""

    def open(self, request: HttpRequest, transfer: Transfer) -> Reply:
        if self._options.proxy:
            manager = self._get_adapter().proxy_manager_for(self._options.proxy)
            # urllib3 then makes a context of its own.
            manager.proxy_config = manager.proxy_config._replace(ssl_context=None)  # type: ignore[union-attr]
            manager.connection_pool_kw["_proxy_config"] = manager.proxy_config
        return super().open(request, transfer)
