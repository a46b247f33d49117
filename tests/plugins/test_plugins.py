"""Plugins: registered through public hooks, checked when loaded, named when they fail."""

from __future__ import annotations

import dataclasses
import types
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import imgkit
from imgkit.errors import PluginWarning
from imgkit.plugins.hookspecs import BackendSpec, Hooks, PluginSpec, hookimpl
from imgkit.plugins.registry import HookTable, load_hook_table
from tests.support.pictures import answer
from tests.support.wire_server import WireServer, reply


def test_built_ins_use_the_public_hooks() -> None:
    """Built-in backends and providers use the public hooks."""
    table = load_hook_table()
    assert list(table.backend_specs()) == ["aiohttp", "offline", "requests"]
    names = list(table.provider_specs())
    assert names == sorted(names)
    assert {"openai", "azure", "bfl", "comfyui", "gemini"} <= {*names}


def test_every_hook_has_a_table_field() -> None:
    """The hook table has one field for each hook."""
    hooks = [name for name in vars(Hooks) if name.startswith("imgkit_")]
    assert len([field for field in dataclasses.fields(HookTable) if field.name != "warned"]) == len(hooks)


class Shout:
    """A plugin that turns prompts into upper case."""

    @hookimpl
    def imgkit_prepare(self, request: Any) -> Any:
        return dataclasses.replace(request, prompt=request.prompt.upper())


class Exclaim:
    """A plugin that appends the operation to prompts and sets a header."""

    @hookimpl
    def imgkit_prepare(self, request: Any, call: Any) -> Any:
        return dataclasses.replace(request, prompt=request.prompt + f"! ({call.operation})")

    @hookimpl
    def imgkit_before_send(self, request: Any) -> Any:
        return dataclasses.replace(request, headers={**request.headers, "x-trace": "1"})


def test_plugins_change_requests_in_order(flavor: Any, http_backend: str) -> None:
    """Plugins change the request and its headers in the given order."""
    with WireServer(reply(200, answer())) as server:
        for plugins in ([Shout(), Exclaim], [Exclaim(), Shout]):
            options: dict[str, Any] = {
                "backend": http_backend,
                "base_url": server.base_url,
                "plugins": plugins,
            }
            flavor.run(lambda service: service.create_image("a fox"), **options)
    assert [line.body for line in server.lines] == [
        b'{"prompt":"A FOX! (create_image)"}',
        b'{"prompt":"A FOX! (CREATE_IMAGE)"}',
    ]
    assert all(line.headers["x-trace"] == "1" for line in server.lines)


def test_plugin_authentication_replaces_the_key(http_backend: str) -> None:
    """A plugin that signs the request replaces the bearer key."""

    class ApiKey:
        @hookimpl
        def imgkit_authenticate(self, request: Any, call: Any) -> Any:
            assert "authorization" not in request.headers
            return dataclasses.replace(request, headers={**request.headers, "api-key": "k-CANARY"})

    with WireServer(reply(200, answer())) as server:
        options: dict[str, Any] = {
            "base_url": server.base_url,
            "api_key": "sk-unused-0000000000",
            "plugins": [ApiKey()],
        }
        with imgkit.ImageService(http_backend, **options) as service:
            service.create_image("a fox")
    assert server.lines[0].headers["api-key"] == "k-CANARY"
    assert "authorization" not in server.lines[0].headers


def test_observers_see_no_credentials() -> None:
    """No event carries the key."""
    seen: list[Any] = []

    class Watch:
        @hookimpl
        def imgkit_on_event(self, event: Any, call: Any) -> None:
            seen.append((event, call))

    with WireServer(reply(200, answer())) as server:
        options: dict[str, Any] = {
            "base_url": server.base_url,
            "api_key": "sk-CANARY-000000000",
            "plugins": [Watch()],
        }
        with imgkit.ImageService("requests", **options) as service:
            service.create_image("a fox")
    assert len(seen) >= 5
    assert "CANARY" not in repr(seen)
    assert len({call.id for _, call in seen}) == 1


class Empty:
    """A class without hooks."""

    def imgkit(self) -> None:
        """Do nothing."""


