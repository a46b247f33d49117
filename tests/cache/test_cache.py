"""Calls through a cache send equal requests once, for all callers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import imgkit
from imgkit import CachePlugin
from imgkit.cache.folder import FolderStore
from imgkit.cache.memory import MemoryStore
from imgkit.core.cache_entries import from_failure, is_whole, to_entry, to_failure
from imgkit.plugins.events import CacheHit, Sent, Succeeded
from imgkit.plugins.protocols import Failure
from imgkit.providers.base import DecodedImage, DecodedImages
from imgkit.wire.messages import Head
from tests.support.pictures import answer, encoded, noise, picture
from tests.support.wire_server import Line, WireServer, drop, reply

KEY = "sk-test-CANARY-1234567890abcdef"


class Spy:
    """A plugin that collects events."""

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


def call_in_turn(flavor: Any, calls: list[Any]) -> Any:
    """Return a function that makes the calls in turn with a service of this flavor."""
    if flavor.flavor == "sync":
        return lambda service: [call(service) for call in calls]

    async def work(service: Any) -> list[Any]:
        return [await call(service) for call in calls]

    return work


def run(flavor: Any, server: WireServer, backend: str, store: Any, *calls: Any, **options: Any) -> Any:
    """Make the calls with a new service; return their responses."""
    settings = {
        "base_url": server.base_url, "api_key": KEY, "timeout_s": 10, "plugins": [CachePlugin(store)],
        **options,
    }  # fmt: skip
    return flavor.run(call_in_turn(flavor, list(calls)), backend, **settings)


def create(prompt: str = "a fox", **more: Any) -> Any:
    """Return a function that creates an image."""
    return lambda service: service.create_image(prompt, **more)


def test_sends_equal_request_once(flavor: Any, http_backend: str, store: Any) -> None:
    """Returns the cached response for an equal request, with its fields and its request id."""
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


def test_changed_requests_are_sent(flavor: Any, http_backend: str, store: Any) -> None:
    """Sends a request that differs in any field or in its URL."""
    with WireServer(reply(200, answer())) as server:
        calls = [create(), create("a cat"), create(size="64x64"), create(replica=1),
                 create(extra_headers={"x-a": "b"}), create(extra_body={"new": 1}), create(n=1)]  # fmt: skip
        replies = run(flavor, server, http_backend, store, *calls, *calls)
        assert server.posts == len(calls)
        assert [one.meta.cached for one in replies] == [False] * 7 + [True] * 7
        run(flavor, server, http_backend, store, create(), base_url=server.origin + "/v2")
        assert server.posts == 8


def test_key_ignores_credentials_and_file_names(
    flavor: Any, http_backend: str, store: Any, tmp_path: Path
) -> None:
    """Ignores API keys, organizations and file names in the cache key."""
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


def test_hit_needs_no_api_key(flavor: Any, http_backend: str, store: Any) -> None:
    """Returns a hit without an API key."""
    with WireServer(reply(200, answer())) as server:
        run(flavor, server, http_backend, store, create())
        run(flavor, server, http_backend, store, create(), api_key=None, base_url=server.base_url)
        assert server.posts == 1


def test_key_follows_prepare_hooks(flavor: Any, http_backend: str, store: Any) -> None:
    """Computes the cache key from the request that the `prepare` hooks return."""
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


def test_cache_modes(flavor: Any, http_backend: str, store: Any) -> None:
    """Applies the modes refresh, only, off and use."""
    colors = iter(["red", "green", "blue", "white"])

    def script(line: Line) -> None:
        data = encoded(picture("PNG", (8, 8), next(colors)))
        reply(200, {"data": [{"b64_json": data}]})(line)

    with WireServer(script) as server:
        response = run(
            flavor, server, http_backend, store,
            create(), create(cache="refresh"), create(cache="only"), create(cache="off"), create(cache="use"),
        )  # fmt: skip
        assert server.posts == 3
        red, green, blue = (picture("PNG", (8, 8), flavor) for flavor in ("red", "green", "blue"))
        assert [one[0].data for one in response] == [red, green, green, blue, green]
        with pytest.raises(imgkit.CacheMissError, match="has no reply"):
            run(flavor, server, http_backend, store, create("a cat", cache="only"))
        run(flavor, server, http_backend, store, create("a cat"))
        assert server.posts == 4


@pytest.mark.parametrize(
    "wrong", [{"cache": "yes"}, {"cache": 3}, {"replica": -1}, {"replica": True}, {"replica": "1"}]
)
def test_rejects_wrong_arguments(flavor: Any, wrong: Any) -> None:
    """Rejects a wrong cache mode or replica by its field name."""
    with pytest.raises(imgkit.InvalidRequestError) as caught:
        flavor.run(lambda service: service.create_image("a fox", **wrong))
    assert list(caught.value.fields) == list(wrong)


def test_only_mode_needs_a_cache(flavor: Any) -> None:
    """Rejects the mode only without a cache."""
    with pytest.raises(imgkit.ConfigurationError, match=r'plugins=\["cache"\]'):
        flavor.run(lambda service: service.create_image("a fox", cache="only"))


def test_does_not_store_failures(flavor: Any, http_backend: str, store: Any) -> None:
    """Sends the request again after a failure."""
    scripts = [
        reply(500, {"error": {"message": "x", "code": "server_error"}}),
        drop,
        reply(200, b"{}"),
        reply(200, answer()),
    ]
    with WireServer(*scripts) as server:
        for error_class in (imgkit.ServerError, imgkit.OutcomeUnknownError, imgkit.EmptyResultError):
            with pytest.raises(error_class) as caught:
                run(flavor, server, http_backend, store, create())
            assert not getattr(caught.value, "__notes__", [])
        (response,) = run(flavor, server, http_backend, store, create())
        assert not response.meta.cached
        assert server.posts == 4


def test_does_not_store_damaged_replies(flavor: Any, http_backend: str, store: Any) -> None:
    """Sends the request again after a damaged reply, and warns."""
    cut = {"data": [{"b64_json": encoded(noise(1)[:-50])}]}
    half = {"data": [{"b64_json": encoded()}, {"b64_json": "!!!!"}]}
    with WireServer(reply(200, cut), reply(200, half), reply(200, answer())) as server:
        replies = run(flavor, server, http_backend, store, create(), create(), create(), create())
        assert server.posts == 3
    assert [one.meta.cached for one in replies] == [False, False, False, True]
    assert ["not kept" in " ".join(one.warnings) for one in replies] == [True, True, False, False]


def test_only_whole_images_make_an_entry() -> None:
    """Takes an image that is cut off for damaged, whether or not its provider says so."""
    whole = DecodedImage(data=noise(1))
    assert is_whole(DecodedImages(pictures=(whole, whole)))
    for damaged in (noise(1)[:-50], b"", None):
        assert not is_whole(DecodedImages(pictures=(whole, DecodedImage(data=damaged))))


def test_stores_downloaded_images_without_urls(flavor: Any, http_backend: str, tmp_path: Path) -> None:
    """Stores downloaded images, and keeps signed URLs out of the cache."""
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


def test_does_not_store_undownloaded_images(flavor: Any, http_backend: str, store: Any) -> None:
    """Warns and stores nothing if an image cannot be downloaded."""

    def script(line: Line) -> None:
        if line.request_line.startswith("GET"):
            reply(404)(line)
        else:
            reply(200, {"data": [{"url": f"{server.origin}/x.png"}]})(line)

    with WireServer(script) as server:
        (response,) = run(flavor, server, http_backend, store, create())
        assert response[0].url == f"{server.origin}/x.png"
        (warning,) = response.warnings
        assert warning.startswith("The reply was not kept in the cache: ")
        assert "HTTP 404" in warning
        run(flavor, server, http_backend, store, create())
        assert server.posts == 2


class BrokenStore:
    """A cache store whose given methods fail."""

    def __init__(self, *failing: str) -> None:
        self._failing = failing
        self._store = MemoryStore()

    def _forward(self, method: str, *args: Any, **more: Any) -> Any:
        if method in self._failing:
            raise RuntimeError("the store is gone")
        return getattr(self._store, method)(*args, **more)

    def try_lease(self, key: str, **more: Any) -> Any:
        return self._forward("try_lease", key, **more)

    def commit(self, lease: Any, entry: Any) -> None:
        self._forward("commit", lease, entry)

    def abandon(self, lease: Any, failure: Any = None) -> None:
        self._forward("abandon", lease, failure)


@pytest.mark.parametrize("wrong", [("try_lease",), ("commit",), ("abandon", "commit")])
def test_failing_cache_costs_no_image(flavor: Any, http_backend: str, wrong: tuple[str, ...]) -> None:
    """Returns the image and a warning if the cache fails."""
    with WireServer(reply(200, answer())) as server:
        (response,) = run(flavor, server, http_backend, BrokenStore(*wrong), create())
        assert response[0].data == picture()
        assert "the store is gone" in response.warnings[0]
    with WireServer(drop) as server, pytest.raises(imgkit.OutcomeUnknownError):
        run(flavor, server, http_backend, BrokenStore("abandon"), create())


def test_a_store_that_returns_no_result(flavor: Any, http_backend: str) -> None:
    """Goes on without a store that breaks its protocol, and says so."""

    class OddStore(BrokenStore):
        def try_lease(self, key: str, **more: Any) -> Any:
            return "a hit"

    with WireServer(reply(200, answer())) as server:
        (response,) = run(flavor, server, http_backend, OddStore(), create())
    assert response[0].data == picture()
    assert "try_lease returned a str" in response.warnings[0]


def test_an_entry_keeps_no_access() -> None:
    """Removes users and queries from the URLs of an entry, and leaves other text as it is."""
    extra = {"link": "https://user:pw@cdn.example/x?sig=1", "notes": ["Why? Because."]}
    decoded = DecodedImages(pictures=(DecodedImage(data=b"x"),), extra=extra)
    entry = to_entry(imgkit.CreateImageRequest(prompt="a fox"), None, Head(200, {}), decoded, 0.0)
    assert entry.facts["extra"] == {"link": "https://cdn.example/x?…", "notes": ["Why? Because."]}


def test_only_mode_fails_with_failing_cache(flavor: Any, http_backend: str) -> None:
    """Raises an error and sends nothing if the cache fails in the mode only."""
    with WireServer(drop) as server:
        with pytest.raises(imgkit.CacheMissError, match="the store is gone"):
            run(flavor, server, http_backend, BrokenStore("try_lease"), create(cache="only"))
        assert server.accepted == 0


def test_rejects_objects_that_are_no_store() -> None:
    """Rejects objects that are not a cache store, and invalid limits."""

    class Wrong:
        @imgkit.hookimpl
        def imgkit_cache(self, settings: Any) -> Any:
            return {}

    with pytest.raises(imgkit.PluginError, match="not a CacheStore"):
        imgkit.ImageService(plugins=[Wrong()])
    with pytest.raises(imgkit.ConfigurationError, match="not a CacheStore"):
        CachePlugin({})  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(imgkit.ConfigurationError, match="not both"):
        CachePlugin(MemoryStore(), folder="x")
    for wrong in ({"max_bytes": 0}, {"max_age_s": 0}, {"max_age_s": "x"}):
        with pytest.raises(imgkit.ConfigurationError, match=next(iter(wrong))):
            CachePlugin(**wrong)


def test_default_folder(tmp_path: Path, monkeypatch: Any) -> None:
    """Uses the state folder or the user's cache folder; two services share it."""
    cases: list[tuple[Path, Path | None]] = [
        (tmp_path / "home/cache", tmp_path / "home"),
        (tmp_path / "user/imgkit", None),
    ]
    for folder, state_folder in cases:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
        for cached in (False, True):
            with imgkit.ImageService(plugins=["cache"], state_folder=state_folder) as service:
                assert service.create_image("a fox", size="64x64").meta.cached is cached
        assert FolderStore(folder).index.rows()[0].prompt == "a fox"


