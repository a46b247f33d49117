"""The recorder: cassettes from any backend, under both services, without vcrpy."""

from __future__ import annotations

import json
import stat
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import imgkit
from imgkit.cli.run import run
from imgkit.core.recording import record_traffic
from imgkit.default_plugins.recorder import RecorderPlugin
from imgkit.errors import NotSentError, PluginWarning
from imgkit.plugins.protocols import Exchanged
from imgkit.plugins.resources import Resource
from imgkit.plugins.table import PluginSource
from imgkit.runtime.flow import EffectFailed, Finished, ReadChunk, RunBlocking, SendRequest, advance
from imgkit.testing import canary
from imgkit.testing.samples import answer, png
from imgkit.testing.wire_server import WireServer, raw, reply
from imgkit.wire.messages import BytesBody, Head, HttpRequest
from tests.support.event_streams import completed, event, partial, streamed
from tests.support.processes import run_process, start_process
from tests.testing.test_vcr_config import BIG, CALLS, make_call, play, send_private_data

EYJ = "eyJ" + "a" * 30 + "." + "b" * 30 + ".c"


def record(path: Path, backend: Any, base_url: str, names: Any, **options: Any) -> list[Any]:
    """Run the named calls with a recorder; return their outcomes."""
    options = {"plugins": [RecorderPlugin(path)], "retry": False, **options}
    with imgkit.ImageService(backend, base_url=base_url, api_key=canary.KEY, **options) as service:
        return [make_call(service, name) for name in names]


def replay_offline(path: Path, names: Any) -> list[Any]:
    """Replay the named calls with the offline backend; return their outcomes."""
    with imgkit.ImageService(fixtures=path, retry=False) as service:
        return [make_call(service, name) for name in names]


