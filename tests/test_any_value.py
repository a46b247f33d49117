"""Any value in any parameter of both services: it works, or the error is one of imgkit's."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

import pytest

import imgkit
from imgkit import AsyncImageService, ImageService, masks
from imgkit.errors import ImgkitError
from tests.support.odd_values import MAKERS, ClassRaises
from tests.support.pictures import picture

LIMIT = 2_500
"""Longest message in characters."""

CALLS: dict[str, dict[str, Any]] = {
    "create_image_edit": {"image": picture(), "prompt": "a fox"},
    "create_image": {"prompt": "a fox"},
    "create_image_variation": {"image": picture()},
    "stream_image_edit": {"image": picture(), "prompt": "a fox"},
    "stream_image": {"prompt": "a fox"},
}
SETTINGS: dict[str, Any] = {"base_url": "http://127.0.0.1:9/v1", "api_key": "sk-12345678"}


def list_parameters() -> list[tuple[str, str]]:
    """Return each parameter of the operations once, with an operation that has it."""
    found: dict[str, str] = {}
    for operation in CALLS:
        for name in inspect.signature(getattr(ImageService, operation)).parameters:
            found.setdefault(name, operation)
    return [(operation, name) for name, operation in found.items() if name != "self"]


def assert_short(error: ImgkitError) -> None:
    """Assert that the text of an error can be printed anywhere, is short, and has no key."""
    text = str(error).encode("utf-8").decode()
    assert len(text) < LIMIT
    assert "sk-1234567890" not in text
    assert repr(error)


@pytest.mark.parametrize(("operation", "name"), list_parameters())
def test_operations(operation: str, name: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes or refuses any value of a parameter of an operation; no other exception escapes."""
    monkeypatch.chdir(tmp_path)
    with ImageService("requests", **SETTINGS) as service:
        for kind, make in MAKERS.items():
            try:
                service.dry_run(operation, **{**CALLS[operation], name: make()})
            except ImgkitError as error:
                assert_short(error)
            except Exception as error:
                pytest.fail(f"{kind}: {error!r}")


def test_the_asynchronous_service() -> None:
    """Refuses odd values of the asynchronous service when the call is awaited."""

    async def call_all() -> None:
        async with AsyncImageService() as service:
            for name in ("prompt", "size", "n", "extra_body", "timeout_s", "cache"):
                for kind in ("class raises", "broken mapping", "endless list", "raises in all", "huge int"):
                    call: Any = service.create_image(**{"prompt": "a fox", name: MAKERS[kind]()})
                    with pytest.raises(ImgkitError):
                        await call

    asyncio.run(call_all())


ARGUMENTS = [*inspect.signature(ImageService.__init__).parameters][1:-1]
HARD = [
    *("0", "nan", "''", "'\\ud800'", "huge int", "text enum", "broken str", "broken int", "numpy array"),
    *("released memory", "endless list", "nested dict", "dict of odd text", "dict of surrogates"),
    *("broken mapping", "broken dict", "raises in __repr__", "raises in __bool__", "raises in __fspath__"),
    *("raises in all", "path of None", "class raises", "attributes raise", "any attribute", "enum class"),
    *("metaclass raises", "closed file", "image of no bytes", "broken reference", "long text"),
]


@pytest.mark.parametrize("name", ARGUMENTS)
def test_constructors(name: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes or refuses any value of an argument of a service; no other exception escapes."""
    monkeypatch.chdir(tmp_path)
    for number, kind in enumerate(HARD):
        service_class: Any = (ImageService, AsyncImageService)[number % 2]
        settings = {"backend": "requests", **SETTINGS} if number % 4 < 3 else {"backend": "offline"}
        try:
            service = service_class(**{**settings, name: MAKERS[kind]()})
            repr(service)
            service.dry_run("create_image", "a fox")
        except ImgkitError as error:
            assert_short(error)
        except Exception as error:
            pytest.fail(f"{kind}: {error!r}")
        else:
            if service_class is ImageService:
                service.close()
            else:
                asyncio.run(service.close())


def test_other_doors(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes or refuses any value in a mask function, an estimate, a dry run, a download and a save."""
    monkeypatch.chdir(tmp_path)
    image = imgkit.Image.from_bytes(picture())
    with ImageService() as service:
        doors: list[Any] = [
            lambda value: masks.check(value, picture()),
            lambda value: masks.from_white(picture(), threshold=value),
            lambda value: masks.from_box(value, (0, 0, 1, 1)),
            lambda value: masks.from_box((8, 8), value),
            lambda value: masks.from_polygon((8, 8), value),
            lambda value: masks.feather(picture(), value),
            service.estimate,
            lambda value: service.estimate("a fox", partial_images=value),
            service.dry_run,
            service.download,
            lambda value: service.download(image, timeout_s=value),
            lambda value: image.save(value),
        ]
        for door in doors:
            for kind, make in MAKERS.items():
                if door is doors[-1] and kind in ("''", "'{'", "'~nobody/x'"):
                    continue
                try:
                    door(make())
                except ImgkitError as error:
                    assert_short(error)
                except Exception as error:
                    pytest.fail(f"{inspect.getsource(door)} {kind}: {error!r}")


PLUGINS = (
    "Budget",
    "CachePlugin",
    "LoggingPlugin",
    "RecorderPlugin",
    "RetryPlugin",
    "SpoolPlugin",
    "TelemetryPlugin",
)


NEEDED: dict[str, dict[str, Any]] = {"Budget": {"usd": 1}, "RecorderPlugin": {"cassette": "a.yaml"}}


@pytest.mark.parametrize("plugin", PLUGINS)
def test_plugins(plugin: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes or refuses any value of an argument of a plugin; no other exception escapes."""
    monkeypatch.chdir(tmp_path)
    plugin_class = getattr(imgkit, plugin)
    needed = NEEDED.get(plugin, {})
    for name in inspect.signature(plugin_class).parameters:
        for kind, make in MAKERS.items():
            try:
                plugin_class(**{**needed, name: make()})
            except ImgkitError as error:
                assert_short(error)
            except Exception as error:
                pytest.fail(f"{name}, {kind}: {error!r}")


def test_numbers_of_a_mask_check() -> None:
    """Names `max_bytes` of a mask check that is no number of bytes."""
    values: tuple[Any, ...] = ("4MB", 1.5, 0, -1, None, True, MAKERS["raises in all"]())
    for value in values:
        with pytest.raises(imgkit.InvalidRequestError, match="max_bytes: Must be a whole number of bytes"):
            masks.check(picture(), picture(), max_bytes=value)
    assert imgkit.Budget(10**6).limit == 10**6
    with pytest.raises(imgkit.ConfigurationError, match="usd must be above 0 and at most"):
        imgkit.Budget(10**5000)


def test_a_class_that_raises_is_odd() -> None:
    """The helper really raises where `isinstance` reads an object."""
    with pytest.raises(RuntimeError):
        isinstance(ClassRaises(), str)
