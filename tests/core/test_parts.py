"""More pictures than a model makes at once: several requests, one result, nothing paid for lost."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

import imgkit
from imgkit import CachePlugin, ImageService
from imgkit.billing.spool import Spool
from imgkit.cache.memory import MemoryStore
from imgkit.core.operations import OperationFlows
from imgkit.runtime.flow import EffectFailed, Finished, ReadChunk, RunParallel, SendRequest, advance
from imgkit.testing.samples import answer, png
from imgkit.testing.wire_server import Line, WireServer, drop, reply
from imgkit.wire.messages import Head
from tests.support.official import official

KEY = "sk-test-0123456789"


def counted(line: Line) -> None:
    """Give as many pictures as are asked for, and usage."""
    count = json.loads(line.body).get("n", 1)
    usage = {"input_tokens": 10, "output_tokens": 100 * count, "total_tokens": 10 + 100 * count,
             "input_tokens_details": {"text_tokens": 10, "image_tokens": 0}}  # fmt: skip
    reply(200, {**answer(*[png(number) for number in range(count)]), "usage": usage})(line)


def ask(flavor: Any, server: WireServer, backend: str, n: int, **more: Any) -> Any:
    options = {name: more.pop(name) for name in ("plugins", "retry") if name in more}
    settings = {"provider": official(server.base_url), "api_key": KEY, "model": "gpt-image-2", **options}
    return flavor.run(lambda service: service.create_image("a fox", n=n, **more), backend, **settings)


def test_25_of_10(flavor: Any, http_backend: str) -> None:
    """Three requests, their pictures in order under one result, with sums of usage and cost."""
    counts = []

    def script(line: Line) -> None:
        counts.append(json.loads(line.body)["n"])
        counted(line)

    with WireServer(script) as server:
        got = ask(flavor, server, http_backend, 25)
    assert sorted(counts) == [5, 10, 10]
    assert [image.data for image in got] == [png(n) for n in (*range(10), *range(10), *range(5))]
    assert [image.index for image in got] == list(range(25))
    assert (got.usage.input_tokens, got.usage.output_tokens) == (30, 2500)
    assert float(got.cost.amount) == pytest.approx(30 * 5e-6 + 2500 * 30e-6)
    assert len(got.meta.attempts) == 3
    assert got.errors == ()


def test_within_the_limit_it_is_one_request(flavor: Any) -> None:
    with WireServer(counted) as server:
        assert len(ask(flavor, server, "requests", 10)) == 10
        assert server.posts == 1


def test_one_at_a_time_models(flavor: Any) -> None:
    """The limit is the model's: an svg comes alone."""
    with WireServer(counted) as server:
        settings = {"provider": official(server.base_url), "api_key": KEY, "model": "gpt-image-2.6-flare"}
        call = lambda service: service.create_image("a fox", n=3, output_format="svg")  # noqa: E731
        assert len(flavor.run(call, "aiohttp", **settings)) == 3
        assert server.posts == 3


def test_no_more_than_four_at_once(flavor: Any, http_backend: str) -> None:
    """They run together, but not all at once."""
    lock, running, most = threading.Lock(), [0], [0]

    def script(line: Line) -> None:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        line.wait(0.03)
        with lock:
            running[0] -= 1
        counted(line)

    with WireServer(script) as server:
        assert len(ask(flavor, server, http_backend, 100)) == 100
    assert 2 <= most[0] <= 4


def test_partial_failure(flavor: Any, http_backend: str, tmp_path: Path) -> None:
    """What came is returned and saved; what did not is told, with its class."""
    seen: list[int] = []

    def script(line: Line) -> None:
        seen.append(1)
        (drop if json.loads(line.body)["n"] == 5 else counted)(line)

    with WireServer(script) as server:
        got = ask(flavor, server, http_backend, 25, save_to=tmp_path / "{index}.png")
        assert server.posts == 3
    assert len(got) == 20
    assert [type(error) for error in got.errors] == [imgkit.OutcomeUnknownError]
    assert "pictures 21 to 25 of 25 are missing: OutcomeUnknownError" in got.warnings[-1]
    assert sorted(int(path.stem) for path in tmp_path.glob("*.png")) == list(range(1, 21))


