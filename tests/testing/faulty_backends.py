"""Backends with one fault each, and the test of `BackendContract` that must find it."""

from __future__ import annotations

import logging
import netrc
import os
import ssl
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit
from urllib.request import proxy_bypass

import requests
from yarl import URL

from imgkit.backends.aiohttp import AiohttpBackend
from imgkit.backends.requests import RequestsBackend
from imgkit.testing.backend_harness import MAX_DELAY_S
from imgkit.wire.messages import BackendOptions, BytesBody, HttpRequest
from imgkit.wire.transfer import Transfer

FAULTS: dict[Any, str] = {}
"""Name of the contract's test by faulty class."""

TOO_LONG_S = MAX_DELAY_S + 0.2

Reply = Any
"""A reply of any backend, wrapped or not."""


def found_by(test: str) -> Callable[[type], type]:
    """Register a faulty class with the test that must fail for it."""

    def register(faulty: type) -> type:
        FAULTS[faulty] = test
        return faulty

    return register


def with_header(request: HttpRequest, name: str, value: str) -> HttpRequest:
    return request.with_headers({**request.headers, name: value})


class WrappedReply:
    """A reply that passes on another."""

    def __init__(self, reply: Reply) -> None:
        self.head, self.reply = reply.head, reply

    def read(self) -> bytes:
        return bytes(self.reply.read())

    def close(self) -> None:
        self.reply.close()


# Requests and replies


@found_by("test_sends_request_as_is")
class AddsHeader(RequestsBackend):
    def open(self, request: HttpRequest, transfer: Transfer) -> Reply:
        return super().open(with_header(request, "accept-encoding", "gzip"), transfer)


@found_by("test_sends_request_as_is")
class LogsKey(RequestsBackend):
    def open(self, request: HttpRequest, transfer: Transfer) -> Reply:
        logging.getLogger("faulty").debug("sending %s", dict(request.headers))
        return super().open(request, transfer)


@found_by("test_sends_request_as_is")
class LosesLastByte(RequestsBackend):
    def open(self, request: HttpRequest, transfer: Transfer) -> Reply:
        class ShortReply(WrappedReply):
            def read(self) -> bytes:
                return super().read()[:-1]

        return ShortReply(super().open(request, transfer))


@found_by("test_maps_faults_to_errors")
class IgnoresEarlyEnd(RequestsBackend):
    def open(self, request: HttpRequest, transfer: Transfer) -> Reply:
        class LenientReply(WrappedReply):
            def read(self) -> bytes:
                try:
                    return super().read()
                except Exception:
                    return b""

        return LenientReply(super().open(request, transfer))


@found_by("test_maps_faults_to_errors")
class SendsAgain(RequestsBackend):
    def open(self, request: HttpRequest, transfer: Transfer) -> Reply:
        try:
            return super().open(request, transfer)
        except requests.ConnectionError:
            return super().open(request, transfer)


@found_by("test_maps_faults_to_errors")
class ReportsSentAsUnsent(RequestsBackend):
    unsent_errors = (requests.ConnectionError,)

    def open(self, request: HttpRequest, transfer: Transfer) -> Reply:
        transfer.mark_sent = lambda: None  # type: ignore[method-assign]
        return super().open(request, transfer)


@found_by("test_refused_connection_raises_not_sent_error")
class ProvesNothing(RequestsBackend):
    def open(self, request: HttpRequest, transfer: Transfer) -> Reply:
        transfer.mark_unsent = lambda: None  # type: ignore[method-assign]
        return super().open(request, transfer)


@found_by("test_follows_no_redirect")
class FollowsRedirects(RequestsBackend):
    def open(self, request: HttpRequest, transfer: Transfer) -> Reply:
        reply = super().open(request, transfer)
        if reply.head.status in (307, 308):
            return super().open(replace(request, url=reply.head.headers["location"]), transfer)
        return reply


@found_by("test_sends_urls_byte_for_byte")
class DecodesUrls(RequestsBackend):
    def open(self, request: HttpRequest, transfer: Transfer) -> Reply:
        return super().open(replace(request, url=request.url.replace("%3A", ":")), transfer)


@found_by("test_sends_urls_byte_for_byte")
class FoldsUrls(RequestsBackend):
    def open(self, request: HttpRequest, transfer: Transfer) -> Reply:
        return super().open(replace(request, url=request.url.replace("/c/..", "")), transfer)


@found_by("test_sends_urls_byte_for_byte")
class NormalizesUrls(AiohttpBackend):
    async def open(self, request: HttpRequest, transfer: Transfer) -> Any:
        return await super().open(replace(request, url=str(URL(request.url))), transfer)


