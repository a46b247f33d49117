"""Bugs of providers whose APIs accept jobs: errors of imgkit, and a job that can still be collected."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import pytest

import imgkit
from imgkit.core import job_polling, job_requests
from imgkit.providers import HttpRequest, JobUpdate
from imgkit.providers.bfl import BflProvider
from imgkit.providers.comfyui import ComfyUIProvider
from imgkit.testing import serve_fake
from tests.conftest import ServiceRunner
from tests.support.pictures import picture
from tests.support.wire_server import Line, WireServer, hang, reply

BROKEN_URLS: tuple[Any, ...] = (
    5,
    "http://[",
    "",
    "/v1",
    "ftp://a/b",
    "https://a:99999/",
    "https://a/\r\nx: y",
)
KEY = "bfl-key-CANARY-0123456789"


def break_method(kind: type[Any], name: str, result: Callable[[], Any]) -> Any:
    """Return a provider whose method returns something else, or raises."""

    def broken(self: Any, *args: Any, **more: Any) -> Any:
        return result()

    return type("Buggy", (kind,), {name: broken})()


def fail() -> None:
    """Raise an exception that repeats the key."""
    raise KeyError(KEY)


@pytest.fixture(autouse=True)
def _few_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the deadline come after three polls."""
    monkeypatch.setattr(job_polling, "QUICK_POLLS", 3)


@pytest.mark.parametrize(
    "result",
    [
        fail,
        lambda: None,
        lambda: 5,
        lambda: JobUpdate(state=5),  # type: ignore[arg-type]  # a bug
        lambda: JobUpdate(state={}, poll_after_s=float("nan")),
        lambda: JobUpdate(state={}, progress="half"),  # type: ignore[arg-type]  # a bug
        lambda: JobUpdate(state={}, preview="text"),  # type: ignore[arg-type]  # a bug
        lambda: imgkit.providers.DecodedImages(pictures=[]),  # type: ignore[arg-type]  # a bug
    ],
)
def test_a_bug_in_decode_poll(flavor: ServiceRunner, result: Callable[[], Any]) -> None:
    """A poll that the provider cannot read leaves the job pending, and a mended provider collects it."""
    provider = break_method(BflProvider, "decode_poll", result)
    with pytest.raises(imgkit.JobPendingError, match=r"failed in decode_poll\(\)") as caught:
        flavor.run(
            lambda s: s.create_image("a fox", timeout_s=0.4), "offline", provider=provider, api_key=KEY
        )
    assert KEY not in str(caught.value)
    assert len(caught.value.jobs) == 1


@pytest.mark.parametrize(
    ("name", "result"),
    [
        ("poll", fail),
        ("poll", lambda: None),
        *(("poll", partial(HttpRequest, "GET", url)) for url in BROKEN_URLS),
        ("poll", partial(HttpRequest, cast("Any", "TRACE"), "https://api.bfl.ai/v1")),
        ("poll", partial(HttpRequest, "GET", "https://api.bfl.ai/v1", {"x-a": "b\r\nx-c: d"})),
        ("poll", partial(HttpRequest, "GET", "https://api.bfl.ai/v1", {"x-a": cast("str", 5)})),
        ("decode", lambda: JobUpdate(state=None)),  # type: ignore[arg-type]  # a bug
        ("decode", lambda: JobUpdate(state={"a": object()})),
    ],
)
def test_a_bug_around_an_accepted_job(flavor: ServiceRunner, name: str, result: Callable[[], Any]) -> None:
    """A job whose state or poll is broken ends with an error that may be billed."""
    provider = break_method(BflProvider, name, result)
    with pytest.raises(imgkit.ImgkitError) as caught:
        flavor.run(
            lambda s: s.create_image("a fox", timeout_s=0.4), "offline", provider=provider, api_key=KEY
        )
    assert caught.value.maybe_billed
    assert KEY not in str(caught.value)


