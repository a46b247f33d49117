"""The contract of a plugin: an object or module with hooks."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import warnings
from pathlib import Path
from typing import Any, ClassVar

import pytest

import imgkit
from imgkit.errors import ImgkitError
from imgkit.testing import canary
from imgkit.testing.samples import answer, png
from imgkit.testing.wire_server import Script, WireServer, drop, raw, reply

ENDINGS: dict[str, Script] = {
    "success": reply(200, answer(png(1))),
    "wrong key": reply(
        401, {"error": {"message": f"the key {canary.KEY} is wrong", "code": "invalid_api_key"}}
    ),
    # A plugin that retries waits a millisecond, so the contract needs no long pauses.
    "rate limit": reply(
        429, {"error": {"message": "slow down", "code": "rate_limit_exceeded"}}, retry_after_ms="1"
    ),
    "failure": reply(500, {"error": {"message": f"Bearer {canary.KEY}", "code": "server_error"}}),
    "unreadable": reply(200, b"what"),
    "closed": drop,
    "garbage": raw(b"HELLO\r\n\r\n"),
}

STREAM = reply(
    200,
    b"data: "
    + json.dumps({"type": "image_generation.completed", **answer(png(1))["data"][0]}).encode()
    + b"\n\n",
    content_type="text/event-stream",
)
"""The reply to a stream: one complete image."""


class PluginContract:
    """The tests that every plugin must pass: it loads, costs no image and leaks no secret.

    Override `plugin`::

        class TestMyPlugin(PluginContract):
            def plugin(self, folder):
                return MyPlugin(log=folder / "calls.jsonl")

    Attributes:
        secret: The credential of a plugin that signs with its own key; the tests search for it too.
        repeats: The plugin may send a request again, so the tests do not count requests.
    """

    secret: ClassVar[str] = canary.KEY
    repeats: ClassVar[bool] = False

    def plugin(self, folder: Path) -> object:
        """Return a new plugin; it may write to `folder`."""
        raise NotImplementedError("Override plugin() to return the plugin under test.")

    @pytest.fixture(params=["sync", "async"])
    def flavor(self, request: pytest.FixtureRequest) -> str:
        """The service: "sync" or "async"."""
        return str(request.param)

    def call(
        self,
        flavor: str,
        server: WireServer,
        plugin: object,
        folder: Path | None = None,
        *,
        stream: bool = False,
    ) -> Any:
        """Make a call with the plugin; return the response or the error.

        Args:
            flavor: "sync" or "async".
            server: Server that receives the request.
            plugin: The plugin under test.
            folder: Folder for spooled and cached replies; None turns both off.
            stream: Make the call as a stream, and read it to its end.
        """
        settings: dict[str, Any] = {
            "base_url": server.base_url, "api_key": canary.KEY, "timeout_s": 10, "retry": False,
            "plugins": [plugin], "state_folder": folder,
        }  # fmt: skip
        if folder is not None:
            settings["plugins"].append(imgkit.CachePlugin(folder=folder / "cache-of-the-test"))
        try:
            if flavor == "sync":
                with imgkit.ImageService("requests", **settings) as service:
                    if not stream:
                        return service.create_image("a fox")
                    with service.stream_image("a fox") as events:
                        for _ in events:
                            pass
                        return events.response

            async def main() -> Any:
                async with imgkit.AsyncImageService("aiohttp", **settings) as service:
                    if not stream:
                        return await service.create_image("a fox")
                    async with service.stream_image("a fox") as events:
                        async for _ in events:
                            pass
                        return events.response

            return asyncio.run(main())
        except ImgkitError as error:
            return error

    def test_loads_in_two_services(self, tmp_path: Path) -> None:
        """Has valid hooks, and loads into two services in turn."""
        for _ in range(2):
            with imgkit.ImageService(plugins=[self.plugin(tmp_path)]) as service:
                service.create_image("a fox", size="64x64")

    def test_add_and_remove(self, tmp_path: Path) -> None:
        """Can be added to and removed from a service between calls."""
        plugin = self.plugin(tmp_path)
        with imgkit.ImageService() as service:
            for _ in range(3):
                service.plugins.add(plugin)
                service.create_image("a fox", size="64x64")
                service.plugins.remove(plugin)
            assert plugin not in service.plugins

    @pytest.mark.parametrize("ending", ENDINGS)
    def test_does_not_change_the_outcome(self, flavor: str, ending: str, tmp_path: Path) -> None:
        """Keeps the outcome of a call, the number of requests and the bytes of the images."""
        with WireServer(ENDINGS[ending]) as server:
            expected = self.call(flavor, server, _Observer())
        with WireServer(ENDINGS[ending]) as server:
            result = self.call(flavor, server, self.plugin(tmp_path))
            assert self.repeats or server.posts == 1
        assert type(result) is type(expected), result
        if isinstance(result, imgkit.ImagesResponse):
            assert [image.data for image in result] == [png(1)]

    def test_warns_of_nothing(self, flavor: str, tmp_path: Path) -> None:
        """Adds no warning to a good response: its guards let it pass, and its sinks receive it."""
        with WireServer(ENDINGS["success"]) as server:
            result = self.call(flavor, server, self.plugin(tmp_path))
        assert isinstance(result, imgkit.ImagesResponse), result
        assert result.warnings == ()

    def test_serves_streams(self, flavor: str, tmp_path: Path) -> None:
        """Keeps the images of a stream, and adds no warning to its response."""
        with WireServer(STREAM) as server:
            result = self.call(flavor, server, self.plugin(tmp_path), stream=True)
        assert isinstance(result, imgkit.ImagesResponse), result
        assert [image.data for image in result] == [png(1)]
        assert result.warnings == ()

    @pytest.mark.parametrize("ending", ENDINGS)
    def test_leaks_no_secret(
        self, flavor: str, ending: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Keeps the key out of logs, reprs, errors, pickles, warnings, cache, spool and files."""
        caplog.set_level(logging.DEBUG)
        plugin = self.plugin(tmp_path)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            with WireServer(ENDINGS[ending]) as server:
                result = self.call(flavor, server, plugin, tmp_path)
        records = [
            record
            for record in caplog.records
            if record.name.startswith("imgkit") or not _is_from_http_library(record)
        ]
        texts = [str(warning.message) for warning in caught]
        for secret in {canary.KEY, self.secret}:
            assert (
                canary.find_secret(result, plugin, *texts, records=records, folders=[tmp_path], secret=secret)
                == []
            )

    def test_concurrent_calls(self, tmp_path: Path) -> None:
        """Serves calls of twelve threads."""
        responses: list[Any] = []
        with WireServer(reply(200, answer(png(1)))) as server, imgkit.ImageService(
            "requests", base_url=server.base_url, api_key=canary.KEY, plugins=[self.plugin(tmp_path)]
        ) as service:  # fmt: skip
            threads = [
                threading.Thread(target=lambda n=n: responses.append(service.create_image(f"fox {n}")))
                for n in range(12)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(30)
        assert [response[0].data for response in responses] == [png(1)] * 12


class _Observer:
    """A plugin that changes nothing."""

    @imgkit.hookimpl
    def imgkit_on_event(self) -> None:
        """Do nothing."""


def _is_from_http_library(record: logging.LogRecord) -> bool:
    """Return whether an HTTP library wrote the record; its DEBUG logs are its own matter."""
    return record.name.partition(".")[0] in {"urllib3", "requests", "aiohttp", "asyncio", "httpx", "httpcore"}