@pytest.mark.parametrize("plugin", [Empty, Empty(), object(), types.ModuleType("empty")])
def test_a_plugin_without_hooks_is_refused(plugin: object) -> None:
    """An object without any hook is refused, when a service is built and when it is added."""
    with pytest.raises(imgkit.PluginError, match="it has no hook, so it would do nothing"):
        imgkit.ImageService(plugins=[plugin])
    with imgkit.ImageService() as service, pytest.raises(imgkit.PluginError, match="it has no hook"):
        service.plugins.add(plugin)


def test_a_failing_observer_costs_one_warning() -> None:
    """An observer that raises costs one warning; the paid image arrives."""

    class Bad:
        @hookimpl
        def imgkit_on_event(self, event: Any) -> None:
            if type(event).__name__ == "Succeeded":
                raise ZeroDivisionError("oops")

    with imgkit.ImageService(plugins=[Bad()]) as service, pytest.warns(PluginWarning, match=r"Bad.*oops"):
        assert len(service.create_image("a fox", size="256x256")) == 1


BAD_ANSWERS: dict[str, Any] = {
    "imgkit_prepare": "a string",
    "imgkit_before_send": 7,
    "imgkit_authenticate": {"authorization": "x"},
}


@pytest.mark.parametrize("hook", BAD_ANSWERS)
def test_a_wrong_hook_result_names_the_plugin(hook: str) -> None:
    """A hook result of the wrong type ends the call before sending, and the error names plugin and hook."""
    module = types.ModuleType("acme_plugin")
    setattr(module, hook, hookimpl(lambda: BAD_ANSWERS[hook]))
    with WireServer(reply(200, answer())) as server:
        with (
            imgkit.ImageService("requests", base_url=server.base_url, plugins=[module]) as service,
            pytest.raises(imgkit.PluginError, match=f"acme_plugin.*{hook}") as caught,
        ):
            service.create_image("a fox")
        assert server.accepted == 0
    assert (caught.value.plugin, caught.value.hook) == ("acme_plugin", hook)


def test_before_send_may_change_headers_only() -> None:
    """Refuses a before_send hook that changes the URL or method, or sets an invalid header."""
    for change in ({"url": "https://evil.example"}, {"headers": {"x": "a\r\nb: c"}}, {"method": "GET"}):

        class Evil:
            @hookimpl
            def imgkit_before_send(self, request: Any, change: Any = change) -> Any:
                return dataclasses.replace(request, **change)

        with WireServer(reply(200, answer())) as server:
            with (
                imgkit.ImageService("requests", base_url=server.base_url, plugins=[Evil()]) as service,
                pytest.raises(imgkit.PluginError),
            ):
                service.create_image("a fox")
            assert server.accepted == 0


def test_a_raising_hook_names_its_plugin() -> None:
    """A foreign exception becomes a PluginError; an imgkit error passes with a note."""

    class Raises:
        error: Exception = KeyError("x")

        @hookimpl
        def imgkit_prepare(self) -> None:
            raise self.error

    with imgkit.ImageService(plugins=[Raises()]) as service:
        with pytest.raises(imgkit.PluginError, match=r"Raises.*KeyError"):
            service.create_image("a fox")
        Raises.error = imgkit.InvalidRequestError({"prompt": "not today"})
        with pytest.raises(imgkit.InvalidRequestError, match="not today") as caught:
            service.create_image("a fox")
    assert "Raises" in caught.value.__notes__[0]


async def _coroutine(request: Any) -> None: ...


UNFIT: dict[str, tuple[str, Any, str]] = {
    "misspelt": ("imgkit_prepair", hookimpl(lambda request: None), "unknown hook 'imgkit_prepair'"),
    "coroutine": ("imgkit_prepare", hookimpl(_coroutine), "coroutine"),
    "unknown argument": ("imgkit_prepare", hookimpl(lambda request, flavor: None), "no parameter 'flavor'"),
    "misspelt argument": (
        "imgkit_on_event",
        hookimpl(lambda evnt: None),
        "did you mean 'event'.*event, call",
    ),
    "not marked": ("imgkit_prepare", lambda request: None, "hookimpl"),
}


