"""The contract of a plugin: any object with hooks."""

from __future__ import annotations

import asyncio
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
    "rate limit": reply(429, {"error": {"message": "slow down", "code": "rate_limit_exceeded"}}),
    "failure": reply(500, {"error": {"message": f"Bearer {canary.KEY}"}}),
    "unreadable": reply(200, b"what"),
    "closed": drop,
    "garbage": raw(b"HELLO\r\n\r\n"),
}


class PluginContract:
    """What every plugin does: it loads, comes and goes, costs no picture, and shows no secret.

    Attributes:
        secret: what it signs with, if it has that from elsewhere than the service's key; looked for too.
        repeats: it may send a request again, so that posts are not counted.
    """

    secret: ClassVar[str] = canary.KEY
    repeats: ClassVar[bool] = False

    def plugin(self, folder: Path) -> object:
        """Return a new plugin; `folder` is for what it writes."""
        raise NotImplementedError("a contract is told what to test")

    @pytest.fixture(params=["sync", "async"])
    def flavor(self, request: pytest.FixtureRequest) -> str:
        """The colour of the service."""
        return str(request.param)

    def call(self, flavor: str, server: WireServer, plugin: object, folder: Path | None = None) -> Any:
        """Make one call with the plugin; return the reply, or the error.

        With a folder, it is where replies are spooled and cached.
        """
        given: dict[str, Any] = {
            "base_url": server.base_url, "api_key": canary.KEY, "timeout_s": 10, "retry": False,
            "plugins": [plugin], "state_folder": folder,
        }  # fmt: skip
        if folder is not None:
            given["plugins"].append(imgkit.CachePlugin(folder=folder / "cache-of-the-test"))
        try:
            if flavor == "sync":
                with imgkit.ImageService("requests", **given) as service:
                    return service.create_image("a fox")

            async def main() -> Any:
                async with imgkit.AsyncImageService("aiohttp", **given) as service:
                    return await service.create_image("a fox")

            return asyncio.run(main())
        except ImgkitError as error:
            return error

    def test_it_loads(self, tmp_path: Path) -> None:
        """Its hooks are ones that there are, with parameters that they have; each service may have one."""
        for _ in range(2):
            with imgkit.ImageService(plugins=[self.plugin(tmp_path)]) as service:
                service.create_image("a fox", size="64x64")

    def test_it_comes_and_goes(self, tmp_path: Path) -> None:
        """It may be added and removed while calls run."""
        plugin = self.plugin(tmp_path)
        with imgkit.ImageService() as service:
            for _ in range(3):
                service.plugins.add(plugin)
                service.create_image("a fox", size="64x64")
                service.plugins.remove(plugin)
            assert plugin not in service.plugins

    @pytest.mark.parametrize("ending", ENDINGS)
    def test_calls_end_as_without_it(self, flavor: str, ending: str, tmp_path: Path) -> None:
        """It changes neither how a call ends, nor how often something is sent, nor a byte of the pictures."""
        with WireServer(ENDINGS[ending]) as server:
            bare = self.call(flavor, server, _Nothing())
        with WireServer(ENDINGS[ending]) as server:
            made = self.call(flavor, server, self.plugin(tmp_path))
            assert self.repeats or server.posts == 1
        assert type(made) is type(bare), made
        if isinstance(made, imgkit.ImagesResponse):
            assert [one.data for one in made] == [png(1)]

    @pytest.mark.parametrize("ending", ENDINGS)
    def test_no_secret_leaves(
        self, flavor: str, ending: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Not in logs, reprs, errors, pickles, warnings, the cache, the spool, or other files."""
        caplog.set_level(logging.DEBUG)
        plugin = self.plugin(tmp_path)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            with WireServer(ENDINGS[ending]) as server:
                made = self.call(flavor, server, plugin, tmp_path)
        own = [
            record for record in caplog.records if record.name.startswith("imgkit") or not _of_others(record)
        ]
        texts = [str(one.message) for one in told]
        for secret in {canary.KEY, self.secret}:
            assert canary.found_in(made, plugin, *texts, records=own, folders=[tmp_path], secret=secret) == []

    def test_many_at_once(self, tmp_path: Path) -> None:
        """Calls of many threads share one plugin."""
        ended: list[Any] = []
        with WireServer(reply(200, answer(png(1)))) as server, imgkit.ImageService(
            "requests", base_url=server.base_url, api_key=canary.KEY, plugins=[self.plugin(tmp_path)]
        ) as service:  # fmt: skip
            threads = [
                threading.Thread(target=lambda n=n: ended.append(service.create_image(f"fox {n}")))
                for n in range(12)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(30)
        assert [one[0].data for one in ended] == [png(1)] * 12


class _Nothing:
    """A plugin without hooks."""


def _of_others(record: logging.LogRecord) -> bool:
    """Whether a record was written by a library below: what those log at DEBUG is theirs."""
    return record.name.partition(".")[0] in {"urllib3", "requests", "aiohttp", "asyncio", "httpx", "httpcore"}
