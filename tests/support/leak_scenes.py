"""Servers that repeat keys: one scene for each place of a reply."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from tests.support.event_streams import END, HEAD, chunk, completed, event, partial
from tests.support.leaks import echo
from tests.support.pictures import encoded, noise
from tests.support.wire_server import Line, Script, drop, head, raw, reply

Scene = Callable[["Keys"], list[Script]]
Keys = list[str]
IMAGE = noise(31)


def to_header(text: str) -> str:
    """Return a text as it may stand in a header: on one line, in ASCII."""
    line = text.replace("\r\ndata: ", "").replace("\n", "")
    return line.encode("ascii", "replace").decode()


def build_headers(text: str, keys: Keys) -> dict[str, str]:
    """Return reply headers that repeat keys, also in those that imgkit or HTTP libraries read."""
    names = (
        *("x-request-id", "apim-request-id", "x-echo", "server", "openai-processing-ms", "set-cookie"),
        *("x-ratelimit-remaining-requests", "openai-organization", "www-authenticate", "content-language"),
    )
    return dict.fromkeys(names, to_header(" ".join(keys))) | {"warning": to_header(text), "etag": keys[0]}


def build_members(text: str, keys: Keys) -> dict[str, Any]:
    """Return members of a reply that repeat keys."""
    return {
        **dict.fromkeys(("note", "size", "quality", "background", "output_format", "model", "id"), text),
        "warnings": [text],
        "usage": {"total_tokens": 3, "by": {"key": text}},
        "deep": [{"a": [[text]]}],
        "link": f"https://x.example/{quote(keys[0], safe='')}?k={quote(keys[-1], safe='')}",
        "blob": f"{'QUJD' * 20}{keys[0]}{'QUJD' * 20}",
        **{f"name {key}": 1 for key in keys},
    }


def send(
    build: Callable[[str], Any], status: int = 200, content_type: str = "application/json", **more: str
) -> Scene:
    """Return a scene with one reply, in whose body and headers all keys stand.

    Args:
        build: Takes a text with the keys; returns the body as bytes or JSON.
        status, content_type: Head of the reply.
        more: Further headers.
    """

    def scene(keys: Keys) -> list[Script]:
        def script(line: Line) -> None:
            text = echo(line, keys)
            headers = build_headers(text, keys) | {"content-type": content_type} | more
            reply(status, build(text), **headers)(line)

        return [script]

    return scene


def succeed(build: Callable[[str, Keys], dict[str, Any]], **more: Any) -> Scene:
    """Return a scene with a success reply that has further members with keys."""
    return lambda keys: send(lambda text: {**build_members(text, keys), **build(text, keys)}, **more)(keys)


def refuse(status: int, **more: Any) -> Scene:
    """Return a scene with an error object with keys in each of its members."""

    def scene(keys: Keys) -> list[Script]:
        def build(text: str) -> dict[str, Any]:
            fields = dict.fromkeys(("message", "code", "type", "param"), text)
            error = {**fields, "innererror": {"code": text, "note": text}, **more}
            return {"error": error, **build_members(text, keys)}

        return send(build, status, retry_after="0")(keys)

    return scene


def stream(*events: Callable[[str, Keys], bytes], end: bytes = END, pieces: int = 1) -> Scene:
    """Return a scene with events.

    Args:
        events: Take a text with the keys; return an event.
        end: Empty for a stream that breaks off.
        pieces: Number of chunks per event: a key may lie on a border.
    """

    def scene(keys: Keys) -> list[Script]:
        def script(line: Line) -> None:
            text = echo(line, keys)
            data = b"".join(build(text, keys) for build in events)
            size = len(data) // pieces + 1
            line.send(HEAD + b"".join(chunk(data[at : at + size]) for at in range(0, len(data), size)) + end)

        return [script]

    return scene


def answer_by_url(*downloads: Callable[[str, Keys], Script]) -> Scene:
    """Return a scene with a result URL that has a key, and with replies to its downloads."""

    def scene(keys: Keys) -> list[Script]:
        name = quote(keys[0], safe="")

        def make(line: Line) -> None:
            body = {**build_members(echo(line, keys), keys), "data": [{"url": f"/out/{name}.png?k={name}"}]}
            reply(200, body)(line)

        def download(build: Callable[[str, Keys], Script]) -> Script:
            return lambda line: build(echo(line, keys), keys)(line)

        return [make, *map(download, downloads)]

    return scene


def store_reply(
    status: int, build: Callable[[str], bytes], content_type: str = "application/xml"
) -> Callable[[str, Keys], Script]:
    """Return the reply of a store to a download, with keys in body and headers."""
    return lambda text, keys: reply(
        status, build(text), **{**build_headers(text, keys), "content-type": content_type}
    )


def redirect_to(path: str) -> Callable[[str, Keys], Script]:
    """Return a redirect to a location that has a key."""
    return lambda text, keys: reply(302, b"", location=path + quote(keys[1], safe="") + "?k=1")


def page(text: str) -> bytes:
    """Return a gateway's page."""
    return f'<html><p class="x">{text}</p></html>'.encode()