@pytest.mark.parametrize("case", UNFIT)
def test_unfit_plugins_are_refused_when_loaded(case: str) -> None:
    """Refuses misspelt, asynchronous, unmarked or unfitting hooks when the service is built."""
    name, function, reason = UNFIT[case]
    module = types.ModuleType("acme_plugin")
    setattr(module, name, function)
    with pytest.raises(imgkit.PluginError, match=reason) as caught:
        imgkit.ImageService(plugins=[module])
    assert caught.value.plugin == "acme_plugin"


class MemoryBackend:
    """A minimal backend that replies to every request with one image."""

    wire_errors = (OSError,)
    unsent_errors = ()

    def __init__(self, options: Any) -> None:
        self.options = options

    def open(self, request: Any, transfer: Any) -> Any:
        return MemoryReply()

    def close(self) -> None: ...


class MemoryReply:
    def __init__(self) -> None:
        import json

        from imgkit.wire.messages import Head

        self.head = Head(200, {})
        self._chunks = [json.dumps(answer()).encode(), b""]

    def read(self) -> bytes:
        return self._chunks.pop(0)

    def close(self) -> None: ...


def memory_plugin(name: str = "memory") -> types.ModuleType:
    module = types.ModuleType(f"acme_{name}")
    spec = BackendSpec(name=name, target=f"{__name__}:MemoryBackend", flavor="sync", reaches_network=False)
    module.imgkit_backends = hookimpl(lambda: [spec])  # type: ignore[attr-defined]  # a made-up module
    return module


def test_a_plugin_backend(flavor: Any) -> None:
    """A plugin's backend works by name under both services and gets its options."""
    made = flavor.run(
        lambda service: service.create_image("a fox"),
        "memory",
        plugins=[memory_plugin()],
        client_options={"colour": "blue"},
    )
    assert made.meta.backend == "memory"
    assert len(made) == 1


def test_two_backends_of_one_name() -> None:
    """Two backends of one name raise an error that names both plugins."""
    with pytest.raises(
        imgkit.ConfigurationError, match=r"acme_requests.*imgkit\.default_plugins\.builtin|builtin.*acme"
    ):
        imgkit.ImageService(plugins=[memory_plugin("requests")])


def test_services_have_their_own_plugins() -> None:
    """Two services in one process do not share plugins."""
    with imgkit.ImageService(plugins=[Shout()]) as loud, imgkit.ImageService() as quiet:
        assert loud.create_image("a fox", size="256x256")[0].about["prompt"] == "A FOX"
        assert quiet.create_image("a fox", size="256x256")[0].about["prompt"] == "a fox"


def test_a_changed_request_is_validated_again() -> None:
    """Validates a request that a plugin changed like a user's request."""

    class Greedy:
        @hookimpl
        def imgkit_prepare(self, request: Any) -> Any:
            return dataclasses.replace(request, n="many")

    with imgkit.ImageService(plugins=[Greedy()]) as service:
        with pytest.raises(imgkit.InvalidRequestError, match="n: Must be a whole number"):
            service.create_image("a fox")


def test_plugins_are_added_and_removed(flavor: Any) -> None:
    """Lists plugins by name in their order, and adds and removes them by object or name."""
    shout, marked = Shout(), memory_plugin()

    def work(service: Any) -> Any:
        own = list(service.plugins)
        assert own == ["imgkit.default_plugins.builtin", "imgkit.default_plugins.auth.ProviderAuth"]
        service.plugins.add(shout)
        service.plugins.add(marked)
        service.plugins.add("logging")
        name = f"{__name__}.Shout"
        assert list(service.plugins) == [name, "acme_memory", "logging", *own]
        assert len(service.plugins) == len(own) + 3
        assert name in repr(service.plugins)
        assert shout in service.plugins
        service.plugins.remove("logging")
        service.plugins.remove(marked)
        return service.create_image("a fox", size="64x64")

    assert flavor.run(work)[0].about["prompt"] == "A FOX"