def test_all_fail(flavor: Any) -> None:
    """The error that may have cost money is raised before others; nothing is sent after a final one."""
    refusal = reply(401, {"error": {"message": "bad key", "code": "invalid_api_key"}})
    with WireServer(refusal) as server:
        with pytest.raises(imgkit.AuthenticationError) as caught:
            ask(flavor, server, "requests", 100)
        assert 1 <= server.posts <= 4
    assert "9 more requests" in caught.value.__notes__[0]
    with WireServer(reply(500, {"error": {"message": "no"}}), drop) as server:
        with pytest.raises(imgkit.OutcomeUnknownError):
            ask(flavor, server, "requests", 20)


def test_equal_parts_are_not_one_cache_entry(flavor: Any, http_backend: str) -> None:
    """Two requests for ten are two; the same call again is answered by the cache, ten alone by it too."""
    cache = CachePlugin(MemoryStore())
    with WireServer(counted) as server:
        first = ask(flavor, server, http_backend, 20, plugins=[cache])
        assert server.posts == 2
        again = ask(flavor, server, http_backend, 20, plugins=[cache])
        ten = ask(flavor, server, http_backend, 10, plugins=[cache])
        assert server.posts == 2
    assert [one.data for one in again] == [one.data for one in first]
    assert again.meta.cached
    assert float(again.cost.amount) == 0
    assert ten.meta.cached


def test_a_bug_breaks_all_off(flavor: Any) -> None:
    """An exception that is no error of imgkit's ends the call, and leaves nothing running."""

    class Odd:
        name = "odd"
        errors = ()
        unsent_errors = ()

        def open(self, request: Any, transfer: Any) -> Any:
            raise ZeroDivisionError("a bug")

        def close(self) -> None: ...

    with pytest.raises(ZeroDivisionError):
        flavor.run(
            lambda service: service.create_image("a fox", n=30), Odd(), base_url="http://127.0.0.1:1/v1"
        )
    assert not [one for one in threading.enumerate() if one.name.startswith("imgkit-part")]


def test_a_budget_ends_the_whole_call(flavor: Any) -> None:
    """Once a part has no room in it, no smaller one takes its place: that is not what was asked for."""
    budget = imgkit.Budget(usd=0.5)
    with WireServer(counted) as server, pytest.raises(imgkit.BudgetExceededError):
        ask(flavor, server, "requests", 101, plugins=[budget], quality="high", size="1024x1024")
    assert server.posts == 0
    assert budget.spent == 0


def test_each_part_has_its_record(flavor: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What several requests have brought, and could not be saved, is all there to be recovered."""

    def no(*args: Any) -> None:
        raise OSError(13, "Permission denied")

    monkeypatch.setattr("imgkit.images.saving._link", no)
    with WireServer(counted) as server, pytest.raises(imgkit.SaveError):
        settings = {"provider": official(server.base_url), "api_key": KEY, "model": "gpt-image-2"}
        call = lambda service: service.create_image("a fox", n=25, save_to=tmp_path)  # noqa: E731
        flavor.run(call, "requests", state_folder=tmp_path / "state", **settings)
    left = Spool(tmp_path / "state" / "spool").list_replies()
    assert sorted(len(json.loads(one.text())["data"]) for one in left) == [5, 10, 10]
    assert {one.facts["attempt"] for one in left} == {1, 2, 3}


def test_by_hand() -> None:
    """The plan asks for its parts as flows, which are stepped like any other."""
    with ImageService("requests", base_url="http://127.0.0.1:1/v1") as service:
        flow = OperationFlows(service._core).create_image("a fox", n=12)
        need = advance(flow, None)
        assert isinstance(need, RunParallel)
        outcomes: list[Any] = []
        for part in need.flows:
            opened = advance(part, None)
            assert isinstance(opened, SendRequest)
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
        assert len(end.value) == 1
        assert len(end.value.errors) == 1
