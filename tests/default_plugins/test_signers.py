"""Signers: credentials and the plugin that sign requests with keys that stay at home."""

from __future__ import annotations

import asyncio
import hmac
import threading
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from imgkit import AsyncImageService, ConfigurationError, ImageService, PluginError, SignatureAuth
from imgkit.default_plugins.auth import ProviderAuth
from imgkit.plugins.tokens import TokenNeeded
from imgkit.providers import BytesBody, Credential, Field, HttpRequest, MultipartBody, Secret
from imgkit.providers.openai import OpenAIProvider
from imgkit.testing import WireServer, answer, reply
from tests.support.auth import call

SECRET = "an-acme-secret-1234567890"
NAMES = {"ACME_ID": "acme-id-0001", "ACME_SECRET": SECRET}


def sign_acme(request: HttpRequest, keys: Mapping[str, Secret]) -> dict[str, str]:
    """Return a header with the digest of the body, keyed with the secret."""
    text = f"{request.method} {request.path_and_query} {request.body.sha256()}"
    mark = hmac.digest(keys["ACME_SECRET"].reveal().encode(), text.encode(), "sha256").hex()
    return {"authorization": f"Acme {keys['ACME_ID'].reveal()}:{mark}"}


CREDENTIAL = Credential(
    variable="ACME_ID", scheme="Acme", sign=sign_acme, needs=("ACME_SECRET",), may_need=("ACME_SESSION",)
)


class SigningProvider(OpenAIProvider):
    """OpenAI's dialect with requests that acme signs."""

    env = {"api_key": "ACME_ID"}
    credentials = (CREDENTIAL,)


@pytest.fixture
def _keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in NAMES.items():
        monkeypatch.setenv(name, text)


def expect_header(server: WireServer) -> str:
    """Return the header that the request of a server should have."""
    line = server.lines[-1]
    request = HttpRequest("POST", server.base_url + "/images/generations", body=BytesBody(line.body))
    return sign_acme(request, {name: Secret(text) for name, text in NAMES.items()})["authorization"]


@pytest.mark.usefixtures("_keys")
def test_a_provider_with_a_signer() -> None:
    """A provider's own signer signs the bytes that are sent, with keys of all its variables."""
    with (
        WireServer(reply(200, answer())) as server,
        ImageService("requests", provider=SigningProvider(), base_url=server.base_url) as images,
    ):
        images.create_image("a fox", model="m")
        assert server.lines[-1].headers["authorization"] == expect_header(server)
    assert CREDENTIAL.variables == ("ACME_ID", "ACME_SECRET", "ACME_SESSION")


@pytest.mark.usefixtures("_keys")
@pytest.mark.parametrize("length", [10, 2 * 1024 * 1024])
def test_no_hook_reads_a_body(length: int) -> None:
    """The digest of a form and of a large body is computed outside the hook."""
    auth = ProviderAuth(None, [CREDENTIAL], "ACME_ID")
    url = "https://api.example.com/v1/images/edits"
    form = HttpRequest("POST", url, body=MultipartBody((Field("prompt", "x" * length),)))
    text = HttpRequest("POST", url, body=BytesBody(b"x" * length, "text/plain"))
    assert isinstance(auth.imgkit_authenticate(form, call()), TokenNeeded)
    signed = auth.imgkit_authenticate(text, call())
    assert isinstance(signed, HttpRequest if length < 1024 else TokenNeeded)
    if isinstance(signed, TokenNeeded):
        signed.fetch()
        signed = signed.sign(text)
    assert signed is not None
    assert signed.headers["authorization"].startswith("Acme acme-id-0001:")


def test_keys_from_a_function() -> None:
    """A function returns keys for each attempt, in a thread and not in the event loop."""
    threads: list[int] = []

    def read() -> dict[str, str | None]:
        threads.append(threading.get_ident())
        return {**NAMES, "ACME_SESSION": None}

    async def main(server: WireServer) -> None:
        plugins = [SignatureAuth(sign_acme, read)]
        async with AsyncImageService("aiohttp", base_url=server.base_url, plugins=plugins) as images:
            await images.create_image("a fox", model="m")
            await images.create_image("an owl", model="m")

    with WireServer(reply(200, answer()), reply(200, answer())) as server:
        asyncio.run(main(server))
        assert server.lines[-1].headers["authorization"] == expect_header(server)
    assert len(threads) == 2
    assert threading.get_ident() not in threads


def fail_to_sign(request: HttpRequest, keys: Mapping[str, Secret]) -> dict[str, str]:
    """Raise like a signer with a bug."""
    raise RuntimeError("no such curve")


def change_the_keys() -> Any:
    """Return keys that no header can carry."""
    return {**NAMES, "ACME_SECRET": SECRET + "\n"}


@pytest.mark.parametrize(
    ("sign", "keys", "error", "words"),
    [
        (fail_to_sign, NAMES, PluginError, "no such curve"),
        (sign_acme, change_the_keys, ConfigurationError, "Invalid key from ACME_SECRET"),
        (sign_acme, lambda: None, ConfigurationError, "keys is a NoneType"),
        (sign_acme, lambda: {"ACME_ID": 5}, ConfigurationError, "Invalid key from ACME_ID: a int"),
    ],
)
def test_keys_and_signers_that_fail(
    sign: Callable[..., Any], keys: Any, error: type[Exception], words: str
) -> None:
    """A bug of a signer and unusable keys send nothing, and no message shows a key."""
    with WireServer(reply(200, answer())) as server:
        plugins = [SignatureAuth(sign, keys)]
        with ImageService("requests", base_url=server.base_url, plugins=plugins) as images:
            with pytest.raises(error, match=words) as caught:
                images.create_image("a fox", model="m")
        assert server.posts == 0
    assert SECRET not in repr((str(caught.value), vars(caught.value)))


@pytest.mark.parametrize(
    ("sign", "keys", "words"),
    [
        ("sign", NAMES, "sign is a str"),
        (sign_acme, SECRET, "keys is a str"),
        (sign_acme, {"ACME_SECRET": ""}, "Empty key from ACME_SECRET"),
    ],
)
def test_arguments_that_are_refused(sign: Any, keys: Any, words: str) -> None:
    """Wrong arguments are refused without showing the key."""
    with pytest.raises(ConfigurationError, match=words) as caught:
        SignatureAuth(sign, keys)
    assert SECRET not in str(caught.value)


def test_signatures_stay_at_home() -> None:
    """No signature leaves over plain http or for another origin, and offline none is made."""
    auth = SignatureAuth(sign_acme, NAMES)
    request = HttpRequest("POST", "https://evil.example/v1", body=BytesBody(b"{}"))
    with pytest.raises(ConfigurationError, match="gets no credentials"):
        auth.imgkit_authenticate(request, call())
    assert auth.imgkit_authenticate(request, call("offline")) is None
    assert SECRET not in repr(vars(auth))
