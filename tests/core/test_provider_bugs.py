"""Bugs of providers: each ends its call with an error of imgkit, and loses no paid reply."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

import imgkit
from imgkit.plugins.hookspecs import ProviderSpec, hookimpl
from imgkit.providers import DecodedImage, DecodedImages, DecodedPartialImage
from imgkit.providers.openai import OpenAIProvider
from tests.support.pictures import answer
from tests.support.wire_server import WireServer, reply

KEY = "sk-proj-CANARY1234567890abcdef"


class BuggyProvider(OpenAIProvider):
    """OpenAI's dialect with a bug in the method that `bug` names."""

    bug = ""

    def _break(self, name: str, result: Any) -> Any:
        if self.bug == f"{name} returns None":
            return None
        if self.bug == name:
            raise KeyError(KEY)
        return result

    def check(self, *args: Any) -> None:
        self._break("check", super().check(*args))

    def encode(self, *args: Any) -> Any:
        return self._break("encode", super().encode(*args))

    def decode(self, *args: Any) -> Any:
        if self.bug == "refusal":
            raise imgkit.ModerationBlockedError("no")
        return self._break("decode", super().decode(*args))

    def decode_event(self, *args: Any) -> Any:
        return self._break("decode_event", super().decode_event(*args))

    def error(self, *args: Any) -> Any:
        return self._break("error", super().error(*args))

    def failure_is_free(self, *args: Any) -> Any:
        return self._break("failure_is_free", super().failure_is_free(*args))


class Acme:
    @hookimpl
    def imgkit_providers(self) -> list[ProviderSpec]:
        return [ProviderSpec(name="buggy", target=f"{__name__}:BuggyProvider")]


def fail(flavor: Any, script: Any, folder: Path, *, stream: bool = False) -> tuple[Any, int]:
    """Make a call, and return its error and the number of requests."""
    with WireServer(script) as server:

        def now(images: Any) -> Any:
            if not stream:
                return images.create_image("a fox")
            with images.stream_image("a fox") as events:
                return list(events)

        async def later(images: Any) -> Any:
            if not stream:
                return await images.create_image("a fox")
            async with images.stream_image("a fox") as events:
                return [event async for event in events]

        with pytest.raises(imgkit.ImgkitError) as caught:
            flavor.run(
                now if flavor.flavor == "sync" else later,
                "requests",
                base_url=server.base_url,
                api_key=KEY,
                provider="buggy",
                plugins=[Acme()],
                state_folder=folder,
                retry=True,
            )
        return caught.value, server.posts


@pytest.mark.parametrize("bug", ["decode", "decode returns None", "refusal", "decode_event"])
def test_bugs_after_a_paid_reply(
    flavor: Any, bug: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names provider and plugin, keeps the reply in error and spool, and pays once."""
    monkeypatch.setattr(BuggyProvider, "bug", bug)
    stream = bug == "decode_event"
    events = reply(200, b'data: {"type": "x"}\n\n', content_type="text/event-stream")
    script = events if stream else reply(200, answer())
    error, posts = fail(flavor, script, tmp_path, stream=stream)
    assert type(error) is imgkit.UnreadableReplyError
    assert str(error).startswith("Provider 'buggy' of plugin ")
    assert f" failed in {bug.split()[0].replace('refusal', 'decode')}()" in str(error)
    assert "CANARY" not in f"{error}{error.__cause__!r}"
    assert error.maybe_billed
    assert error.body
    assert error.spool_path is not None
    assert Path(error.spool_path).is_dir()
    assert posts == 1


WRONG_RESULTS: dict[str, Any] = {
    "text as an image": DecodedImages(pictures=(b"abc",)),  # type: ignore[arg-type]
    "no tuple": DecodedImages(pictures=None),  # type: ignore[arg-type]
    "usage as a mapping": DecodedImages(pictures=(), usage={}),  # type: ignore[arg-type]
    "an image without content": DecodedImages(pictures=(DecodedImage(),)),
    "a partial image": DecodedPartialImage(index=0, data=b"abc"),
    "not sent": imgkit.NotSentError("no"),
    "refused by itself": imgkit.InvalidRequestError({"n": "no"}),
    "a setting": imgkit.ConfigurationError("no"),
}


@pytest.mark.parametrize("name", WRONG_RESULTS)
def test_wrong_results_of_decode(
    flavor: Any, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong result, or an error that says that nothing was sent, is an unreadable reply, sent once."""

    def decode(*args: Any, **options: Any) -> Any:
        if isinstance(WRONG_RESULTS[name], Exception):
            raise WRONG_RESULTS[name]
        return WRONG_RESULTS[name]

    monkeypatch.setattr(BuggyProvider, "decode", decode)
    error, posts = fail(flavor, reply(200, answer()), tmp_path)
    assert type(error) is imgkit.UnreadableReplyError
    assert (posts, error.maybe_billed) == (1, True)
    assert error.body


@pytest.mark.parametrize("bug", ["check", "encode"])
def test_bugs_before_anything_is_sent(
    flavor: Any, bug: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Says that nothing was sent."""
    monkeypatch.setattr(BuggyProvider, "bug", bug)
    error, posts = fail(flavor, reply(200, answer()), tmp_path)
    assert type(error) is imgkit.PluginError
    assert f"failed in {bug}()" in str(error)
    assert "Nothing was sent." in str(error)
    assert posts == 0


@pytest.mark.parametrize(
    ("bug", "status", "kind"),
    [
        ("error", 400, imgkit.BadRequestError),
        ("error returns None", 400, imgkit.BadRequestError),
        ("error", 500, imgkit.OutcomeUnknownError),
        ("failure_is_free", 500, imgkit.OutcomeUnknownError),
    ],
)
def test_bugs_on_an_error_reply(
    flavor: Any, bug: str, status: int, kind: type[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reads the reply itself, notes the bug, and takes no 5xx for free."""
    monkeypatch.setattr(BuggyProvider, "bug", bug)
    body = {"error": {"message": "boom", "type": "server_error", "code": "x"}}
    error, posts = fail(flavor, reply(status, body), tmp_path)
    assert isinstance(error, kind)
    assert ": boom." in str(error)
    assert any("Provider 'buggy'" in note for note in error.__notes__)
    assert b"boom" in error.body
    assert posts == 1


class ForeignError(OpenAIProvider):
    """A provider whose errors keep no body."""

    def error(self, head: Any, body: bytes, secrets: Any) -> imgkit.ImgkitError:
        return imgkit.ConflictError("busy", status=head.status)


def test_every_error_keeps_its_body(flavor: Any) -> None:
    """Adds the body to the error of any provider, without the key."""
    with WireServer(reply(409, {"said": f"the key is {KEY}"})) as server:

        def now(images: Any) -> Any:
            return images.create_image("a fox")

        async def later(images: Any) -> Any:
            return (await asyncio.gather(images.create_image("a fox")))[0]

        with pytest.raises(imgkit.ConflictError) as caught:
            work = now if flavor.flavor == "sync" else later
            flavor.run(work, "requests", base_url=server.base_url, api_key=KEY, provider=ForeignError())
    assert b"the key is" in caught.value.body
    assert b"CANARY" not in caught.value.body