def test_a_provider_that_never_waits(
    flavor: ServiceRunner, http_backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A provider whose every reply names another step at once is asked with pauses after some steps."""
    monkeypatch.setattr(job_requests, "LONGEST_PAUSE_S", 1e6)
    monkeypatch.setattr(job_requests, "FIRST_PAUSE_S", 1e6)
    numbers = itertools.count()
    api = BflProvider.fake()
    with serve_fake(api) as server:
        url = f"{server.origin}/v1/get_result?id=job-1"

        def name_step(*args: Any) -> JobUpdate:
            return JobUpdate(state={"polling_url": url, "step": next(numbers)}, poll_after_s=0)

        provider = type("Restless", (BflProvider,), {"decode": name_step, "decode_poll": name_step})()
        settings = {"provider": provider, "base_url": server.origin, "api_key": KEY}
        with pytest.raises(imgkit.JobPendingError, match="still at work"):
            flavor.run(lambda s: s.create_image("a fox", timeout_s=30), http_backend, **settings)
    assert api.count["GET /v1/get_result"] == job_requests.MAX_STEPS + 1


@pytest.mark.parametrize(("telling_s", "is_told"), [(2.0, False), (0.0, True)])
def test_a_poll_that_the_deadline_cuts_is_no_failure(
    flavor: ServiceRunner,
    http_backend: str,
    telling_s: float,
    is_told: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Tells that polls fail only if the API had time to answer the last one."""
    monkeypatch.setattr(job_polling, "TELLING_S", telling_s)
    monkeypatch.setattr(job_requests, "FIRST_PAUSE_S", 0.01)

    def accept(line: Line) -> None:
        url = f"http://127.0.0.1:{line.connection.getsockname()[1]}/v1/get_result?id=job-1"
        reply(200, {"id": "job-1", "polling_url": url})(line)

    with WireServer(accept, hang) as server:
        settings = {"provider": "bfl", "base_url": server.base_url.removesuffix("/v1"), "api_key": KEY}
        with pytest.raises(imgkit.JobPendingError, match="still at work") as caught:
            flavor.run(lambda s: s.create_image("a fox", timeout_s=0.4), http_backend, **settings)
    assert ("A poll failed" in caught.value.problem) == is_told


@pytest.mark.parametrize("name", ["encode", "submit_handle", "add_handle", "next_upload"])
@pytest.mark.parametrize("result", [fail, lambda: 5, partial(HttpRequest, "POST", "http://[")])
def test_a_bug_before_the_submit(flavor: ServiceRunner, name: str, result: Callable[[], Any]) -> None:
    """A provider that fails before its request is sent has spent nothing."""
    provider = break_method(ComfyUIProvider, name, result)
    with pytest.raises(imgkit.ImgkitError) as caught:
        flavor.run(
            lambda s: s.create_image_edit(picture(), "a hat", timeout_s=0.4),
            "offline",
            provider=provider,
        )
    assert not caught.value.maybe_billed
    assert KEY not in str(caught.value)


def test_a_bug_in_cancel_job(flavor: ServiceRunner) -> None:
    """A job whose cancellation is broken goes on."""
    job = imgkit.Job(id="a-1", provider="Buggy", base_url="https://api.bfl.ai", operation="create_image")
    provider = break_method(BflProvider, "cancel_job", fail)
    with pytest.raises(imgkit.ImgkitError, match="cancel_job") as caught:
        flavor.run(lambda s: s.cancel_job(job), "requests", provider=provider, api_key=KEY)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("name", ["decode", "decode_poll"])
def test_no_images(flavor: ServiceRunner, name: str) -> None:
    """A result without images is an error that may be billed, at once and at the end of a job."""
    provider = break_method(BflProvider, name, lambda: imgkit.providers.DecodedImages(pictures=()))
    with pytest.raises(imgkit.EmptyResultError) as caught:
        flavor.run(lambda s: s.create_image("a fox"), "offline", provider=provider, api_key=KEY)
    assert caught.value.maybe_billed
