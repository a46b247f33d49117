"""Calls through a cache: equal requests are paid for once, whoever makes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import imgkit
from imgkit import CachePlugin
from imgkit.cache.folder import FolderStore
from imgkit.cache.memory import MemoryStore
from imgkit.core.cache_entries import from_failure, to_failure
from imgkit.plugins.events import CacheHit, Sent, Succeeded
from imgkit.plugins.protocols import Failure
from tests.support.pictures import answer, encoded, noise, picture
from tests.support.wire_server import Line, WireServer, drop, reply

KEY = "sk-test-CANARY-1234567890abcdef"


class Spy:
    def __init__(self) -> None:
        self.events: list[Any] = []

    @imgkit.hookimpl
    def imgkit_on_event(self, event: Any) -> None:
        self.events.append(event)

    def kinds(self) -> list[str]:
        return [type(event).__name__ for event in self.events if not isinstance(event, Sent | Succeeded)]


@pytest.fixture(params=["memory", "folder"])
def store(request: Any, tmp_path: Path) -> Any:
    return MemoryStore() if request.param == "memory" else FolderStore(tmp_path / "cache")


def gathered(flavor: Any, calls: list[Any]) -> Any:
    """Return work that does calls one after the other, under either service."""
    if flavor.flavor == "sync":
        return lambda service: [call(service) for call in calls]

    async def work(service: Any) -> list[Any]:
        return [await call(service) for call in calls]

    return work


def run(flavor: Any, server: WireServer, backend: str, store: Any, *calls: Any, **options: Any) -> Any:
    settings = {
        "base_url": server.base_url, "api_key": KEY, "timeout_s": 10, "plugins": [CachePlugin(store)],
        **options,
    }  # fmt: skip
    return flavor.run(gathered(flavor, list(calls)), backend, **settings)


def create(prompt: str = "a fox", **more: Any) -> Any:
    return lambda service: service.create_image(prompt, **more)


def test_an_equal_request_is_paid_for_once(flavor: Any, http_backend: str, store: Any) -> None:
    spy = Spy()
    body = {**answer(2), "usage": {"total_tokens": 5}, "background": "opaque", "new": {"x": [1]}}
    body["data"][0] |= {"revised_prompt": "a red fox", "seed": 7}  # type: ignore[index]
    with WireServer(reply(200, body)) as server:
        first, second = run(
            flavor, server, http_backend, store, create(), create(), plugins=[CachePlugin(store), spy]
        )
        assert server.posts == 1
    assert [one.data for one in second] == [one.data for one in first] == [picture()] * 2
    assert (first.meta.cached, second.meta.cached) == (False, True)
    assert second.meta.attempts == ()
    assert second.meta.request_id == first.meta.request_id == "req_test"
    assert (second.created, second.usage, second.background) == (1, first.usage, "opaque")
    assert second.extra == first.extra == {"new": {"x": [1]}}
    assert second[0].revised_prompt == "a red fox"
    assert second[0].extra == first[0].extra == {"seed": 7}
    (hit,) = (event for event in spy.events if isinstance(event, CacheHit))
    assert len(hit.key) == 64
    assert 0 <= hit.age_s < 60


def test_what_makes_another_request(flavor: Any, http_backend: str, store: Any) -> None:
    with WireServer(reply(200, answer())) as server:
        calls = [create(), create("a cat"), create(size="64x64"), create(replica=1),
                 create(extra_headers={"x-a": "b"}), create(extra_body={"new": 1}), create(n=1)]  # fmt: skip
        replies = run(flavor, server, http_backend, store, *calls, *calls)
        assert server.posts == len(calls)
        assert [one.meta.cached for one in replies] == [False] * 7 + [True] * 7
        run(flavor, server, http_backend, store, create(), base_url=server.origin + "/v2")
        assert server.posts == 8


def test_what_makes_no_other_request(flavor: Any, http_backend: str, store: Any, tmp_path: Path) -> None:
    """Keys, organisations, and names of files are not what is asked for."""
    (tmp_path / "a.png").write_bytes(picture())
    (tmp_path / "b.png").write_bytes(picture())

    def edit(image: Any) -> Any:
        return lambda service: service.create_image_edit(image, "add a hat")

    with WireServer(reply(200, answer())) as server:
        run(flavor, server, http_backend, store, create(), edit(tmp_path / "a.png"))
        run(
            flavor, server, http_backend, store,
            create(), edit(tmp_path / "b.png"), edit(picture()),
            create(extra_headers={"x-api-key": "other-key"}),
            api_key="sk-another-key-of-mine", organization="org", project="p",
        )  # fmt: skip
        assert server.posts == 2
        run(flavor, server, http_backend, store, edit(picture("PNG", (9, 9))))
        assert server.posts == 3


def test_a_hit_needs_no_key(flavor: Any, http_backend: str, store: Any) -> None:
    with WireServer(reply(200, answer())) as server:
        run(flavor, server, http_backend, store, create())
        run(flavor, server, http_backend, store, create(), api_key=None, base_url=server.base_url)
        assert server.posts == 1


def test_after_prepare(flavor: Any, http_backend: str, store: Any) -> None:
    """The key is that of the request as plugins have made it."""
    from dataclasses import replace

    class Lower:
        @imgkit.hookimpl
        def imgkit_prepare(self, request: Any) -> Any:
            return replace(request, prompt=request.prompt.lower())

    with WireServer(reply(200, answer())) as server:
        run(
            flavor,
            server,
            http_backend,
            store,
            create("A FOX"),
            create("a fox"),
            plugins=[Lower(), CachePlugin(store)],
        )
        assert server.posts == 1


def test_refresh_only_off(flavor: Any, http_backend: str, store: Any) -> None:
    colours = iter(["red", "green", "blue", "white"])

    def script(line: Line) -> None:
        data = encoded(picture("PNG", (8, 8), next(colours)))
        reply(200, {"data": [{"b64_json": data}]})(line)

    with WireServer(script) as server:
        made = run(
            flavor, server, http_backend, store,
            create(), create(cache="refresh"), create(cache="only"), create(cache="off"), create(cache="use"),
        )  # fmt: skip
        assert server.posts == 3
        red, green, blue = (picture("PNG", (8, 8), flavor) for flavor in ("red", "green", "blue"))
        assert [one[0].data for one in made] == [red, green, green, blue, green]
        with pytest.raises(imgkit.CacheMissError, match="has no reply"):
            run(flavor, server, http_backend, store, create("a cat", cache="only"))
        run(flavor, server, http_backend, store, create("a cat"))  # nobody holds its lease
        assert server.posts == 4


@pytest.mark.parametrize(
    "wrong", [{"cache": "yes"}, {"cache": 3}, {"replica": -1}, {"replica": True}, {"replica": "1"}]
)
def test_wrong_arguments(flavor: Any, wrong: Any) -> None:
    with pytest.raises(imgkit.InvalidRequestError) as caught:
        flavor.run(lambda service: service.create_image("a fox", **wrong))
    assert list(caught.value.fields) == list(wrong)


def test_only_without_a_cache(flavor: Any) -> None:
    with pytest.raises(imgkit.ConfigurationError, match=r'plugins=\["cache"\]'):
        flavor.run(lambda service: service.create_image("a fox", cache="only"))


def test_failures_are_not_kept(flavor: Any, http_backend: str, store: Any) -> None:
    scripts = [reply(500, {"error": {"message": "x"}}), drop, reply(200, b"{}"), reply(200, answer())]
    with WireServer(*scripts) as server:
        for kind in (imgkit.ServerError, imgkit.OutcomeUnknownError, imgkit.EmptyResultError):
            with pytest.raises(kind) as caught:
                run(flavor, server, http_backend, store, create())
            assert not getattr(caught.value, "__notes__", [])
        (made,) = run(flavor, server, http_backend, store, create())
        assert not made.meta.cached
        assert server.posts == 4


def test_damaged_replies_are_not_kept(flavor: Any, http_backend: str, store: Any) -> None:
    cut = {"data": [{"b64_json": encoded(noise(1)[:-50])}]}
    half = {"data": [{"b64_json": encoded()}, {"b64_json": "!!!!"}]}
    with WireServer(reply(200, cut), reply(200, half), reply(200, answer())) as server:
        replies = run(flavor, server, http_backend, store, create(), create(), create(), create())
        assert server.posts == 3
    assert [one.meta.cached for one in replies] == [False, False, False, True]
    assert ["not kept" in " ".join(one.warnings) for one in replies] == [True, True, False, False]


def test_pictures_at_urls_are_kept_once_they_are_here(flavor: Any, http_backend: str, tmp_path: Path) -> None:
    """Signed URLs do not go into the cache, nor into what comes out of it."""
    store = FolderStore(tmp_path / "cache")

    def script(line: Line) -> None:
        if line.request_line.startswith("GET"):
            reply(200, picture(), content_type="image/png")(line)
        else:
            link = f"{server.origin}/x.png?sig=SECRET"
            reply(200, {"data": [{"url": link, "more": link}]})(line)

    with WireServer(script) as server:
        first, second = run(flavor, server, http_backend, store, create(), create())
        assert len(server.lines) == 2
    assert first[0].data == second[0].data == picture()
    assert "SECRET" in (first[0].url or "")
    assert second[0].url is None
    everything = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"SECRET" not in everything
    assert KEY.encode() not in everything


def test_pictures_that_cannot_be_fetched(flavor: Any, http_backend: str, store: Any) -> None:
    """The caller has the URL, and is told; nothing is kept."""

    def script(line: Line) -> None:
        if line.request_line.startswith("GET"):
            reply(404)(line)
        else:
            reply(200, {"data": [{"url": f"{server.origin}/x.png"}]})(line)

    with WireServer(script) as server:
        (made,) = run(flavor, server, http_backend, store, create())
        assert made[0].url == f"{server.origin}/x.png"
        assert "not kept in the cache" in made.warnings[0]
        run(flavor, server, http_backend, store, create())
        assert server.posts == 2


class Broken:
    def __init__(self, *wrong: str) -> None:
        self._wrong = wrong
        self._store = MemoryStore()

    def _do(self, what: str, *args: Any, **more: Any) -> Any:
        if what in self._wrong:
            raise RuntimeError("the store is gone")
        return getattr(self._store, what)(*args, **more)

    def try_lease(self, key: str, **more: Any) -> Any:
        return self._do("try_lease", key, **more)

    def commit(self, lease: Any, entry: Any) -> None:
        self._do("commit", lease, entry)

    def abandon(self, lease: Any, failure: Any = None) -> None:
        self._do("abandon", lease, failure)


@pytest.mark.parametrize("wrong", [("try_lease",), ("commit",), ("abandon", "commit")])
def test_a_cache_that_fails_costs_no_picture(flavor: Any, http_backend: str, wrong: tuple[str, ...]) -> None:
    with WireServer(reply(200, answer())) as server:
        (made,) = run(flavor, server, http_backend, Broken(*wrong), create())
        assert made[0].data == picture()
        assert "the store is gone" in made.warnings[0]
    with WireServer(drop) as server, pytest.raises(imgkit.OutcomeUnknownError):
        run(flavor, server, http_backend, Broken("abandon"), create())


def test_only_with_a_cache_that_fails(flavor: Any, http_backend: str) -> None:
    with WireServer(drop) as server:
        with pytest.raises(imgkit.CacheMissError, match="the store is gone"):
            run(flavor, server, http_backend, Broken("try_lease"), create(cache="only"))
        assert server.accepted == 0


def test_something_that_is_no_store() -> None:
    class Wrong:
        @imgkit.hookimpl
        def imgkit_cache(self, settings: Any) -> Any:
            return {}

    with pytest.raises(imgkit.PluginError, match="no CacheStore"):
        imgkit.ImageService(plugins=[Wrong()])
    with pytest.raises(imgkit.ConfigurationError, match="no CacheStore"):
        CachePlugin({})  # type: ignore[arg-type]  # that is the point
    with pytest.raises(imgkit.ConfigurationError, match="not both"):
        CachePlugin(MemoryStore(), folder="x")
    for wrong in ({"max_bytes": 0}, {"max_age_s": 0}, {"max_age_s": "x"}):
        with pytest.raises(imgkit.ConfigurationError, match=next(iter(wrong))):
            CachePlugin(**wrong)  # type: ignore[arg-type]  # that is the point


def test_where_the_folder_is(tmp_path: Path, monkeypatch: Any) -> None:
    """In the state folder, else where the user keeps caches; two services share it."""
    for folder, settings in ((tmp_path / "home/cache", {"state_folder": tmp_path / "home"}),
                             (tmp_path / "user/imgkit", {})):  # fmt: skip
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
        for cached in (False, True):
            with imgkit.ImageService(plugins=["cache"], **settings) as service:
                assert service.create_image("a fox", size="64x64").meta.cached is cached
        assert FolderStore(folder).index.rows()[0].prompt == "a fox"


def test_the_seed_is_a_part_of_the_request(store: Any) -> None:
    for seed, cached in ((1, False), (2, False), (1, True)):
        with imgkit.ImageService(plugins=[CachePlugin(store)], client_options={"seed": seed}) as service:
            assert service.create_image("a fox", size="64x64").meta.cached is cached


def test_plugins_added_later(store: Any) -> None:
    """A cache may come and go; calls that run keep what they began with."""
    with imgkit.ImageService() as service:
        one = CachePlugin(store)
        for cached in (False, True):
            service.plugins.add(one)
            assert service.create_image("a fox", size="64x64").meta.cached is cached
            service.plugins.remove(one)
        assert service.create_image("a fox", size="64x64").meta.cached is False


def test_a_preview_asks_no_cache(store: Any) -> None:

    with imgkit.ImageService(plugins=[CachePlugin(store)]) as service:
        service.create_image("a fox", size="64x64")
        assert "POST" in service.dry_run("create_image", "a fox", size="64x64")
        assert "POST" in service.dry_run("create_image", "a cat", size="64x64", cache="only")
        assert service.create_image("a cat", size="64x64", timeout_s=5).meta.cached is False


@pytest.mark.parametrize("error", [
    imgkit.ServerError("m", status=500, code="c", request_id="r", retry_after_s=2.0),
    imgkit.ModerationBlockedError("m", status=400, stage="input", categories=("a", "b")),
    imgkit.OutcomeUnknownError("m", request_id="r", spool_path="/x", status=504),
    imgkit.UnreadableReplyError("m", body=b"x" * 100),
    imgkit.InvalidRequestError({"n": "is wrong"}),
    imgkit.PluginError("m", plugin="p", distribution="d", hook="h"),
    imgkit.NotSentError("m", permanent=True),
], ids=lambda error: type(error).__name__)  # fmt: skip
def test_errors_of_others(error: Any) -> None:
    """An error comes back as it was, but for what had arrived, and says whose it is."""
    failure = to_failure(error)
    again = from_failure(Failure(**json.loads(json.dumps(vars_of(failure)))))
    assert type(again) is type(error)
    assert str(again) == str(error)
    expected = {**vars(error), **({"body": b""} if hasattr(error, "body") and error.body else {})}
    assert {name: value for name, value in vars(again).items() if name != "__notes__"} == {
        name: value for name, value in expected.items() if name != "__notes__"
    }
    assert "another call" in again.__notes__[0]


def vars_of(failure: Failure) -> dict[str, Any]:
    return {"error": failure.error, "message": failure.message, "facts": dict(failure.facts)}


def test_an_unknown_error() -> None:
    assert type(from_failure(Failure("NoSuchError", "m"))) is imgkit.ImgkitError
    assert type(from_failure(Failure("Any", "m"))) is imgkit.ImgkitError