@found_by("test_decodes_content")
class DecodesNothing(RequestsBackend):
    def open(self, request: HttpRequest, transfer: Transfer) -> Reply:
        reply: Reply = super().open(request, transfer)
        reply._raw.decode_content = False
        return reply


@found_by("test_refuses_private_peers")
class ConnectsAnywhere(RequestsBackend):
    def open(self, request: HttpRequest, transfer: Transfer) -> Reply:
        return super().open(replace(request, public_peer_only=False), transfer)


@found_by("test_declares_known_capabilities")
class DeclaresUnknownCapability(RequestsBackend):
    capabilities = frozenset({"proxi"})


# Certificates and environment


@found_by("test_trusts_ca")
class IgnoresCa(RequestsBackend):
    def __init__(self, options: BackendOptions) -> None:
        super().__init__(replace(options, ca=None))


@found_by("test_trusts_ca_alone")
class IgnoresContext(RequestsBackend):
    def __init__(self, options: BackendOptions) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        super().__init__(replace(options, ca=context if options.ca else None))


@found_by("test_refuses_unknown_authority")
class VerifiesNothing(RequestsBackend):
    def __init__(self, options: BackendOptions) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        super().__init__(replace(options, ca=context))


@found_by("test_refuses_certificate_of_another_host")
class AcceptsAnyHost(RequestsBackend):
    def __init__(self, options: BackendOptions) -> None:
        context = ssl.create_default_context(cafile=options.ca)
        context.check_hostname = False
        super().__init__(replace(options, ca=context))


@found_by("test_limits_tls_handshake")
class WaitsForHandshake(RequestsBackend):
    def open(self, request: HttpRequest, transfer: Transfer) -> Reply:
        transfer.connect_timeout_s = lambda: TOO_LONG_S  # type: ignore[method-assign]
        return super().open(request, transfer)


@found_by("test_ignores_certificates_of_environment")
class TrustsVariable(RequestsBackend):
    def __init__(self, options: BackendOptions) -> None:
        super().__init__(replace(options, ca=options.ca or ssl.create_default_context()))


@found_by("test_ignores_certificates_of_environment")
class WritesTlsSecrets(RequestsBackend):
    def __init__(self, options: BackendOptions) -> None:
        if options.ca is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.load_verify_locations(options.ca)
            context.keylog_filename = os.environ.get("SSLKEYLOGFILE", os.devnull)
            options = replace(options, ca=context)
        super().__init__(options)


@found_by("test_ignores_proxy_of_environment")
class UsesProxyOfVariable(RequestsBackend):
    def __init__(self, options: BackendOptions) -> None:
        super().__init__(replace(options, proxy=options.proxy or os.environ.get("HTTP_PROXY")))


@found_by("test_ignores_proxy_of_environment")
class TrustsEnvironment(AiohttpBackend):
    async def open(self, request: HttpRequest, transfer: Transfer) -> Any:
        self._get_session(request.public_peer_only)._trust_env = True
        return await super().open(request, transfer)


@found_by("test_ignores_netrc")
class ReadsNetrc(RequestsBackend):
    def open(self, request: HttpRequest, transfer: Transfer) -> Reply:
        login = netrc.netrc().authenticators(urlsplit(request.url).hostname or "")
        if login and "authorization" not in request.headers:
            request = with_header(request, "authorization", f"Basic {login[0]}")
        return super().open(request, transfer)


@found_by("test_stores_no_cookies")
class StoresCookies(RequestsBackend):
    cookie = ""

    def open(self, request: HttpRequest, transfer: Transfer) -> Reply:
        if self.cookie:
            request = with_header(request, "cookie", self.cookie)
        reply = super().open(request, transfer)
        self.cookie = reply.head.headers.get("set-cookie", "").partition(";")[0]
        return reply


# Proxies


@found_by("test_uses_proxy")
class DropsProxy(RequestsBackend):
    def __init__(self, options: BackendOptions) -> None:
        super().__init__(replace(options, proxy=None))


@found_by("test_never_bypasses_proxy")
class ObeysNoProxy(RequestsBackend):
    def open(self, request: HttpRequest, transfer: Transfer) -> Reply:
        if proxy_bypass(urlsplit(request.url).hostname or ""):
            self._options = replace(self._options, proxy=None)
        return super().open(request, transfer)


@found_by("test_never_bypasses_proxy")
class ConnectsWithoutDeadProxy(RequestsBackend):
    def open(self, request: HttpRequest, transfer: Transfer) -> Reply:
        try:
            return super().open(request, transfer)
        except requests.exceptions.ProxyError:
            return RequestsBackend(replace(self._options, proxy=None)).open(request, transfer)