def test_bad_additions_and_removals_change_nothing() -> None:
    """Refuses unknown, duplicate, unfit or required plugins by name, and changes nothing."""
    shout = Shout()
    with imgkit.ImageService(plugins=[shout, "logging"]) as service:
        before = list(service.plugins)
        for plugin in (shout, "logging"):
            with pytest.raises(imgkit.PluginError, match="is registered already"):
                service.plugins.add(plugin)
        with pytest.raises(
            imgkit.UnknownPluginError, match="Unknown plugin 'loging' .*did you mean 'logging'"
        ):
            service.plugins.add("loging")
        with pytest.raises(imgkit.ConfigurationError, match="both offer 'requests'"):
            service.plugins.add(memory_plugin("requests"))
        with pytest.raises(
            imgkit.UnknownPluginError, match=r"has no plugin 'tests\.plugins\.test_plugins\.Exclaim'.*It has"
        ):
            service.plugins.remove(Exclaim())
        with pytest.raises(imgkit.ConfigurationError, match="cannot be removed"):
            service.plugins.remove("imgkit.default_plugins.builtin")
        assert list(service.plugins) == before
        service.plugins.add(Shout())
        assert f"{__name__}.Shout#2" in service.plugins


def test_a_running_call_keeps_its_plugins() -> None:
    """A plugin removed during a call still observes its end; the next call runs without it."""
    seen: list[str] = []

    class Leaves:
        @hookimpl
        def imgkit_on_event(self, event: Any) -> None:
            if not seen:
                service.plugins.remove(self)
            seen.append(type(event).__name__)

    with imgkit.ImageService(plugins=[Leaves]) as service:
        service.create_image("a fox", size="64x64")
        assert (seen[0], seen[-1]) == ("Started", "Succeeded")
        count = len(seen)
        service.create_image("a fox", size="64x64")
        assert len(seen) == count


def test_threads_add_and_remove_plugins() -> None:
    """Threads that add and remove plugins at once lose no addition."""
    with imgkit.ImageService() as service, ThreadPoolExecutor(8) as pool:
        before = len(service.plugins)

        def swap(kept: int) -> None:
            passing = Exclaim()
            service.plugins.add(passing)
            service.plugins.add(Shout())
            service.plugins.remove(passing)

        list(pool.map(swap, range(40)))
        assert len(service.plugins) == before + 40


def test_a_plugin_may_be_given_once() -> None:
    """Refuses the same object or name twice; a named retry replaces the default retry."""
    shout = Shout()
    for twice in ([shout, shout], ["logging", "logging"]):
        with pytest.raises(imgkit.PluginError, match="is registered already"):
            imgkit.ImageService(plugins=twice)
    with imgkit.ImageService(plugins=["retry"]) as service:
        assert [name for name in service.plugins if "retry" in name.lower()] == ["retry"]


def test_a_plugin_class_with_arguments_is_refused() -> None:
    """Refuses a plugin class that needs arguments, with its name and the reason."""

    class Needs:
        def __init__(self, flavor: str) -> None: ...

    with pytest.raises(
        imgkit.PluginError, match=r"Needs' cannot be created without arguments \(TypeError.*flavor"
    ):
        imgkit.ImageService(plugins=[Needs])


NEVER_RUN: dict[str, tuple[Any, str]] = {
    "wrapper": (hookimpl(wrapper=True)(lambda request: (yield)), "is a wrapper"),
    "generator": (hookimpl(lambda event: (yield)), "is a generator"),
}


@pytest.mark.parametrize("case", NEVER_RUN)
def test_hooks_that_would_never_run_are_refused(case: str) -> None:
    """Refuses wrappers and generators, which imgkit would not run, with the reason."""
    function, reason = NEVER_RUN[case]
    module = types.ModuleType("acme_plugin")
    module.imgkit_on_event = function  # type: ignore[attr-defined]  # a made-up module
    with pytest.raises(imgkit.PluginError, match=reason):
        imgkit.ImageService(plugins=[module])


def test_a_plugin_cannot_take_a_built_in_name() -> None:
    """Refuses a plugin under a built-in name, and names both owners."""

    class Taker:
        @hookimpl
        def imgkit_plugins(self) -> list[PluginSpec]:
            return [PluginSpec(name="logging", target=f"{__name__}:Shout")]

    with pytest.raises(imgkit.ConfigurationError, match=r"Taker.*builtin.*both offer 'logging'"):
        imgkit.ImageService(plugins=[Taker])