def break_head(text: str) -> list[bytes]:
    """Return heads that HTTP libraries quote in their errors and logs."""
    text = to_header(text)
    return [
        f"HTTP/1.1 {text}\r\n\r\n".encode(),
        f"{text}\r\n\r\n".encode(),
        f"HTTP/1.1 200 OK\r\nx-a: 1\r\n{text}\r\ncontent-length: 2\r\n\r\n{{}}".encode(),
        f"HTTP/1.1 200 OK\r\n{text[:40]} x: 1\r\ncontent-length: 2\r\n\r\n{{}}".encode(),
        f"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{text[:200]}\r\n".encode(),
        f"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\n\r\n{text}".encode(),
        f"HTTP/1.1 200 OK\r\ncontent-length: {text[:60]}\r\n\r\n{{}}".encode(),
    ]


def fail_wire(number: int) -> Scene:
    """Return a scene with a broken head."""
    return lambda keys: [lambda line: raw(break_head(echo(line, keys))[number])(line)]


def cut(text: str) -> bytes:
    """Return a success reply that breaks off inside an image."""
    body = json.dumps({"note": text, "data": [{"b64_json": encoded(IMAGE)}]}).encode()
    return head(200, {"content-length": str(len(body)), "x-echo": to_header(text)}) + body[:-4000]


def serve(keys: Keys, data: bytes = IMAGE) -> Script:
    """Return the reply of a store that serves an image."""
    return store_reply(200, lambda text: data, "image/png")("", keys)


def to_xml(text: str) -> bytes:
    """Return the error of a store."""
    return f"<Error><Code>ExpiredToken</Code><Message>{text}</Message></Error>".encode()


def to_events(text: str) -> bytes:
    """Return events without JSON, with a word on each line."""
    return b"".join(b"data: %b\n" % word.encode() for word in to_header(text).split()) + b"\n"


def redirect(location: str) -> Scene:
    """Return a scene that redirects the request; "KEY" in the location stands for a key."""
    return lambda keys: [reply(307, b"", location=location.replace("KEY", quote(keys[0], safe="")))]


def wrap(text: str) -> dict[str, Any]:
    """Return the error of a gateway, with the error of the API in its message."""
    return {"error": {"message": "APIError - " + json.dumps({"error": {"message": text, "code": text}})}}