@pytest.mark.parametrize("backend", ["requests", "aiohttp"])
def test_every_backend_replays_a_recording(backend: str, tmp_path: Path) -> None:
    """Both HTTP backends and the offline backend replay large edits, URLs, downloads and errors."""
    path = tmp_path / "c.yaml"
    with WireServer(send_private_data) as server:
        base_url = server.base_url
        outcomes = record(path, backend, base_url, CALLS, organization="org-SECRET")
    expected = dict(zip(CALLS, outcomes, strict=True))
    names = list(reversed(CALLS))
    assert replay_offline(path, names) == [expected[name] for name in names]
    for player in ("requests", "aiohttp"):
        assert play(path, player, base_url, names, "none") == [expected[name] for name in names]
    assert run(["cassette", "check", str(tmp_path)]) == 0
    assert canary.find_secret(folders=[tmp_path]) == []
    assert all(b"SECRET" not in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_the_same_file_as_vcrpy_writes(tmp_path: Path) -> None:
    """Writes the entries that vcrpy writes, except for headers that the HTTP library adds."""
    with WireServer(send_private_data) as server:
        base_url = server.base_url
        record(tmp_path / "ours.yaml", "requests", base_url, CALLS)
        play(tmp_path / "vcr.yaml", "requests", base_url, CALLS, "all")
    ours, theirs = (yaml.safe_load((tmp_path / name).read_text()) for name in ("ours.yaml", "vcr.yaml"))
    assert ours["version"] == theirs["version"] == 1
    for here, there in zip(ours["interactions"], theirs["interactions"], strict=True):
        assert here["response"]["body"] == there["response"]["body"]
        assert here["response"]["status"]["code"] == there["response"]["status"]["code"]
        for key in ("method", "uri"):
            assert here["request"][key] == there["request"][key]
        assert (here["request"]["body"] or "") == (there["request"]["body"] or "")
        assert (
            here["request"]["headers"].items()
            <= {
                name.lower(): value if isinstance(value, list) else [value]
                for name, value in there["request"]["headers"].items()
            }.items()
        )
    folders = (tmp_path / "ours.yaml.files", tmp_path / "vcr.yaml.files")
    assert len({tuple(sorted(path.name for path in folder.iterdir())) for folder in folders}) == 1


def test_both_services_and_any_backend(flavor: Any, tmp_path: Path) -> None:
    """Records any backend under both services; the offline backend stands in for a custom one."""
    path = tmp_path / "c.yaml"
    plugins = [RecorderPlugin(path)]
    response = flavor.run(lambda service: service.create_image("a fox", size="64x64"), plugins=plugins)
    assert response.warnings == ()
    with imgkit.ImageService(fixtures=path) as service:
        assert service.create_image("a fox", size="64x64")[0].data == response[0].data


def test_the_recorder_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Reads the cassette's path from IMGKIT_CASSETTE if the recorder is given by name."""
    with pytest.raises(imgkit.ConfigurationError, match="IMGKIT_CASSETTE"):
        imgkit.ImageService(plugins=["recorder"])
    monkeypatch.setenv("IMGKIT_CASSETTE", str(tmp_path / "new/c.yaml"))
    with imgkit.ImageService(plugins=["recorder"]) as service:
        service.create_image("a fox", size="64x64")
    assert (tmp_path / "new/c.yaml").is_file()


def test_retries_replay_in_order(tmp_path: Path) -> None:
    """Replays a 429 and then the image, also after another service appends to the cassette."""
    path = tmp_path / "c.yaml"
    slow = reply(429, {"error": {"message": "slow down", "code": "rate_limit_exceeded"}}, retry_after="0")
    with WireServer(slow, reply(200, answer(png(1))), reply(200, answer(png(2)))) as server:
        record(path, "requests", server.base_url, ["create"], retry=True)
        record(path, "aiohttp", server.base_url, ["create"])
    path.write_text(path.read_text().replace("- '0'", "- '100'"))
    with imgkit.ImageService(fixtures=path) as service:
        first = service.create_image("a fox")
        assert [attempt.status for attempt in first.meta.attempts] == [429, 200]
        assert first[0].data == png(1)
        assert service.create_image("a fox")[0].data == png(2)


def test_rewriting_keeps_the_comment(tmp_path: Path) -> None:
    """Keeps the comment at the top of a cassette that is appended to or rewritten."""
    path = tmp_path / "c.yaml"
    with WireServer(send_private_data) as server:
        record(path, "requests", server.base_url, ["big", "create"])
        path.write_text("# from a test\n" + path.read_text())
        record(path, "requests", server.base_url, ["wrong"])
        assert path.read_text().startswith("# from a test\ninteractions:")
        record(path, "requests", server.base_url, ["create"], plugins=[RecorderPlugin(path, rewrite=True)])
    assert path.read_text().startswith("# from a test\ninteractions:")
    assert len(yaml.safe_load(path.read_text())["interactions"]) == 1
    assert BIG not in [path.read_bytes() for path in tmp_path.rglob("*.png")]


def test_without_vcrpy(tmp_path: Path) -> None:
    """Records without vcrpy installed."""
    path = tmp_path / "c.yaml"
    program = (
        "import sys; sys.modules['vcr'] = None; import imgkit; from imgkit import RecorderPlugin; "
        f"s = imgkit.ImageService(plugins=[RecorderPlugin({str(path)!r})]); "
        "print(s.create_image('a fox', size='64x64').warnings)"
    )
    done = run_process([sys.executable, "-c", program], capture_output=True, text=True, timeout=50)
    assert done.stdout == "()\n", done.stderr
    assert replay_offline(path, []) == []


def test_a_key_in_a_reply_is_refused(tmp_path: Path) -> None:
    """Delivers the image with a warning, and puts the refused recording into a new private file."""
    path = tmp_path / "c.yaml"
    with WireServer(reply(200, {**answer(), "note": EYJ})) as server:
        with imgkit.ImageService(
            "requests", base_url=server.base_url, plugins=[RecorderPlugin(path)]
        ) as service:
            for _ in range(2):
                response = service.create_image("a fox")
                assert response[0].width == 8
                (warning,) = response.warnings
                assert "looks like a key" in warning
                assert EYJ not in warning
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.yaml.refused", "c.yaml.refused-2"]
    for path in tmp_path.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert EYJ in path.read_text()


def test_a_key_in_an_svg(tmp_path: Path) -> None:
    """Finds keys in SVG images too, and keeps them in the refused recording."""
    path = tmp_path / "c.yaml"
    drawing = f"<svg xmlns='http://www.w3.org/2000/svg'><text>{EYJ}</text>{' ' * 600}</svg>".encode()
    with WireServer(reply(200, answer(drawing))) as server:
        assert record(path, "requests", server.base_url, ["create"]) == [[drawing]]
    assert not path.exists()
    assert not (tmp_path / "c.yaml.files").exists()
    assert (tmp_path / "c.yaml.refused").is_file()


def test_an_unwritable_cassette(flavor: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Delivers the reply and saves the recording to a temporary folder if its path is not writable."""
    aside = tmp_path / "aside"
    aside.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(aside))
    (tmp_path / "file").write_text("")
    path = tmp_path / "file/c.yaml"
    with WireServer(reply(200, answer(BIG))) as server:
        response = flavor.run(
            lambda service: service.create_image("a fox"),
            "requests",
            base_url=server.base_url,
            plugins=[RecorderPlugin(path)],
        )
    assert response[0].data == BIG
    (warning,) = response.warnings
    (folder,) = aside.iterdir()
    assert str(folder) in warning
    with imgkit.ImageService(fixtures=folder / "c.yaml") as service:
        assert service.create_image("a fox")[0].data == BIG


def test_a_broken_reply_is_not_recorded(tmp_path: Path) -> None:
    """Records nothing of a reply that is cut."""
    path = tmp_path / "c.yaml"
    half = raw(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{")
    with WireServer(half) as server:
        with imgkit.ImageService(
            "requests", base_url=server.base_url, plugins=[RecorderPlugin(path)], retry=False
        ) as service:
            with pytest.raises(imgkit.OutcomeUnknownError):
                service.create_image("a fox")
    assert not path.exists()


def test_concurrent_recordings(tmp_path: Path) -> None:
    """Two processes with four threads each record every call."""
    program = (
        "import sys, imgkit; from concurrent.futures import ThreadPoolExecutor\n"
        "from imgkit import RecorderPlugin\n"
        f"s = imgkit.ImageService(plugins=[RecorderPlugin({str(tmp_path / 'c.yaml')!r})])\n"
        "ask = lambda n: s.create_image(f'{sys.argv[1]} {n}', size='16x16').warnings\n"
        "assert set(ThreadPoolExecutor(4).map(ask, range(6))) == {()}\n"
    )
    running = [start_process([sys.executable, "-W", "error", "-c", program, name]) for name in "ab"]
    assert [process.wait(50) for process in running] == [0, 0]
    interactions = yaml.safe_load((tmp_path / "c.yaml").read_text())["interactions"]
    assert len(interactions) == 12
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_each_part_is_recorded(flavor: Any, tmp_path: Path) -> None:
    """Records each request of a call that is split into parts."""
    path = tmp_path / "c.yaml"
    options = {"size": "16x16", "n": 14}
    with WireServer(*[reply_with_n] * 2) as server:
        response = flavor.run(
            lambda service: service.create_image("a fox", **options),
            "requests",
            base_url=server.base_url,
            plugins=[RecorderPlugin(path)],
        )
        assert server.posts == 2
    again = flavor.run(lambda service: service.create_image("a fox", **options), fixtures=path)
    assert len(response) == 14
    assert sorted(image.data for image in again) == sorted(image.data for image in response)


def reply_with_n(line: Any) -> None:
    """Reply with as many images as the request asks for."""
    count = json.loads(line.body)["n"]
    reply(200, answer(*(png(count * 100 + number) for number in range(count))))(line)


class ExchangeLog:
    """A recorder that keeps its exchanges, or fails."""

    def __init__(self, error: Exception | None = None) -> None:
        self.exchanges: list[Exchanged] = []
        self.error = error

    def record(self, exchanged: Exchanged) -> None:
        self.exchanges.append(exchanged)
        if self.error is not None:
            raise self.error


REQUEST = HttpRequest("POST", "http://h/v1", {"authorization": "Bearer x", "x-own": "1"}, BytesBody(b"{}"))


def run_flow(recorder: ExchangeLog, *results: Any) -> Any:
    """Step a flow of two requests that reads only the second reply."""

    def plan() -> Any:
        yield SendRequest(REQUEST)
        yield SendRequest(REQUEST)
        while chunk := (yield ReadChunk()):
            assert chunk
        return "made"

    flow = record_traffic(plan(), [Resource(PluginSource("p"), recorder)])
    remaining = iter(results)
    effect = advance(flow, None)
    while not isinstance(effect, Finished):
        if isinstance(effect, RunBlocking):
            try:
                effect = advance(flow, effect.fn())
            except imgkit.ImgkitError as error:
                effect = advance(flow, EffectFailed(error))
        else:
            effect = advance(flow, next(remaining))
    return effect.value


def test_an_unread_reply_is_recorded_without_body() -> None:
    """Records an unread reply without its body, and no key in any request."""
    log = ExchangeLog()
    assert run_flow(log, Head(302, {}), Head(200, {}), b"a", b"b", b"") == "made"
    assert [(exchange.head.status, exchange.reply) for exchange in log.exchanges] == [
        (302, b""),
        (200, b"ab"),
    ]
    assert all(exchange.request.headers == {"x-own": "1"} for exchange in log.exchanges)


def test_transport_errors_pass_the_recorder() -> None:
    """A transport error passes the recorder unchanged."""
    log = ExchangeLog()
    with pytest.raises(NotSentError) as caught:
        run_flow(log, Head(302, {}), EffectFailed(NotSentError("no")))
    assert [exchange.head.status for exchange in log.exchanges] == [302]
    assert not hasattr(caught.value, "__notes__")


@pytest.mark.parametrize("error", [RuntimeError("bug"), imgkit.SaveError("full")])
def test_a_failing_recorder_costs_a_warning(error: Exception) -> None:
    """A recorder that fails without a reply to warn in costs a Python warning; the call goes on."""
    with pytest.warns(PluginWarning, match="bug|full") as caught:
        assert run_flow(ExchangeLog(error), Head(200, {}), Head(200, {}), b"") == "made"
    assert len(caught) == 2


def test_wrong_arguments() -> None:
    """Refuses cassettes that are no path and a rewrite that is no bool."""
    wrong: tuple[dict[str, Any], ...] = (
        {"cassette": 3},
        {"cassette": ""},
        {"cassette": "c.yaml", "rewrite": "yes"},
    )
    for options in wrong:
        with pytest.raises(imgkit.ConfigurationError):
            RecorderPlugin(**options)


class LengthRecorder:
    """A custom recorder of methods, statuses and lengths of replies."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, int, int]] = []

    @imgkit.hookimpl
    def imgkit_recorder(self, settings: Any) -> Any:
        return self

    def record(self, exchanged: Exchanged) -> None:
        self.lines.append((exchanged.request.method, exchanged.head.status, len(exchanged.reply)))


def test_a_custom_recorder(flavor: Any, http_backend: str) -> None:
    """The hook takes any recorder, which sees errors as well as images."""
    recorder = LengthRecorder()
    with WireServer(reply(200, answer()), reply(400, {"error": {"message": "no"}})) as server:
        settings = {"base_url": server.base_url, "plugins": [recorder]}
        flavor.run(lambda service: service.create_image("a fox"), http_backend, **settings)
        with pytest.raises(imgkit.BadRequestError):
            flavor.run(lambda service: service.create_image("a fox"), http_backend, **settings)
    assert [line[:2] for line in recorder.lines] == [("POST", 200), ("POST", 400)]
    assert recorder.lines[0][2] == len(json.dumps(answer()))


@pytest.mark.parametrize(
    "last", [completed() + b"data: [DONE]\n\n: never read\n\n", event({"type": "error", "message": "boom"})]
)
def test_recording_ends_with_the_stream(http_backend: str, tmp_path: Path, last: bytes) -> None:
    """Records a stream up to ``[DONE]`` or an error event, and replays it to there."""
    path = tmp_path / "c.yaml"

    def read(**options: Any) -> list[str]:
        with imgkit.ImageService(**options, retry=False) as service:
            try:
                with service.stream_image("a fox") as events:
                    return [type(item).__name__ for item in events]
            except imgkit.ApiError as error:
                return [str(error).partition("boom")[1]]

    with WireServer(streamed(partial(), last)) as server:
        first = read(backend=http_backend, base_url=server.base_url, plugins=[imgkit.RecorderPlugin(path)])
    assert first in (["PartialImage", "Completed"], ["boom"])
    assert read(fixtures=path) == first
