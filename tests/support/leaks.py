"""Keys in every place that takes one, servers that repeat them, and a search of everything that is left."""

from __future__ import annotations

import base64
import html
import json
import logging
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import imgkit
from imgkit.default_plugins.auth import BearerAuth, HeaderAuth, TokenAuth
from imgkit.default_plugins.caching import CachePlugin
from imgkit.default_plugins.logging import LoggingPlugin
from imgkit.default_plugins.recorder import RecorderPlugin
from imgkit.default_plugins.telemetry import TelemetryPlugin
from imgkit.plugins.events import FirstByte
from imgkit.plugins.tokens import Token
from imgkit.testing import canary
from tests.support.wire_server import Line

SHAPES: dict[str, Callable[[int], str]] = {
    "shape": lambda number: f"sk-proj-CANARY{number:02d}9f8e7d6c5b4a3928",
    "no shape": lambda number: f"Zx81/qpLm+CANARY{number:02d}~77_yy=",
    "quotes": lambda number: f'CANARY{number:02d}"with\\two/escapes&<b>',
    "short": lambda number: f"k3Y!{number:02d}",
    "shortest": lambda number: f"Q7z{chr(ord('A') + number)}",
    "number": lambda number: f"7391503862{number:02d}",
    "word": lambda number: f"canary_{chr(ord('a') + number)}",
}
"""Keys by their shape; the number tells places apart."""

PLACES = (
    *("credential", "proxy", "header", "list header", "second in list", "cookie", "basic", "hook header"),
    *("member", "nested member", "listed member", "camel member"),
)
SLICES = 5
"""Texts that together have all spellings."""

CREDENTIALS = ("text", "variable", "callable", "file", "token", "header plugin", "hook")
"""Ways to give the key of the API."""


def make_keys(shape: str) -> dict[str, str]:
    """Return a key for each place."""
    return {place: SHAPES[shape](number) for number, place in enumerate(PLACES)}


def spell(key: str) -> list[str]:
    """Return a key as it is and as servers encode it."""
    in_json = json.dumps(key)[1:-1]
    forms = [
        *(key, f"A{key}A", in_json, in_json.replace("/", "\\/"), json.dumps(in_json)[1:-1]),
        *(quote(key, safe=""), quote(key), quote(quote(key, safe=""), safe=""), html.escape(key)),
        "".join(f"\\u{ord(letter):04x}" for letter in key),
        "".join(f"%{byte:02x}" for byte in key.encode()),
        "".join(f"&#{ord(letter)};" for letter in key),
        "".join(f"&#x{ord(letter):X};" for letter in key),
    ]
    raw = key.encode()
    if len(raw) >= 6:
        texts = (raw, b"u:" + raw, b"Bearer " + raw, raw + b"x")
        forms += [raw.hex(), raw.hex().upper()]
        forms += [base64.b64encode(text).decode() for text in texts]
        forms += [base64.urlsafe_b64encode(text).decode() for text in texts]
    if len(raw) >= 16 and key.isascii():
        forms += [key.upper(), key.lower(), f"{key[:7]}\n{key[7:]}", f"{key[:7]}\r\ndata: {key[7:]}"]
    return list(dict.fromkeys(forms))


