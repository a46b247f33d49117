"""Options that a backend would ignore: an error that names the option, the backend and a remedy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import imgkit
from imgkit.backends import CAPABILITIES, BackendOptions
from imgkit.backends.requests import RequestsBackend
from imgkit.cli.messages import format_error
from imgkit.plugins import BackendSpec, hookimpl

URL = "http://127.0.0.1:1/v1"


class Bare:
    """A backend without capabilities."""

    wire_errors = (OSError,)
    unsent_errors = ()

    def __init__(self, options: Any = None) -> None:
        self.options = options

    def open(self, request: Any, transfer: Any) -> Any:
        raise ConnectionError

    def close(self) -> None: ...


class Able(Bare):
    """A backend with all capabilities."""

    capabilities = frozenset(CAPABILITIES)


class Halfway(Bare):
    """A backend that knows http proxies only."""

    capabilities = frozenset({"proxy"})


class Misspelt(Bare):
    """A backend whose capabilities are a single text."""

    capabilities = "https proxy"


class Unfinished:
    """A backend that lacks members."""

    errors = ()

    def __init__(self, options: Any = None) -> None: ...

    def open(self, request: Any, transfer: Any) -> Any: ...


class Plugin:
    """The plugin of the backends above."""

    @hookimpl
    def imgkit_backends(self) -> Iterator[BackendSpec]:
        for backend in (Bare, Able, Halfway, Misspelt, Unfinished):
            yield BackendSpec(
                name=backend.__name__.lower(), target=f"{__name__}:{backend.__name__}", flavor="sync"
            )


def build(backend: Any, **options: Any) -> imgkit.ImageService:
    return imgkit.ImageService(backend, base_url=URL, plugins=[Plugin()], **options)


NEEDS: dict[str, tuple[dict[str, Any], str]] = {
    "proxy": ({"proxy": "http://127.0.0.1:1"}, "proxy"),
    "https proxy": ({"proxy": "https://127.0.0.1:1"}, "proxy"),
    "ca": ({"ca": "ca.pem"}, "ca"),
    "reuse": ({"reuse_connections": True}, "reuse_connections"),
    "connect timeout": ({"connect_timeout_s": 1}, "connect_timeout_s"),
}
"""Arguments and their field by the capability that they need."""


@pytest.mark.parametrize("capability", NEEDS)
def test_an_option_without_its_capability_is_refused(capability: str) -> None:
    """Says which option, which backend, why, and what to do."""
    options, field = NEEDS[capability]
    with pytest.raises(imgkit.ConfigurationError) as caught:
        build("bare", **options)
    assert str(caught.value) == (
        f"{field}: backend 'bare' would ignore it. It lacks the capability {capability!r}. "
        "Leave it out, or use another backend."
    )
    assert caught.value.field == field
    build("able", **options).close()


def test_the_command_names_its_option() -> None:
    """Users of the command read the name of the option."""
    with pytest.raises(imgkit.ConfigurationError) as caught:
        build("bare", reuse_connections=True)
    assert format_error(caught.value).startswith("--reuse-connections: backend 'bare' would ignore it.")


@pytest.mark.parametrize("backend", ["halfway", "misspelt"])
def test_a_proxy_over_tls_has_a_capability_of_its_own(backend: str) -> None:
    """A backend for http proxies would send the password of an https proxy unencrypted."""
    with pytest.raises(imgkit.ConfigurationError, match="lacks the capability 'https proxy'"):
        build(backend, proxy="https://ann:secret@127.0.0.1:1")
    build("halfway", proxy="http://127.0.0.1:1").close()


def test_a_proxy_of_the_environment_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy that the caller allows and the backend would bypass is an error."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    build("bare").close()
    with pytest.raises(imgkit.ConfigurationError, match="^use_env_proxy: backend 'bare' would ignore it"):
        build("bare", use_env_proxy=True)
    monkeypatch.delenv("http_proxy")
    build("bare", use_env_proxy=True).close()


def test_the_offline_backend_takes_all_options() -> None:
    """A backend that sends nothing bypasses no proxy and trusts no server."""
    options: dict[str, Any] = {}
    for needed, _ in NEEDS.values():
        options |= needed
    imgkit.ImageService("offline", **options).close()


@pytest.mark.parametrize(
    "option",
    [
        {"proxy": "http://127.0.0.1:1"},
        {"use_env_proxy": True},
        {"ca": "ca.pem"},
        {"reuse_connections": True},
        {"client_options": {"x": 1}},
    ],
    ids=lambda option: next(iter(option)),
)
def test_an_instance_takes_its_options_from_its_constructor(option: dict[str, Any]) -> None:
    """An option beside an instance would have no effect."""
    name = next(iter(option))
    with pytest.raises(imgkit.ConfigurationError, match=rf"^{name}: the backend is an instance") as caught:
        build(RequestsBackend(BackendOptions()), **option)
    assert str(caught.value).endswith("in its BackendOptions, or name the backend.")


def test_the_connect_timeout_beside_an_instance() -> None:
    """A transfer carries it, so it has an effect on an instance with the capability."""
    build(Able(), connect_timeout_s=1).close()
    with pytest.raises(imgkit.ConfigurationError, match="^connect_timeout_s: backend 'Bare' would ignore it"):
        build(Bare(), connect_timeout_s=1)


@pytest.mark.parametrize(
    "backend", ["unfinished", Unfinished(), object(), 7], ids=["named", "instance", "object", "number"]
)
def test_an_object_that_is_no_backend(backend: Any) -> None:
    """The error names the missing members, such as `wire_errors`."""
    with pytest.raises(imgkit.ConfigurationError, match=r"lacks .*wire_errors, unsent_errors\. Pass a name"):
        build(backend)
