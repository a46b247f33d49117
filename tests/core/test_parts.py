"""Calls for more images than a model makes at once: several requests, one result."""

from __future__ import annotations

import json
import threading
import time
from itertools import permutations
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import imgkit
from imgkit import CachePlugin, ImageService
from imgkit.billing.spool import Spool
from imgkit.cache.memory import MemoryStore
from imgkit.core import send
from imgkit.core.operations import OperationFlows
from imgkit.core.part_gate import PartGate
from imgkit.core.pipeline import most_serious_error
from imgkit.errors import (
    ModerationBlockedError,
    NotSentError,
    OutcomeUnknownError,
    RateLimitError,
    ServerError,
    ServiceClosedError,
)
from imgkit.runtime.flow import EffectFailed, Finished, ReadChunk, RunParallel, SendRequest, Sleep, advance
from imgkit.testing.samples import answer, png
from imgkit.testing.wire_server import Line, WireServer, drop, reply
from imgkit.wire.messages import Head
from tests.support.official import official

KEY = "sk-test-0123456789"
OUTAGE = b'{"error": {"message": "Overloaded.", "type": "server_error"}}'


def reply_with_n(line: Line) -> None:
    """Reply with as many images as the request asks for, and with usage."""
    count = json.loads(line.body).get("n", 1)
    usage: dict[str, Any] = {
        "input_tokens": 10,
        "output_tokens": 100 * count,
        "total_tokens": 10 + 100 * count,
        "input_tokens_details": {"text_tokens": 10, "image_tokens": 0},
    }
    body: dict[str, Any] = answer(*[png(number) for number in range(count)])
    reply(200, {**body, "usage": usage})(line)


def create_images(flavor: Any, server: WireServer, backend: str, n: int, **more: Any) -> Any:
    """Create `n` images at the official host, with either service."""
    options = {name: more.pop(name) for name in ("plugins", "retry") if name in more}
    settings: dict[str, Any] = {"provider": official(server.base_url), "api_key": KEY, "model": "gpt-image-2"}
    return flavor.run(
        lambda service: service.create_image("a fox", n=n, **more), backend, **settings, **options
    )


def test_25_images_take_three_requests(flavor: Any, http_backend: str) -> None:
    """Sends three requests and merges their images in order, with sums of usage and cost."""
    counts = []

    def script(line: Line) -> None:
        counts.append(json.loads(line.body)["n"])
        reply_with_n(line)

    with WireServer(script) as server:
        response = create_images(flavor, server, http_backend, 25)
    assert sorted(counts) == [5, 10, 10]
    assert [image.data for image in response] == [png(n) for n in (*range(10), *range(10), *range(5))]
    assert [image.index for image in response] == list(range(25))
    assert (response.usage.input_tokens, response.usage.output_tokens) == (30, 2500)
    assert float(response.cost.amount) == pytest.approx(30 * 5e-6 + 2500 * 30e-6)
    assert len(response.meta.attempts) == 3
    assert response.errors == ()


def test_ten_images_take_one_request(flavor: Any) -> None:
    """Sends one request if the model makes all images at once."""
    with WireServer(reply_with_n) as server:
        assert len(create_images(flavor, server, "requests", 10)) == 10
        assert server.posts == 1


def test_the_limit_is_that_of_the_model(flavor: Any) -> None:
    """Sends one request per svg, the limit of that model."""
    with WireServer(reply_with_n) as server:
        settings = {"provider": official(server.base_url), "api_key": KEY, "model": "gpt-image-2.6-flare"}
        call = lambda service: service.create_image("a fox", n=3, output_format="svg")  # noqa: E731
        assert len(flavor.run(call, "aiohttp", **settings)) == 3
        assert server.posts == 3


def test_at_most_four_parts_run_at_once(flavor: Any, http_backend: str) -> None:
    """Runs the parts of a call concurrently, but at most four at once."""
    lock, running, peak = threading.Lock(), [0], [0]

    def script(line: Line) -> None:
        with lock:
            running[0] += 1
            peak[0] = max(peak[0], running[0])
        line.wait(0.03)
        with lock:
            running[0] -= 1
        reply_with_n(line)

    with WireServer(script) as server:
        assert len(create_images(flavor, server, http_backend, 100)) == 100
    assert 2 <= peak[0] <= 4


