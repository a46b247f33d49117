"""The logging plugin: one line per call, HTTP details at DEBUG, and no secrets."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import imgkit
from imgkit.cache.memory import MemoryStore
from imgkit.default_plugins.logging import LoggingPlugin, plugin_from_environment
from imgkit.errors import RateLimitError
from imgkit.plugins.events import Call, Outcome, Progress, Retrying, Sent, Started
from imgkit.wire.messages import HttpRequest
from tests.support.pictures import answer, encoded, picture
from tests.support.processes import run_process
from tests.support.wire_server import WireServer, hang, reply

KEY = "sk-CANARY-key-0123456789"
ORGANIZATION = "org-CANARY-0123456789"
COOKIE = "session=CANARY-cookie"
SIGNED = "https://cdn.example/a.png?sig=CANARY-signature"
BASE64 = encoded(picture(size=(64, 64), mode="RGB") + bytes(range(256)) * 4)
CALL = Call(
    id="1" * 32, operation="create_image", backend="requests", provider="openai",
    base_url="https://api.example/v1", host_class="compatible", timeout_s=60.0,
)  # fmt: skip

REFUSED = Outcome(
    kind="refused", error=RateLimitError(f"slow down {KEY}", status=429),
    number=1, attempts=1, elapsed_s=0.1, remaining_s=59.0,
)  # fmt: skip


def facts(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in vars(record).items() if name.startswith("imgkit_")}


def lines(caplog: pytest.LogCaptureFixture, level: int = logging.INFO) -> list[logging.LogRecord]:
    return [one for one in caplog.records if one.name == "imgkit" and one.levelno >= level]


class Biscuit:
    @imgkit.hookimpl
    def imgkit_before_send(self, request: HttpRequest) -> HttpRequest:
        return dataclasses.replace(request, headers={**request.headers, "cookie": COOKIE})


@pytest.fixture
def at_info(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level("INFO", "imgkit")
    return caplog


@pytest.fixture
def at_debug(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level("DEBUG", "imgkit")
    return caplog


@pytest.fixture
def restored_logger() -> Iterator[logging.Logger]:
    """Restore the logger after a test that installs a handler."""
    logger = logging.getLogger("imgkit")
    handlers, level = list(logger.handlers), logger.level
    # A handler that another test of this process has left would stand in for the one under test.
    logger.handlers[:] = [handler for handler in handlers if isinstance(handler, logging.NullHandler)]
    yield logger
    logger.handlers[:] = handlers
    logger.setLevel(level)


def test_one_line_per_call_offline(flavor: Any, at_info: pytest.LogCaptureFixture) -> None:
    """Logs one line per call at INFO, with its values as attributes of the record."""
    reply = flavor.run(
        lambda service: service.create_image("secret otter", size="256x256", n=2), plugins=[LoggingPlugin]
    )
    (line,) = lines(at_info)
    assert line.levelname == "INFO"
    assert re.fullmatch(
        r"create_image succeeded backend=offline model=- status=200 pictures=2 bytes=\d+ "
        r"seconds=\d+\.\d+ attempts=1 request_id=\S+",
        line.getMessage(),
    )
    attributes = facts(line)
    assert attributes["imgkit_call_id"] == reply.meta.call_id
    assert (attributes["imgkit_pictures"], attributes["imgkit_attempts"], attributes["imgkit_event"]) == (
        2,
        1,
        "succeeded",
    )
    assert attributes["imgkit_output_tokens"] == reply.usage.output_tokens > 0
    assert attributes["imgkit_bytes"] > sum(len(image.data) for image in reply)
    assert "otter" not in repr(vars(line))


def test_http_calls_log_model_status_and_request_id(
    flavor: Any, http_backend: str, at_info: pytest.LogCaptureFixture
) -> None:
    """Logs values of request and reply, for both HTTP backends."""
    with WireServer(reply(200, answer())) as server:
        options = {"base_url": server.base_url, "model": "gpt-x", "plugins": [LoggingPlugin()]}
        flavor.run(lambda service: service.create_image("a fox"), http_backend, **options)
    attributes = facts(lines(at_info)[0])
    assert len(lines(at_info)) == 1
    assert attributes["imgkit_backend"] == http_backend
    assert (attributes["imgkit_model"], attributes["imgkit_status"]) == ("gpt-x", 200)
    assert (attributes["imgkit_request_id"], attributes["imgkit_bytes"]) == (
        "req_test",
        len(json.dumps(answer())),
    )
    assert 0 < attributes["imgkit_seconds"] < 10


def test_a_failure_is_a_warning(flavor: Any, http_backend: str, at_info: pytest.LogCaptureFixture) -> None:
    """Logs a rejected call as one WARNING line without a traceback."""
    body = {"error": {"message": "no such\nsize", "code": "bad"}}
    with WireServer(reply(400, body)) as server:
        options = {"base_url": server.base_url, "model": "gpt-x", "plugins": [LoggingPlugin()]}
        with pytest.raises(imgkit.BadRequestError):
            flavor.run(lambda service: service.create_image("a fox"), http_backend, **options)
    (line,) = lines(at_info)
    attributes = facts(line)
    assert (line.levelname, line.exc_info, attributes["imgkit_event"]) == ("WARNING", None, "failed")
    assert (attributes["imgkit_error"], attributes["imgkit_status"]) == ("BadRequestError", 400)
    assert (attributes["imgkit_model"], attributes["imgkit_attempts"], attributes["imgkit_maybe_billed"]) == (
        "gpt-x",
        1,
        False,
    )
    assert re.search("BadRequestError: .*no such size", line.getMessage())
    assert "\n" not in line.getMessage()


def test_a_call_that_was_never_sent_is_logged(flavor: Any, at_info: pytest.LogCaptureFixture) -> None:
    """Logs a WARNING with 0 attempts if a plugin fails before anything is sent."""

    class Spoil:
        @imgkit.hookimpl
        def imgkit_prepare(self) -> None:
            raise imgkit.InvalidRequestError({"prompt": "not today"})

    with pytest.raises(imgkit.InvalidRequestError):
        flavor.run(lambda service: service.create_image("a fox"), plugins=[LoggingPlugin(), Spoil()])
    (line,) = lines(at_info)
    assert (facts(line)["imgkit_attempts"], facts(line)["imgkit_seconds"]) == (0, None)
    assert "InvalidRequestError: prompt: not today" in line.getMessage()


def test_a_cancelled_call(http_backend: str, at_info: pytest.LogCaptureFixture) -> None:
    """Logs a WARNING with maybe_billed if a task is cancelled during the reply."""
    plugin = LoggingPlugin()

    async def main(server: WireServer) -> None:
        async with imgkit.AsyncImageService(http_backend, base_url=server.base_url, plugins=[plugin]) as one:
            task = asyncio.create_task(one.create_image("a fox"))
            while not server.lines:
                await asyncio.sleep(0.005)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    with WireServer(hang) as server:
        asyncio.run(main(server))
    (line,) = lines(at_info)
    attributes = facts(line)
    assert (line.levelname, attributes["imgkit_event"], attributes["imgkit_maybe_billed"]) == (
        "WARNING",
        "cancelled",
        True,
    )
    assert "maybe_billed" in line.getMessage()
    assert plugin._running == {}


def test_http_details_at_debug(flavor: Any, http_backend: str, at_debug: pytest.LogCaptureFixture) -> None:
    """Logs request line, headers, body, reply head and progress at DEBUG."""
    with WireServer(reply(200, answer())) as server:
        options = {"base_url": server.base_url, "plugins": [LoggingPlugin()]}
        flavor.run(lambda service: service.create_image("fox " * 100, n=2), http_backend, **options)
        sent, length = f"> POST {server.base_url}/images/generations (attempt 1)", len(server.lines[0].body)
    by_event = {facts(line)["imgkit_event"]: line for line in lines(at_debug, logging.DEBUG)}
    assert list(by_event) == ["sent", "first_byte", "progress", "succeeded"]
    assert sent in by_event["sent"].getMessage()
    attributes = facts(by_event["sent"])
    assert attributes["imgkit_body"]["n"] == 2
    assert (attributes["imgkit_body"]["prompt"][:7], len(attributes["imgkit_body"]["prompt"])) == (
        "fox fox",
        200,
    )
    assert attributes["imgkit_body_bytes"] == length
    assert attributes["imgkit_headers"]["content-type"] == "application/json"
    assert facts(by_event["first_byte"])["imgkit_headers"]["x-request-id"] == "req_test"
    size = len(json.dumps(answer()))
    assert by_event["progress"].getMessage().endswith(f"< {size} of {size} bytes")


def test_forms_show_fields_and_sizes(flavor: Any, at_debug: pytest.LogCaptureFixture) -> None:
    """Logs the fields of a form and its size, but no images."""
    image = picture(size=(64, 64))
    flavor.run(
        lambda service: service.create_image_edit(image, "a hat", size="256x256"), plugins=[LoggingPlugin()]
    )
    sent = next(line for line in lines(at_debug, logging.DEBUG) if facts(line)["imgkit_event"] == "sent")
    assert facts(sent)["imgkit_body"] == {"prompt": "a hat", "size": "256x256"}
    assert facts(sent)["imgkit_body_bytes"] > len(image)


@pytest.mark.parametrize("status", [200, 400])
def test_no_secret_in_any_record(
    flavor: Any, http_backend: str, status: int, at_debug: pytest.LogCaptureFixture
) -> None:
    """Logs no key, organisation, cookie, signature or image, even if the server repeats them."""
    message = f"key {KEY} of {ORGANIZATION} for {SIGNED} with {BASE64}"
    body: Any = (
        {"created": 1, "data": [{"url": SIGNED}]} if status == 200 else {"error": {"message": message}}
    )
    headers = {
        "set_cookie": COOKIE, "openai_organization": ORGANIZATION, "location": SIGNED,
        "x_echo": f"Bearer {KEY}", "x_picture": BASE64,
    }  # fmt: skip
    extra = {"api_key": KEY, "deep": [{"url": SIGNED, "image": f"data:image/png;base64,{BASE64}"}]}

    def work(one: Any) -> Any:
        return one.create_image(f"{SIGNED} {BASE64}", extra_body=extra)

    with WireServer(reply(status, body, **headers)) as server:
        options: dict[str, Any] = {"api_key": KEY, "organization": ORGANIZATION}
        options["plugins"] = [LoggingPlugin(), Biscuit()]
        try:
            flavor.run(work, http_backend, base_url=server.base_url, **options)
        except imgkit.BadRequestError:
            assert status == 400
        assert KEY in server.lines[0].head.decode()
        assert COOKIE in server.lines[0].head.decode()
        assert BASE64 in server.lines[0].body.decode()
    records = lines(at_debug, logging.DEBUG)
    assert {"sent", "first_byte"} < {facts(line)["imgkit_event"] for line in records}
    for line in records:
        whole = " ".join([line.getMessage(), repr(vars(line)), json.dumps(facts(line), ensure_ascii=False)])
        assert "CANARY" not in whole
        assert BASE64[:80] not in whole
        assert (line.exc_info, line.exc_text, line.stack_info) == (None, None, None)
    assert "characters of base64" in repr([vars(line) for line in records])


def test_attributes_are_json(flavor: Any, at_debug: pytest.LogCaptureFixture) -> None:
    """Attributes of each record survive a round trip through JSON."""
    flavor.run(lambda service: service.create_image("a \x07 fox", size="256x256"), plugins=[LoggingPlugin()])
    records = lines(at_debug, logging.DEBUG)
    assert len(records) >= 4
    for line in records:
        assert json.loads(json.dumps(facts(line), allow_nan=False)) == facts(line)


def test_the_page_lists_every_attribute(http_backend: str, at_debug: pytest.LogCaptureFixture) -> None:
    """docs/logging-and-telemetry.md lists exactly the attributes of each kind of record."""
    page = (Path(__file__).parents[2] / "docs" / "logging-and-telemetry.md").read_text("utf-8")
    plugin = LoggingPlugin()
    with WireServer(reply(200, answer()), reply(400, {"error": {"message": "no"}})) as server:
        with imgkit.ImageService(http_backend, base_url=server.base_url, plugins=[plugin]) as service:
            service.create_image("a fox")
            with pytest.raises(imgkit.BadRequestError):
                service.create_image("a fox")
    plugin.imgkit_on_event(Retrying(REFUSED, 2.5), CALL)
    everywhere = {"imgkit_event", "imgkit_call_id", "imgkit_operation"}
    seen = {facts(line)["imgkit_event"]: line for line in lines(at_debug, logging.DEBUG)}
    assert set(seen) == {"sent", "first_byte", "progress", "succeeded", "failed", "retrying"}
    for event, line in seen.items():
        (row,) = re.findall(rf"(?m)^\| [a-z_, ]*\b{event}\b[a-z_, ]* \| (.*) \|$", page)
        assert {f"imgkit_{name}" for name in re.findall(r"`(\w+)`", row)} == facts(line).keys() - everywhere


def test_concurrent_calls_have_ids(flavor: Any, at_debug: pytest.LogCaptureFixture) -> None:
    """Logs events of concurrent calls under their own ids."""
    plugin = LoggingPlugin()
    prompts = [f"fox {index}" for index in range(6)]

    def work(one: Any) -> Any:
        if flavor.flavor == "async":
            return asyncio.gather(*[one.create_image(prompt, size="256x256") for prompt in prompts])
        with ThreadPoolExecutor(6) as pool:
            return list(pool.map(lambda prompt: one.create_image(prompt, size="256x256"), prompts))

    flavor.run(work, plugins=[plugin])
    by_call: dict[str, Any] = {}
    for line in lines(at_debug, logging.DEBUG):
        by_call.setdefault(facts(line)["imgkit_call_id"], []).append(line)
    assert len(by_call) == 6
    shown = {facts(records[0])["imgkit_body"]["prompt"] for records in by_call.values()}
    assert shown == set(prompts)
    for records in by_call.values():
        assert [facts(line)["imgkit_event"] for line in records][-1] == "succeeded"
        assert facts(records[-1])["imgkit_attempts"] == 1
    assert plugin._running == {}


def test_retries_at_info(at_info: pytest.LogCaptureFixture) -> None:
    """Logs a retry at INFO with the failure and the wait, and without secrets."""
    LoggingPlugin().imgkit_on_event(Retrying(REFUSED, 2.5), CALL)
    (line,) = lines(at_info)
    assert line.getMessage() == (
        "create_image retrying next attempt in 2.500 s, "
        "after 1 attempts, refused: RateLimitError: slow down …"
    )
    assert (facts(line)["imgkit_wait_s"], facts(line)["imgkit_outcome"]) == (2.5, "refused")
    assert "CANARY" not in repr(vars(line))


def test_dripping_replies_do_not_flood(at_debug: pytest.LogCaptureFixture) -> None:
    """Logs progress at start and end of a slow reply, and once a second between."""
    plugin = LoggingPlugin()
    for received in range(1, 1001):
        plugin.imgkit_on_event(Progress(received, 1000), CALL)
    attributes = [facts(line)["imgkit_bytes"] for line in lines(at_debug, logging.DEBUG)]
    assert attributes[0] == 1
    assert attributes[-1] == 1000
    assert len(attributes) < 10


def test_silent_without_configuration() -> None:
    """Writes nothing without configuration, and adds no handler to the root logger."""
    program = (
        "import logging, imgkit; from imgkit.default_plugins.logging import LoggingPlugin\n"
        "url = 'http://127.0.0.1:1/v1'\n"
        "with imgkit.ImageService('requests', base_url=url, plugins=[LoggingPlugin()]) as s:\n"
        "    try: s.create_image('fox', timeout_s=0.5)\n"
        "    except imgkit.NotSentError: print(logging.getLogger().handlers)"
    )
    done = in_process(program)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def in_process(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return run_process(
        [sys.executable, "-W", "error", "-c", program],
        env={**os.environ, **environment}, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip


PROGRAM = (
    "import imgkit; from imgkit.default_plugins.logging import plugin_from_environment\n"
    "for _ in range(2):\n"
    "    plugin = plugin_from_environment()\n"
    "with imgkit.ImageService(plugins=[plugin]) as service:\n"
    "    service.create_image('a red fox', size='256x256')"
)


@pytest.mark.parametrize(
    ("level", "count", "prompt"), [("info", 1, False), ("DEBUG", 4, True), ("warning", 0, False)]
)
def test_the_variable_writes_to_stderr(level: str, count: int, prompt: bool) -> None:
    """Adds plugin and handler once for IMGKIT_LOG, at its level."""
    done = in_process(PROGRAM, IMGKIT_LOG=level)
    shown = done.stderr.splitlines()
    assert sum(" imgkit create_image " in line for line in shown) == len(shown)
    assert sum(" INFO imgkit create_image succeeded backend=offline" in line for line in shown) == min(
        count, 1
    )
    assert (len(shown) >= count, bool(shown)) == (True, bool(count))
    assert ("red fox" in done.stderr) is prompt
    assert done.stdout == ""


def test_the_variable_unknown_or_blank(
    monkeypatch: pytest.MonkeyPatch, restored_logger: logging.Logger
) -> None:
    """Rejects an unknown value of the variable, and ignores a blank value."""
    before = list(restored_logger.handlers)
    monkeypatch.setenv("IMGKIT_LOG", " ")
    assert plugin_from_environment() is None
    monkeypatch.setenv("IMGKIT_LOG", "loud")
    with pytest.raises(imgkit.ConfigurationError, match=r"IMGKIT_LOG is 'loud'.*debug, info, warning"):
        plugin_from_environment()
    assert restored_logger.handlers == before


def test_no_line_twice(monkeypatch: pytest.MonkeyPatch, restored_logger: logging.Logger) -> None:
    """Adds no second plugin or handler, and follows a changed variable."""
    monkeypatch.setenv("IMGKIT_LOG", "warning")
    before = len(restored_logger.handlers)
    assert isinstance(plugin_from_environment([object()]), LoggingPlugin)
    assert plugin_from_environment([LoggingPlugin()]) is None
    monkeypatch.setenv("IMGKIT_LOG", "debug")
    plugin_from_environment()
    assert len(restored_logger.handlers) == before + 1
    assert restored_logger.level == restored_logger.handlers[-1].level == logging.DEBUG


def test_off_costs_no_formatting(caplog: pytest.LogCaptureFixture) -> None:
    """Formats nothing above WARNING, and reads no body at WARNING."""

    class Untouchable:
        content_type = "application/json"

        @property
        def length(self) -> int:
            raise AssertionError("read")

    plugin = LoggingPlugin()
    sent = Sent(HttpRequest("POST", "https://api.example/v1", body=Untouchable()), 1)  # type: ignore[arg-type]
    caplog.set_level("ERROR", "imgkit")
    plugin.imgkit_on_event(Started(), CALL)
    assert plugin._running == {}
    caplog.set_level("WARNING", "imgkit")
    plugin.imgkit_on_event(sent, CALL)
    assert plugin._running[CALL.id].attempts == 1
    caplog.set_level("DEBUG", "imgkit")
    with pytest.raises(AssertionError, match="read"):
        plugin.imgkit_on_event(sent, CALL)


def test_cache_hit(caplog: Any) -> None:
    """Logs a cache hit as one line at INFO, and its key and age at DEBUG."""
    caplog.set_level(logging.DEBUG, "imgkit")
    with imgkit.ImageService(plugins=["logging", imgkit.CachePlugin(MemoryStore())]) as service:
        for _ in range(2):
            caplog.clear()
            service.create_image("a fox", size="64x64")
    events = [getattr(record, "imgkit_event", "") for record in caplog.records]
    assert events == ["cache_hit", "succeeded"]
    assert caplog.records[1].imgkit_cached is True
