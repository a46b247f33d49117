"""Fakes: the API's own side of a dialect in small, for offline use and for tests over loopback.

A provider names its fake in `BaseProvider.fake`. The offline backend then answers its requests without a key,
and `imgkit.testing.serve_fake` puts the same object behind a socket.
"""

from __future__ import annotations

import io
import json
import struct
import threading
import zlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple
from urllib.parse import parse_qs, urlsplit

from imgkit.wire.multipart import FormPart, read_form

SCENARIOS = (
    "success",
    "refused",
    "invalid",
    "rate_limited",
    "failing",
    "lost_submit",
    "lost_poll",
    "expired_link",
    "fewer",
    "wrong_type",
)
"""The situations that every fake knows; see `FakeApi`."""


class FakeRequest(NamedTuple):
    """A request as a fake sees it.

    Attributes:
        method: "GET", "POST", "PUT" or "DELETE".
        url: absolute URL.
        headers: values by lower-case name.
        body: the whole body.
    """

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def path(self) -> str:
        """The path of the URL."""
        return urlsplit(self.url).path

    @property
    def root(self) -> str:
        """Scheme and host of the URL, as the client named them."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}"

    @property
    def query(self) -> dict[str, str]:
        """The first value of each parameter in the query."""
        return {name: values[0] for name, values in parse_qs(urlsplit(self.url).query).items()}

    def json(self) -> Any:
        """Return the JSON value of the body, {} for an empty body."""
        return json.loads(self.body or b"{}")

    def form(self) -> list[FormPart]:
        """Return the parts of the form in the body, in their order; none of another body."""
        content_type = self.headers.get("content-type", "")
        is_form = content_type.startswith("multipart/form-data")
        return list(read_form(content_type, self.body)) if is_form else []


class FakeReply(NamedTuple):
    """The reply of a fake.

    Attributes:
        status: HTTP status; 0 drops the connection without a reply.
        headers: by lower-case name.
        body: the body.
    """

    status: int = 200
    headers: Mapping[str, str] = MappingProxyType({})
    body: bytes = b""


LOST = FakeReply(0)
"""Drop the connection after the request."""

Paint = Callable[[str, int, int], bytes]
"""Returns a PNG for a prompt, a width and a height in pixels."""


def json_reply(status: int, value: Any, **headers: str) -> FakeReply:
    """Return a JSON reply; underscores in the names of headers become hyphens."""
    more = {name.replace("_", "-"): text for name, text in headers.items()}
    return FakeReply(status, {"content-type": "application/json", **more}, json.dumps(value).encode())


def image_reply(data: bytes, media_type: str = "image/png") -> FakeReply:
    """Return the reply of a store to the download of an image."""
    return FakeReply(200, {"content-type": media_type}, data)


def paint_plain(prompt: str, width: int, height: int) -> bytes:
    r"""Return a small PNG of one colour that depends on the prompt: no library is needed.

    >>> paint_plain("a fox", 2, 2)[:4]
    b'\x89PNG'
    """
    width, height = max(1, min(width, 64)), max(1, min(height, 64))
    colour = zlib.crc32(prompt.encode()) & 0xFFFFFF
    row = b"\0" + colour.to_bytes(3, "big") * width

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(row * height))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b"")


def to_jpeg(data: bytes) -> bytes:
    r"""Return a PNG as a JPEG, for APIs that send JPEGs.

    >>> to_jpeg(paint_plain("a fox", 2, 2))[:3]
    b'\xff\xd8\xff'
    """
    import PIL.Image

    file = io.BytesIO()
    with PIL.Image.open(io.BytesIO(data)) as image:
        image.convert("RGB").save(file, "JPEG")
    return file.getvalue()


class FakeApi:
    """The base class of a fake. A subclass answers requests in `handle`.

    The scenarios: ``refused`` (by the safety system, under the status that the API uses), ``invalid`` (its
    validation error), ``rate_limited`` (429 with its wait, once, then success), ``failing`` (its 5xx,
    always), ``lost_submit`` (the API accepts, and the reply is lost), ``lost_poll`` (the first poll is
    lost), ``expired_link`` (the result is gone), ``fewer`` (one image fewer than requested, at least one),
    ``wrong_type`` (a JPEG that is declared as PNG, or the reverse).

    Args:
        scenario: one of `SCENARIOS`.
        paint: paints the images.
        polls: number of polls that find a job at work.

    Attributes:
        scenario, paint, polls: as given.
        count: number of requests by method and path, for tests.
        image_type: the media type of the API's images, "image/png" or "image/jpeg".
    """

    scenarios: ClassVar[tuple[str, ...]] = SCENARIOS
    image_type: ClassVar[str] = "image/png"

    def __init__(self, scenario: str = "success", *, paint: Paint = paint_plain, polls: int = 2) -> None:
        if scenario not in self.scenarios:
            raise ValueError(f"no scenario {scenario!r}; there are {', '.join(self.scenarios)}")
        self.scenario = scenario
        self.paint = paint
        self.polls = polls
        self.count: dict[str, int] = {}
        self._lock = threading.Lock()

    def answer(self, request: FakeRequest) -> FakeReply:
        """Count a request and return its reply. Thread-safe."""
        with self._lock:
            name = f"{request.method} {request.path}"
            self.count[name] = self.count.get(name, 0) + 1
            return self.handle(request)

    def answer_parts(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> FakeReply:
        """Return the reply to a request in its parts."""
        return self.answer(FakeRequest(method, url, headers, body))

    def handle(self, request: FakeRequest) -> FakeReply:
        """Return the reply to a request."""
        raise NotImplementedError

    def happens_once(self, name: str) -> bool:
        """Return True for the first question about a name: for faults that heal."""
        key = f"once {name}"
        self.count[key] = self.count.get(key, 0) + 1
        return self.count[key] == 1

    def find_fault(self, busy: FakeReply, failing: FakeReply) -> FakeReply | None:
        """Return the reply to a submit in the scenarios ``rate_limited``, once, and ``failing``; else None.

        Args:
            busy: the API's 429 with its wait.
            failing: its 5xx.
        """
        if self.scenario == "rate_limited" and self.happens_once("wait"):
            return busy
        return failing if self.scenario == "failing" else None

    def count_images(self, wanted: int) -> int:
        """Return the number of images that the API makes: fewer in the scenario ``fewer``."""
        return max(1, wanted - 1) if self.scenario == "fewer" else wanted

    @property
    def declared_type(self) -> str:
        """The media type that the API declares for its images, wrong in the scenario ``wrong_type``."""
        is_png = (self.image_type == "image/png") != (self.scenario == "wrong_type")
        return "image/png" if is_png else "image/jpeg"

    def draw_image(self, prompt: str, width: int, height: int) -> bytes:
        """Return a painted image of the API's own type."""
        data = self.paint(prompt, width, height)
        return data if self.image_type == "image/png" else to_jpeg(data)

    def serve_image(self, prompt: str, width: int, height: int) -> FakeReply:
        """Return the reply of a store with a painted image; 404 in the scenario ``expired_link``."""
        if self.scenario == "expired_link":
            return FakeReply(404, {"content-type": "text/plain"}, b"Not Found")
        return image_reply(self.draw_image(prompt, width, height), self.declared_type)