def test_partial_failure(flavor: Any, http_backend: str, tmp_path: Path) -> None:
    """Returns and saves the images that arrived, and reports the missing part with its error class."""
    seen: list[int] = []

    def script(line: Line) -> None:
        seen.append(1)
        (drop if json.loads(line.body)["n"] == 5 else reply_with_n)(line)

    with WireServer(script) as server:
        response = create_images(flavor, server, http_backend, 25, save_to=tmp_path / "{index}.png")
        assert server.posts == 3
    assert len(response) == 20
    assert [type(error) for error in response.errors] == [imgkit.OutcomeUnknownError]
    assert "Images 21 to 25 of 25 are missing: OutcomeUnknownError" in response.warnings[-1]
    assert sorted(int(path.stem) for path in tmp_path.glob("*.png")) == list(range(1, 21))


def test_all_parts_fail(flavor: Any) -> None:
    """Raises the error that may have cost money first, and sends nothing after a final error."""
    refusal = reply(401, {"error": {"message": "bad key", "code": "invalid_api_key"}})
    with WireServer(refusal) as server:
        with pytest.raises(imgkit.AuthenticationError) as caught:
            create_images(flavor, server, "requests", 100)
        assert 1 <= server.posts <= 4
    assert "9 more requests" in caught.value.__notes__[0]
    with WireServer(reply(500, {"error": {"message": "no", "code": "server_error"}}), drop) as server:
        with pytest.raises(imgkit.OutcomeUnknownError):
            create_images(flavor, server, "requests", 20)


def test_equal_parts_are_not_one_cache_entry(flavor: Any, http_backend: str) -> None:
    """Caches each part on its own, so the same call and a call for one part hit the cache."""
    cache = CachePlugin(MemoryStore())
    with WireServer(reply_with_n) as server:
        first = create_images(flavor, server, http_backend, 20, plugins=[cache])
        assert server.posts == 2
        again = create_images(flavor, server, http_backend, 20, plugins=[cache])
        ten = create_images(flavor, server, http_backend, 10, plugins=[cache])
        assert server.posts == 2
    assert [image.data for image in again] == [image.data for image in first]
    assert again.meta.cached
    assert float(again.cost.amount) == 0
    assert ten.meta.cached


def test_a_bug_ends_all_parts(flavor: Any) -> None:
    """A foreign exception ends the call and leaves no part running."""

    class Odd:
        name = "odd"
        wire_errors = ()
        unsent_errors = ()

        def open(self, request: Any, transfer: Any) -> Any:
            raise ZeroDivisionError("a bug")

        def close(self) -> None: ...

    with pytest.raises(ZeroDivisionError):
        flavor.run(
            lambda service: service.create_image("a fox", n=30), Odd(), base_url="http://127.0.0.1:1/v1"
        )
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("imgkit-part")]


def test_a_budget_ends_the_whole_call(flavor: Any) -> None:
    """A part that exceeds the budget ends the call; no smaller part takes its place."""
    budget = imgkit.Budget(usd=0.5)
    with WireServer(reply_with_n) as server, pytest.raises(imgkit.BudgetExceededError):
        create_images(flavor, server, "requests", 101, plugins=[budget], quality="high", size="1024x1024")
    assert server.posts == 0
    assert budget.spent == 0