EVENTS, HTML = "text/event-stream", "text/html"
DATA: dict[str, Any] = {"b64_json": encoded(IMAGE)}
DATA_URL = f"data:image/png;base64,{encoded(IMAGE)}"
FINISHED: dict[str, Scene] = {
    "images": succeed(lambda text, keys: {"data": [{**DATA, "revised_prompt": text, "id": text}]}),
    "two images": succeed(lambda text, keys: {"data": [DATA, {**DATA, "revised_prompt": text}]}),
    "other place": succeed(lambda text, keys: {"output": [{"image": DATA_URL}]}),
    "damaged": succeed(lambda text, keys: {"data": [DATA, {"b64_json": text}, text]}),
    "empty": succeed(lambda text, keys: {"data": []}),
    "unreadable": succeed(lambda text, keys: {"data": [{"b64_json": f"<{text}>" * 20}]}),
    "job": succeed(lambda text, keys: {"task_id": text, "status": "queued"}, status=202),
    "job elsewhere": succeed(
        lambda text, keys: {"status": text}, status=202, operation_location="https://jobs.example/1"
    ),
    "error in 200": succeed(lambda text, keys: {"error": {"message": text, "code": text}}),
    "list": send(lambda text: [text, {"b64_json": encoded(IMAGE)}]),
    "no object": send(lambda text: text),
    "page": send(page, content_type=HTML),
    "text": send(str.encode, content_type="text/plain"),
    "bad json": send(lambda text: b'{"data": [' + text.encode()),
    "events unasked": send(lambda text: completed(IMAGE, note=text), content_type=EVENTS),
    "event text": send(lambda text: b"version: 1\n" + completed(IMAGE, note=text)),
    "no events": send(lambda text: f": {to_header(text)}\n\n".encode(), content_type=EVENTS),
}
REFUSED: dict[str, Scene] = {
    "bad request": refuse(400),
    "blocked": refuse(400, code="moderation_blocked"),
    "key": refuse(401),
    "page 403": send(page, 403, HTML),
    "xml 404": send(to_xml, 404),
    "conflict": refuse(409),
    "too large": send(page, 413, HTML),
    "details": send(lambda text: {"detail": [{"loc": ["body", text], "msg": text, "input": text}]}, 422),
    "busy": refuse(429),
    "failed": refuse(500, code="server_error", type="server_error"),
    "wrapped": send(wrap, 500),
    "gateway": send(page, 502, HTML),
    "unavailable": send(lambda text: {"message": text}, 503),
    "no text": send(lambda text: b"\xff\xfe" + text.encode(), 504),
}
MOVED: dict[str, Scene] = {
    "redirect": redirect("https://cdn.example/KEY?k=KEY"),
    "redirect with user": redirect("https://u:KEY@cdn.example/"),
    "redirect to no URL": redirect("KEY://KEY"),
    "by url": answer_by_url(lambda text, keys: serve(keys)),
    "no image": answer_by_url(store_reply(200, page, HTML)),
    "expired": answer_by_url(store_reply(403, to_xml)),
    "gone": answer_by_url(store_reply(404, lambda text: json.dumps({"message": text}).encode())),
    "store failed": answer_by_url(store_reply(500, page), lambda text, keys: serve(keys)),
    "moved": answer_by_url(redirect_to("/other/"), lambda text, keys: serve(keys)),
    "moved away": answer_by_url(redirect_to("http://10.0.0.1/")),
    "moved to nothing": answer_by_url(redirect_to("/other/"), store_reply(404, page)),
    "cut image": answer_by_url(lambda text, keys: serve(keys, IMAGE[:-20])),
    "forbidden link": lambda keys: [
        reply(200, {"data": [{"url": f"http://10.0.0.1/{quote(keys[0])}?{quote(keys[-1], safe='')}"}]})
    ],
}
BROKEN: dict[str, Scene] = {
    "dropped": lambda keys: [drop],
    "cut": lambda keys: [lambda line: raw(cut(echo(line, keys)))(line)],
    **{f"broken head {number}": fail_wire(number) for number in range(7)},
}
STREAMS: dict[str, Scene] = {
    "events": stream(
        lambda text, keys: partial(),
        lambda text, keys: event({"type": "note", **build_members(text, keys)}),
        lambda text, keys: completed(**build_members(text, keys), revised_prompt=text),
        pieces=7,
    ),
    "event error": stream(
        lambda text, keys: partial(),
        lambda text, keys: event({"type": "error", "error": {"message": text, "code": text}}),
    ),
    "no image": stream(lambda text, keys: event({"type": "note", **build_members(text, keys)}, keys[0])),
    "cut": stream(
        lambda text, keys: partial(), lambda text, keys: event({"type": "note", "a": text})[:-9], end=b""
    ),
    "no json": stream(lambda text, keys: to_events(text)),
    "json": FINISHED["images"],
    "refused": lambda keys: refuse(406)(keys) + FINISHED["images"](keys),
    "failed": REFUSED["failed"],
    "page": FINISHED["page"],
}
CREATES = {**FINISHED, **REFUSED, **MOVED, **BROKEN}
RETRIES: dict[str, Scene] = {
    "busy, then images": lambda keys: refuse(429)(keys) + FINISHED["images"](keys),
    "failed, then refused": lambda keys: REFUSED["failed"](keys) + REFUSED["key"](keys),
}
EDITS: dict[str, Scene] = {
    "images": FINISHED["images"],
    "empty": FINISHED["empty"],
    "blocked": REFUSED["blocked"],
    "failed": REFUSED["failed"],
}
MODELS: dict[str, Scene] = {
    "listed": send(lambda text: {"data": [{"id": text}, {"id": "gpt-image-2"}]}),
    "no list": FINISHED["page"],
    "refused": REFUSED["key"],
    "failed": REFUSED["gateway"],
}
