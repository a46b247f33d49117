"""The recorder: cassettes from any backend, under both services, without vcrpy and at no picture's price."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import imgkit
from imgkit.cli.run import run
from imgkit.core.recording import record_traffic
from imgkit.default_plugins.recorder import RecorderPlugin
from imgkit.errors import NotSentError
from imgkit.plugins.protocols import Exchanged
from imgkit.plugins.resources import Resource
from imgkit.plugins.table import PluginSource, PluginWarning
from imgkit.runtime.flow import EffectFailed, Finished, ReadChunk, RunBlocking, SendRequest, advance
from imgkit.testing import canary
from imgkit.testing.samples import answer, png
from imgkit.testing.wire_server import WireServer, raw, reply
from imgkit.wire.messages import BytesBody, Head, HttpRequest
from tests.support.event_streams import completed, event, partial, streamed
from tests.testing.test_vcr_config import BIG, CALLS, outcome, play, script

EYJ = "eyJ" + "a" * 30 + "." + "b" * 30 + ".c"


def record(path: Path, backend: Any, base_url: str, names: Any, **options: Any) -> list[Any]:
    options = {"plugins": [RecorderPlugin(path)], "retry": False, **options}
    with imgkit.ImageService(backend, base_url=base_url, api_key=canary.KEY, **options) as service:
        return [outcome(service, name) for name in names]


def offline(path: Path, names: Any) -> list[Any]:
    with imgkit.ImageService(fixtures=path, retry=False) as service:
        return [outcome(service, name) for name in names]


@pytest.mark.parametrize("backend", ["requests", "aiohttp"])
def test_what_is_recorded_is_replayed_by_all(backend: str, tmp_path: Path) -> None:
    """Large edits, URLs and the pictures fetched from them, errors; by both backends and the offline one."""
    path = tmp_path / "c.yaml"
    with WireServer(script) as server:
        base_url = server.base_url
        made = record(path, backend, base_url, CALLS, organization="org-SECRET")
    wanted = dict(zip(CALLS, made, strict=True))
    names = list(reversed(CALLS))
    assert offline(path, names) == [wanted[name] for name in names]
    for player in ("requests", "aiohttp"):
        assert play(path, player, base_url, names, "none") == [wanted[name] for name in names]
    assert run(["cassette", "check", str(tmp_path)]) == 0
    assert canary.found_in(folders=[tmp_path]) == []
    assert all(b"SECRET" not in one.read_bytes() for one in tmp_path.rglob("*") if one.is_file())


def test_the_same_file_as_vcrpy_writes(tmp_path: Path) -> None:
    """Entry by entry, but for headers that the HTTP library adds by itself."""
    with WireServer(script) as server:
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
    assert len({tuple(sorted(one.name for one in folder.iterdir())) for folder in folders}) == 1


def test_both_services_and_any_backend(flavor: Any, tmp_path: Path) -> None:
    """The offline backend stands for a stranger's: it has nothing to do with HTTP."""
    path = tmp_path / "c.yaml"
    plugins = [RecorderPlugin(path)]
    made = flavor.run(lambda service: service.create_image("a fox", size="64x64"), plugins=plugins)
    assert made.warnings == ()
    with imgkit.ImageService(fixtures=path) as service:
        assert service.create_image("a fox", size="64x64")[0].data == made[0].data


def test_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(imgkit.ConfigurationError, match="IMGKIT_CASSETTE"):
        imgkit.ImageService(plugins=["recorder"])
    monkeypatch.setenv("IMGKIT_CASSETTE", str(tmp_path / "new/c.yaml"))
    with imgkit.ImageService(plugins=["recorder"]) as service:
        service.create_image("a fox", size="64x64")
    assert (tmp_path / "new/c.yaml").is_file()


def test_retries_in_their_order(tmp_path: Path) -> None:
    """A 429, then the picture: the same on replay, also after another service has added to the cassette."""
    path = tmp_path / "c.yaml"
    slow = reply(429, {"error": {"message": "slow down", "code": "rate_limit_exceeded"}}, retry_after="1")
    with WireServer(slow, reply(200, answer(png(1))), reply(200, answer(png(2)))) as server:
        record(path, "requests", server.base_url, ["create"], retry=True)
        record(path, "aiohttp", server.base_url, ["create"])
    path.write_text(path.read_text().replace("- '1'", "- '100'"))
    with imgkit.ImageService(fixtures=path) as service:
        first = service.create_image("a fox")
        assert [one.status for one in first.meta.attempts] == [429, 200]
        assert first[0].data == png(1)
        assert service.create_image("a fox")[0].data == png(2)