def test_each_part_has_its_spool_record(flavor: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keeps a spool record for each part whose images could not be saved."""

    def no(*args: Any) -> None:
        raise OSError(13, "Permission denied")

    monkeypatch.setattr("imgkit.images.saving._link", no)
    with WireServer(reply_with_n) as server, pytest.raises(imgkit.SaveError):
        settings = {"provider": official(server.base_url), "api_key": KEY, "model": "gpt-image-2"}
        call = lambda service: service.create_image("a fox", n=25, save_to=tmp_path)  # noqa: E731
        flavor.run(call, "requests", state_folder=tmp_path / "state", **settings)
    left = Spool(tmp_path / "state" / "spool").list_replies()
    assert sorted(len(json.loads(record.text())["data"]) for record in left) == [5, 10, 10]
    assert {record.facts["attempt"] for record in left} == {1, 2, 3}


def test_parts_are_flows() -> None:
    """The flow yields its parts as flows, which a driver steps like any other."""
    with ImageService("requests", base_url="http://127.0.0.1:1/v1") as service:
        flow = OperationFlows(service._core).create_image("a fox", n=12)
        effect = advance(flow, None)
        assert isinstance(effect, RunParallel)
        outcomes: list[Any] = []
        for part in effect.flows:
            part_effect = advance(part, None)
            assert isinstance(part_effect, SendRequest)
            if not outcomes:
                assert advance(part, Head(200, {})) == ReadChunk()
                assert advance(part, json.dumps(answer()).encode()) == ReadChunk()
                end = advance(part, b"")
                assert isinstance(end, Finished)
                outcomes.append(end)
            else:
                with pytest.raises(imgkit.NotSentError) as caught:
                    advance(part, EffectFailed(imgkit.NotSentError("no", permanent=True)))
                outcomes.append(EffectFailed(caught.value))
        end = advance(flow, outcomes)
        assert isinstance(end, Finished)
        assert isinstance(end.value, imgkit.ImagesResponse)
        assert len(end.value) == 1
        assert len(end.value.errors) == 1


def test_the_error_that_stopped_the_parts_ends_the_call() -> None:
    """Whichever part ends first, a closed service outweighs a wait, and a possible bill both."""
    waiting, unsent = RateLimitError("Slow down.", status=429), NotSentError("Not sent.", permanent=True)
    closed, unknown = ServiceClosedError("Closed."), OutcomeUnknownError("The connection broke.")
    for errors in permutations([waiting, unsent, closed]):
        assert most_serious_error(list(errors)) is closed
    for errors in permutations([waiting, unsent, closed, unknown]):
        assert most_serious_error(list(errors)) is unknown


@pytest.mark.parametrize(("stage", "stops"), [("input", True), ("output", False), (None, False)])
def test_a_refused_prompt_stops_the_parts(stage: str | None, stops: bool) -> None:
    """Only a refusal of the input is the same for every part; another image may pass."""
    gate = PartGate()
    gate.close(ModerationBlockedError("No.", status=400, stage=stage))
    assert gate.is_closed == stops


def test_a_second_failure_in_a_row_is_an_outage() -> None:
    """Stops the parts once the server has failed twice in a row and a part gives up."""
    gate = PartGate()
    gate.close(ServerError("Down.", status=500))
    assert not gate.is_closed
    gate.note_success()
    assert gate.claim_retry("a part")
    gate.close(ServerError("Down.", status=500))
    assert gate.is_closed


def test_a_waiting_part_takes_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets another part repeat its request when the part that probed the server ends without a success."""
    now = time.monotonic()
    monkeypatch.setattr(send, "time", SimpleNamespace(monotonic=lambda: now))
    with ImageService("requests", base_url="http://127.0.0.1:1/v1", retry=True) as service:
        flow = OperationFlows(service._core).create_image("a fox", n=12)
        effect = advance(flow, None)
        assert isinstance(effect, RunParallel)
        for part in effect.flows:
            assert isinstance(advance(part, None), SendRequest)
            assert advance(part, Head(500, {})) == ReadChunk()
            assert advance(part, OUTAGE) == ReadChunk()
            assert isinstance(advance(part, b""), Sleep)
        probe, waiting = effect.flows
        step: Any = Sleep(0.05)
        while isinstance(step, Sleep):
            now += step.wait_s
            step = advance(probe, None)
        assert isinstance(step, SendRequest)
        now += 0.05
        assert isinstance(advance(waiting, None), Sleep)
        with pytest.raises(OutcomeUnknownError):
            advance(probe, EffectFailed(OutcomeUnknownError("The connection broke.")))
        now += 0.05
        assert isinstance(advance(waiting, None), SendRequest)
        waiting.close()
        flow.close()