def list_traces(key: str) -> set[str]:
    """Return the texts that betray a key."""
    raw = key.encode()
    traces = {form for form in spell(key)[:13] if "\n" not in form and form != f"A{key}A"}
    if len(raw) >= 6:
        traces |= {raw.hex(), raw.hex().upper()}
        for before in range(3):
            for encode in (base64.b64encode, base64.urlsafe_b64encode):
                # The characters that hold nothing but the key.
                inner = encode(b"\0" * before + raw)[(before * 8 + 5) // 6 : (before + len(raw)) * 8 // 6]
                traces.add(inner.decode())
    if len(raw) >= 16 and key.isascii():
        traces |= {key.upper(), key.lower(), key[7:]}
    return traces


class Observer:
    """A plugin that keeps the repr of each event, and the headers of each reply."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    @imgkit.hookimpl
    def imgkit_on_event(self, event: Any) -> None:
        self.seen.append(repr(event))
        if isinstance(event, FirstByte):
            self.seen.append(json.dumps(dict(event.headers)))


class HookHeader:
    """A plugin that adds a secret header to each attempt."""

    def __init__(self, key: str) -> None:
        self._key = key

    @imgkit.hookimpl
    def imgkit_before_send(self, request: Any) -> Any:
        return request.with_headers({**request.headers, "x-session-token": self._key})


class HookAuth:
    """A plugin that signs each request with several words in a header of its own."""

    def __init__(self, key: str) -> None:
        self._key = key

    @imgkit.hookimpl
    def imgkit_authenticate(self, request: Any) -> Any:
        return request.with_headers({**request.headers, "x-sign": f'Digest user="me", response={self._key}'})


class _Source:
    def __init__(self, key: str) -> None:
        self._key = key

    def token(self) -> Token:
        return Token(self._key)


def give_key(
    how: str, key: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[dict[str, Any], list[object]]:
    """Return the settings and the plugins that give a service its key.

    Args:
        how: One of `CREDENTIALS`.
        key: The key.
        folder: Where a key file may be written.
        monkeypatch: Sets the variable.
    """
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    if how == "variable":
        monkeypatch.setenv("OPENAI_API_KEY", key)
    if how == "file":
        (folder / "key").write_text(key)
        (folder / "key").chmod(0o600)
    settings: dict[str, dict[str, Any]] = {"text": {"api_key": key}, "callable": {"api_key": lambda: key}}
    plugins: dict[str, Callable[[], object]] = {
        "file": lambda: BearerAuth(file=folder / "key", allow_insecure=True),
        "token": lambda: TokenAuth(_Source(key), allow_insecure=True),
        "header plugin": lambda: HeaderAuth("x-acme", key, allow_insecure=True),
        "hook": lambda: HookAuth(key),
    }
    return settings.get(how, {}), [plugins[how]()] if how in plugins else []


def give_options(keys: dict[str, str]) -> dict[str, Any]:
    """Return the arguments of a call that take secrets."""
    basic = base64.b64encode(f"user:{keys['basic']}".encode()).decode()
    return {
        "extra_headers": {
            "X-Vault-TOKEN": keys["header"],
            "x-auth-list": f"{keys['list header']}, {keys['second in list']}",
            "x-forwarded-authorization": f"Basic {basic}",
            "x-session": f"session={keys['cookie']}; theme=dark",
            "x-plain": "1",
        },
        "extra_body": {
            "api_key": keys["member"],
            "auth": {"user": keys["nested member"], "list": [keys["listed member"]]},
            "accessToken": keys["camel member"],
        },
    }


class Sinks:
    """Every place that a call writes to.

    Args:
        folder: Folder of all files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        self.spans = InMemorySpanExporter()
        self.metrics = InMemoryMetricReader()
        self.observer = Observer()
        self.warnings: list[warnings.WarningMessage] = []
        self._tracers = TracerProvider(shutdown_on_exit=False)
        self._tracers.add_span_processor(SimpleSpanProcessor(self.spans))
        self._meters = MeterProvider([self.metrics], shutdown_on_exit=False)
        untyped: Any = InMemoryLogRecordExporter
        self.log_events = untyped()
        self._loggers = LoggerProvider(shutdown_on_exit=False)
        self._loggers.add_log_record_processor(SimpleLogRecordProcessor(self.log_events))

    def make_plugins(self, *, keeps: bool) -> list[object]:
        """Return the plugins that write, with those that keep replies if `keeps` is true."""
        kept: list[object] = [
            RecorderPlugin(self.folder / "tape" / "calls.yaml"),
            CachePlugin(folder=self.folder / "cache"),
        ]
        return [
            LoggingPlugin(),
            TelemetryPlugin(
                tracer_provider=self._tracers,
                meter_provider=self._meters,
                logger_provider=self._loggers,
                capture_content="span_and_event",
            ),
            self.observer,
            *(kept if keeps else []),
        ]

    @contextmanager
    def catch_warnings(self) -> Iterator[None]:
        """Keep warnings in place of raising them."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield
        self.warnings += caught

    def find(
        self, keys: Iterable[str], records: Iterable[logging.LogRecord], *values: object
    ) -> list[tuple[str, str]]:
        """Return each place that shows a key, and the key."""
        metrics = self.metrics.get_metrics_data()
        texts = [
            *(("a span", span.to_json()) for span in self.spans.get_finished_spans()),
            *(("an event of a span", one.to_json()) for one in self.log_events.get_finished_logs()),
            ("the metrics", "" if metrics is None else metrics.to_json()),
            *(("an event", text) for text in self.observer.seen),
            *(("a warning", f"{warning.message!r} {warning.filename}") for warning in self.warnings),
            *canary.iterate_texts(*values, records=records, folders=[self.folder]),
            *(text for value in values for text in iterate_frames(value)),
        ]
        whole = "\0".join(text for _, text in texts)
        return [
            (place, trace)
            for key in keys
            for trace in list_traces(key)
            if trace in whole
            for place, text in texts
            if trace in text
        ]


def iterate_frames(error: object) -> Iterator[tuple[str, str]]:
    """Yield the variables of imgkit's frames in a traceback. The frames of tests hold the key."""
    if isinstance(error, BaseException):
        shown = traceback.TracebackException.from_exception(error, capture_locals=True)
        for frame in shown.stack:
            if "/tests/" not in frame.filename and frame.locals is not None:
                yield f"a frame of {frame.name}", str(frame.locals)


class _Turn:
    """The number of the next text of a server."""

    next = 0


def restart_echo(turn: int) -> None:
    """Begin again with the spellings of one of the `SLICES`."""
    _Turn.next = turn


def echo(line: Line, keys: Iterable[str]) -> str:
    """Return a text that repeats keys, and the request as it arrived.

    Each key stands there as it is, and in some of its spellings; the next texts have the others.
    """
    turn, _Turn.next = _Turn.next, _Turn.next + 1
    forms = [form for key in keys for form in (key, *spell(key)[turn % SLICES :: SLICES])]
    received = [*line.head.decode("latin-1").split("\r\n"), line.body[:4000].decode("utf-8", "replace")]
    return " ".join([*forms, *received])