@found_by("test_sends_proxy_password_to_proxy_alone")
class SendsProxyPasswordToServer(RequestsBackend):
    def open(self, request: HttpRequest, transfer: Transfer) -> Reply:
        password = urlsplit(self._options.proxy or "").password
        return super().open(with_header(request, "proxy-authorization", str(password)), transfer)


@found_by("test_sends_proxy_password_to_proxy_alone")
class QuotesProxyPassword(RequestsBackend):
    def __init__(self, options: BackendOptions) -> None:
        super().__init__(replace(options, proxy=(options.proxy or "").replace("%", "%25") or None))


@found_by("test_tunnels_through_proxy")
class SendsKeyToProxy(RequestsBackend):
    def open(self, request: HttpRequest, transfer: Transfer) -> Reply:
        adapter = self._get_adapter()
        adapter.proxy_headers = lambda proxy: dict(request.headers)  # type: ignore[method-assign]
        return super().open(request, transfer)


@found_by("test_verifies_server_behind_proxy")
class VerifiesNothingBehindProxy(VerifiesNothing):
    pass


@found_by("test_verifies_https_proxy")
class TrustsVariableForProxy(RequestsBackend):
    def open(self, request: HttpRequest, transfer: Transfer) -> Reply:
        if self._options.proxy:
            manager = self._get_adapter().proxy_manager_for(self._options.proxy)
            # urllib3 then makes a context of its own.
            manager.proxy_config = manager.proxy_config._replace(ssl_context=None)  # type: ignore[union-attr]
            manager.connection_pool_kw["_proxy_config"] = manager.proxy_config
        return super().open(request, transfer)


# Connections


@found_by("test_connection_reuse")
class KeepsConnections(RequestsBackend):
    def __init__(self, options: BackendOptions) -> None:
        super().__init__(replace(options, reuse_connections=True))


@found_by("test_connection_reuse")
class OpensConnectionPerCall(RequestsBackend):
    def __init__(self, options: BackendOptions) -> None:
        super().__init__(replace(options, reuse_connections=False))


@found_by("test_sends_once_on_reused_connection")
class SendsAgainOnReusedConnection(RequestsBackend):
    has_sent = False

    def open(self, request: HttpRequest, transfer: Transfer) -> Reply:
        try:
            reply = super().open(request, transfer)
        except requests.ConnectionError:
            if not self.has_sent:
                raise
            return super().open(request, transfer)
        self.has_sent = True
        return reply


@found_by("test_close_disconnects")
class KeepsIdleConnections(RequestsBackend):
    def close(self) -> None:
        pass


@found_by("test_total_deadline")
class IgnoresDeadline(RequestsBackend):
    def open(self, request: HttpRequest, transfer: Transfer) -> Reply:
        transfer.abort = lambda: None  # type: ignore[method-assign]
        transfer.read_timeout_s = TOO_LONG_S
        return super().open(request, transfer)


@found_by("test_read_timeout")
class IgnoresReadTimeout(RequestsBackend):
    def open(self, request: HttpRequest, transfer: Transfer) -> Reply:
        transfer.read_timeout_s = TOO_LONG_S
        return super().open(request, transfer)


@found_by("test_hangs_up")
class StaysConnected(RequestsBackend):
    def open(self, request: HttpRequest, transfer: Transfer) -> Reply:
        transfer.watch_socket = lambda sock: None  # type: ignore[method-assign]
        return super().open(request, transfer)


@found_by("test_streams_uploads")
class TakesWholeUpload(RequestsBackend):
    def open(self, request: HttpRequest, transfer: Transfer) -> Reply:
        body = BytesBody(b"".join(request.body.blocks()), request.body.content_type)
        return super().open(replace(request, body=body), transfer)


@found_by("test_yields_each_chunk_at_once")
class WaitsForWholeBody(RequestsBackend):
    def open(self, request: HttpRequest, transfer: Transfer) -> Reply:
        class WholeReply(WrappedReply):
            def read(self) -> bytes:
                return b"".join(iter(super().read, b""))

        return WholeReply(super().open(request, transfer))


@found_by("test_concurrent_calls")
class MixesCalls(RequestsBackend):
    def open(self, request: HttpRequest, transfer: Transfer) -> Reply:
        self.request = getattr(self, "request", request)
        return super().open(self.request, transfer)


@found_by("test_rejects_unknown_options")
class TakesAnyOption(RequestsBackend):
    def __init__(self, options: BackendOptions) -> None:
        super().__init__(replace(options, client_options={}))