def test_key_includes_seed(store: Any) -> None:
    """Includes the seed in the cache key."""
    for seed, cached in ((1, False), (2, False), (1, True)):
        with imgkit.ImageService(plugins=[CachePlugin(store)], client_options={"seed": seed}) as service:
            assert service.create_image("a fox", size="64x64").meta.cached is cached


def test_cache_can_be_added_and_removed(store: Any) -> None:
    """Uses a cache from its addition to its removal."""
    with imgkit.ImageService() as service:
        one = CachePlugin(store)
        for cached in (False, True):
            service.plugins.add(one)
            assert service.create_image("a fox", size="64x64").meta.cached is cached
            service.plugins.remove(one)
        assert service.create_image("a fox", size="64x64").meta.cached is False


def test_dry_run_uses_no_cache(store: Any) -> None:
    """Makes a dry run without a cache lookup."""
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
    imgkit.EmptyResultError("m", body=b"{}", job_id="t-1"),
], ids=lambda error: type(error).__name__)  # fmt: skip
def test_failure_restores_error(error: Any) -> None:
    """Restores an error without its body, and notes that another call raised it."""
    error.add_note("The received part is kept in /x.")
    failure = to_failure(error)
    again = from_failure(Failure(**json.loads(json.dumps(to_dict(failure)))))
    assert type(again) is type(error)
    assert str(again) == str(error)
    has_body = isinstance(error, imgkit.ApiError) or bool(getattr(error, "body", b""))
    expected = {**vars(error), **({"body": b""} if has_body else {})}
    assert {name: value for name, value in vars(again).items() if name != "__notes__"} == {
        name: value for name, value in expected.items() if name != "__notes__"
    }
    assert again.__notes__[0] == "The received part is kept in /x."
    assert "concurrent identical call" in again.__notes__[1]


def to_dict(failure: Failure) -> dict[str, Any]:
    return {"error": failure.error, "message": failure.message, "facts": dict(failure.facts)}


def test_unknown_failure_restores_base_error() -> None:
    """Restores an error of an unknown class as `ImgkitError`."""
    assert type(from_failure(Failure("NoSuchError", "m"))) is imgkit.ImgkitError
    assert type(from_failure(Failure("Any", "m"))) is imgkit.ImgkitError