def test_rewriting_keeps_the_comment(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    with WireServer(script) as server:
        record(path, "requests", server.base_url, ["big", "create"])
        path.write_text("# from a test\n" + path.read_text())
        record(path, "requests", server.base_url, ["wrong"])
        assert path.read_text().startswith("# from a test\ninteractions:")
        record(path, "requests", server.base_url, ["create"], plugins=[RecorderPlugin(path, rewrite=True)])
    assert path.read_text().startswith("# from a test\ninteractions:")
    assert len(yaml.safe_load(path.read_text())["interactions"]) == 1
    assert BIG not in [one.read_bytes() for one in tmp_path.rglob("*.png")]


def test_without_vcrpy(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    program = (
        "import sys; sys.modules['vcr'] = None; import imgkit; from imgkit import RecorderPlugin; "
        f"s = imgkit.ImageService(plugins=[RecorderPlugin({str(path)!r})]); "
        "print(s.create_image('a fox', size='64x64').warnings)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=50)
    assert done.stdout == "()\n", done.stderr
    assert offline(path, []) == []


def test_a_key_that_is_left(tmp_path: Path) -> None:
    """The picture arrives, with a warning; what is refused is put aside, each time anew."""
    path = tmp_path / "c.yaml"
    with WireServer(reply(200, {**answer(), "note": EYJ})) as server:
        with imgkit.ImageService(
            "requests", base_url=server.base_url, plugins=[RecorderPlugin(path)]
        ) as service:
            for _ in range(2):
                made = service.create_image("a fox")
                assert made[0].width == 8
                (told,) = made.warnings
                assert "looks like a key" in told
                assert EYJ not in told
    assert sorted(one.name for one in tmp_path.iterdir()) == ["c.yaml.refused", "c.yaml.refused-2"]
    for one in tmp_path.iterdir():
        assert stat.S_IMODE(one.stat().st_mode) == 0o600
        assert EYJ in one.read_text()


def test_a_key_in_an_svg(tmp_path: Path) -> None:
    """Pictures that are text are looked at too, and stay in what is refused."""
    path = tmp_path / "c.yaml"
    drawing = f"<svg xmlns='http://www.w3.org/2000/svg'><text>{EYJ}</text>{' ' * 600}</svg>".encode()
    with WireServer(reply(200, answer(drawing))) as server:
        assert record(path, "requests", server.base_url, ["create"]) == [[drawing]]
    assert not path.exists()
    assert not (tmp_path / "c.yaml.files").exists()
    assert (tmp_path / "c.yaml.refused").is_file()


def test_no_room_for_a_cassette(flavor: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file where the folder should be: the reply arrives, and the recording is in a temporary folder."""
    aside = tmp_path / "aside"
    aside.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(aside))
    (tmp_path / "file").write_text("")
    path = tmp_path / "file/c.yaml"
    with WireServer(reply(200, answer(BIG))) as server:
        made = flavor.run(
            lambda service: service.create_image("a fox"),
            "requests",
            base_url=server.base_url,
            plugins=[RecorderPlugin(path)],
        )
    assert made[0].data == BIG
    (told,) = made.warnings
    (folder,) = aside.iterdir()
    assert str(folder) in told
    with imgkit.ImageService(fixtures=folder / "c.yaml") as service:
        assert service.create_image("a fox")[0].data == BIG


def test_a_broken_reply_is_not_recorded(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    half = raw(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{")
    with WireServer(half) as server:
        with imgkit.ImageService(
            "requests", base_url=server.base_url, plugins=[RecorderPlugin(path)], retry=False
        ) as service:
            with pytest.raises(imgkit.OutcomeUnknownError):
                service.create_image("a fox")
    assert not path.exists()


def test_many_at_once(tmp_path: Path) -> None:
    """Two processes, four threads each: nothing is lost."""
    program = (
        "import sys, imgkit; from concurrent.futures import ThreadPoolExecutor\n"
        "from imgkit import RecorderPlugin\n"
        f"s = imgkit.ImageService(plugins=[RecorderPlugin({str(tmp_path / 'c.yaml')!r})])\n"
        "ask = lambda n: s.create_image(f'{sys.argv[1]} {n}', size='16x16').warnings\n"
        "assert set(ThreadPoolExecutor(4).map(ask, range(6))) == {()}\n"
    )
    running = [subprocess.Popen([sys.executable, "-W", "error", "-c", program, one]) for one in "ab"]
    assert [one.wait(50) for one in running] == [0, 0]
    found = yaml.safe_load((tmp_path / "c.yaml").read_text())["interactions"]
    assert len(found) == 12
    assert [one.name for one in tmp_path.iterdir() if one.name.startswith(".")] == []


def test_requests_that_run_together(flavor: Any, tmp_path: Path) -> None:
    """More pictures than one request may ask for: each request is on the cassette."""
    path = tmp_path / "c.yaml"
    options = {"size": "16x16", "n": 14}
    with WireServer(*[many] * 2) as server:
        made = flavor.run(
            lambda service: service.create_image("a fox", **options),
            "requests",
            base_url=server.base_url,
            plugins=[RecorderPlugin(path)],
        )
        assert server.posts == 2
    again = flavor.run(lambda service: service.create_image("a fox", **options), fixtures=path)
    assert len(made) == 14
    assert sorted(one.data for one in again) == sorted(one.data for one in made)


def many(line: Any) -> None:
    """Answer with as many pictures as are asked for."""
    count = json.loads(line.body)["n"]
    reply(200, answer(*(png(count * 100 + number) for number in range(count))))(line)


class Notes:
    """A recorder that remembers, or fails."""

    def __init__(self, error: Exception | None = None) -> None:
        self.heard: list[Exchanged] = []
        self.error = error

    def record(self, exchanged: Exchanged) -> None:
        self.heard.append(exchanged)
        if self.error is not None:
            raise self.error


REQUEST = HttpRequest("POST", "http://h/v1", {"authorization": "Bearer x", "x-own": "1"}, BytesBody(b"{}"))


def steps(recorder: Notes, *news: Any) -> Any:
    """Run a plan of two requests, of which only the second is read."""

    def plan() -> Any:
        yield SendRequest(REQUEST)
        yield SendRequest(REQUEST)
        while chunk := (yield ReadChunk()):
            assert chunk
        return "made"

    flow = record_traffic(plan(), [Resource(PluginSource("p"), recorder)])
    given = iter(news)
    need = advance(flow, None)
    while not isinstance(need, Finished):
        if isinstance(need, RunBlocking):
            try:
                need = advance(flow, need.fn())
            except imgkit.ImgkitError as error:
                need = advance(flow, EffectFailed(error))
        else:
            need = advance(flow, next(given))
    return need.value


def test_step_by_step() -> None:
    """By hand: an answer that is not read is told without its body; no key goes with either."""
    notes = Notes()
    assert steps(notes, Head(302, {}), Head(200, {}), b"a", b"b", b"") == "made"
    assert [(one.head.status, one.reply) for one in notes.heard] == [(302, b""), (200, b"ab")]
    assert all(one.request.headers == {"x-own": "1"} for one in notes.heard)


def test_a_failure_of_the_wire_reaches_the_plan() -> None:
    notes = Notes()
    with pytest.raises(NotSentError) as caught:
        steps(notes, Head(302, {}), EffectFailed(NotSentError("no")))
    assert [one.head.status for one in notes.heard] == [302]
    assert not hasattr(caught.value, "__notes__")


@pytest.mark.parametrize("error", [RuntimeError("bug"), imgkit.SaveError("full")])
def test_a_recorder_that_fails(error: Exception) -> None:
    """It is warned of where there is no reply to say it in, and the plan goes on."""
    with pytest.warns(PluginWarning, match="bug|full") as caught:
        assert steps(Notes(error), Head(200, {}), Head(200, {}), b"") == "made"
    assert len(caught) == 2


def test_wrong_arguments() -> None:
    for given in ({"cassette": 3}, {"cassette": ""}, {"cassette": "c.yaml", "rewrite": "yes"}):
        with pytest.raises(imgkit.ConfigurationError):
            RecorderPlugin(**given)  # type: ignore[arg-type]  # that is the point


class Diary:
    """A recorder of a stranger's own: what was asked, and what the answer was."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, int, int]] = []

    @imgkit.hookimpl
    def imgkit_recorder(self, settings: Any) -> Any:
        return self

    def record(self, exchanged: Exchanged) -> None:
        self.lines.append((exchanged.request.method, exchanged.head.status, len(exchanged.reply)))


def test_a_recorder_of_ones_own(flavor: Any, http_backend: str) -> None:
    """The hook takes anything that records; it sees errors as well as pictures."""
    diary = Diary()
    with WireServer(reply(200, answer()), reply(400, {"error": {"message": "no"}})) as server:
        settings = {"base_url": server.base_url, "plugins": [diary]}
        flavor.run(lambda service: service.create_image("a fox"), http_backend, **settings)
        with pytest.raises(imgkit.BadRequestError):
            flavor.run(lambda service: service.create_image("a fox"), http_backend, **settings)
    assert [line[:2] for line in diary.lines] == [("POST", 200), ("POST", 400)]
    assert diary.lines[0][2] == len(json.dumps(answer()))


@pytest.mark.parametrize(
    "last", [completed() + b"data: [DONE]\n\n: never read\n\n", event({"type": "error", "message": "boom"})]
)
def test_streams_that_end_before_their_connection(http_backend: str, tmp_path: Path, last: bytes) -> None:
    """``[DONE]`` or an error ends them: they are recorded as far as they were read, and so replayed."""
    path = tmp_path / "c.yaml"

    def read(**options: Any) -> list[str]:
        with imgkit.ImageService(**options, retry=False) as service:
            try:
                with service.stream_image("a fox") as events:
                    return [type(one).__name__ for one in events]
            except imgkit.ApiError as error:
                return [str(error).partition("boom")[1]]

    with WireServer(streamed(partial(), last)) as server:
        came = read(backend=http_backend, base_url=server.base_url, plugins=[imgkit.RecorderPlugin(path)])
    assert came in (["PartialImage", "Completed"], ["boom"])
    assert read(fixtures=path) == came
