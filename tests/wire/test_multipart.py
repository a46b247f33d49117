"""Forms: their bytes, their boundary, and what an independent parser makes of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from email.message import Message
from email.parser import BytesParser
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from imgkit.wire.multipart import Field, File, MultipartBody


@dataclass
class Content:
    """Bytes of a file part, given in small blocks."""

    data: bytes

    @property
    def length(self) -> int:
        return len(self.data)

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    def blocks(self) -> Iterator[bytes]:
        for at in range(0, len(self.data), 5):
            yield self.data[at : at + 5]


def file(
    name: str = "image", filename: str = "image.png", media_type: str = "image/png", data: bytes = b"PNG"
) -> File:
    return File(name, filename, media_type, Content(data))


def sent(body: MultipartBody) -> bytes:
    return b"".join(body.blocks())


def parsed(body: MultipartBody) -> list[tuple[str, str | None, str | None, bytes]]:
    """Return name, file name, media type and content of the parts, as the standard library reads them."""
    head = f"MIME-Version: 1.0\r\nContent-Type: {body.content_type}\r\n\r\n".encode()
    message = BytesParser().parsebytes(head + sent(body))
    assert not message.defects
    parts: Any = message.get_payload()
    return [_read(part) for part in parts]


def _read(part: Message) -> tuple[str, str | None, str | None, bytes]:
    raw = dict(part.raw_items())
    header = Message()
    disposition = raw["Content-Disposition"].encode("ascii", "surrogateescape")
    header["content-disposition"] = disposition.decode("utf-8")
    name = header.get_param("name", header="content-disposition")
    filename = header.get_param("filename", header="content-disposition")
    assert isinstance(name, str)
    assert filename is None or isinstance(filename, str)
    content = part.get_payload(decode=True)
    assert isinstance(content, bytes)
    return name, filename, raw.get("Content-Type"), content


def escaped(name: str) -> str:
    return name.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")


def test_exact_bytes() -> None:
    """A form goes over the wire like this, byte for byte."""
    body = MultipartBody(
        (Field("a[]", "foo"), Field("a[]", "bär"), file("image", "image.png", "image/png", b"\x89P"))
    )
    line = b"--" + body.boundary.encode()
    assert sent(body) == b"\r\n".join(
        [
            line,
            b'Content-Disposition: form-data; name="a[]"',
            b"",
            b"foo",
            line,
            b'Content-Disposition: form-data; name="a[]"',
            b"",
            "bär".encode(),
            line,
            b'Content-Disposition: form-data; name="image"; filename="image.png"',
            b"Content-Type: image/png",
            b"",
            b"\x89P",
            line + b"--",
            b"",
        ]
    )
    assert body.content_type == f"multipart/form-data; boundary={body.boundary}"


def test_the_same_each_time() -> None:
    """Equal parts make equal bytes, each time and from other objects: recordings are matched by them."""
    body, twin = (MultipartBody((Field("n", "1"), file(data=b"0123456789ab"))) for _ in range(2))
    assert sent(body) == sent(body) == sent(twin)
    assert len(body.boundary) == 64


PARTS: tuple[Field | File, ...] = (Field("ab", "c"), file(), Field("n", "1"))
OTHERS: list[tuple[Field | File, ...]] = [
    (Field("a", "bc"), *PARTS[1:]),
    (Field("ab", "d"), *PARTS[1:]),
    (Field("abc", ""), *PARTS[1:]),
    (PARTS[0], file(name="image[]"), PARTS[2]),
    (PARTS[0], file(filename="x.png"), PARTS[2]),
    (PARTS[0], file(media_type="image/gif"), PARTS[2]),
    (PARTS[0], file(data=b"PNF"), PARTS[2]),
    (PARTS[1], PARTS[0], PARTS[2]),
    PARTS[:2],
    (*PARTS, Field("n", "1")),
    (Field("ab", "c"), Field("image", "image.png"), Field("n", "1")),
    (),
]


def test_boundary_depends_on_every_part() -> None:
    """Forms that differ in anything, were it where one text ends and the next begins, differ in boundary."""
    boundaries = {MultipartBody(parts).boundary for parts in (PARTS, *OTHERS)}
    assert len(boundaries) == 1 + len(OTHERS)


def test_an_old_boundary_inside() -> None:
    """A part that holds the boundary of the form without it makes another boundary, and stays one part."""
    old = MultipartBody((Field("prompt", "x"),))
    nested = replace(old, parts=(Field("prompt", f"x\r\n--{old.boundary}--\r\n"), file(data=sent(old))))
    assert old.boundary != nested.boundary
    assert [content for *_, content in parsed(nested)] == [
        f"x\r\n--{old.boundary}--\r\n".encode(),
        sent(old),
    ]


def test_repr_shows_no_content() -> None:
    """What is logged of a form are names and size, never the prompt."""
    body = MultipartBody((Field("prompt", "my secret otter"), file()))
    assert repr(body) == f"MultipartBody(prompt, image; {len(sent(body))} bytes)"


ODD_NAMES = ['a"b', "a\r\nX-Evil: 1", 'x"; filename="evil.sh', "näme ☃", "a;b=c", "svg[a]", "'"]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names(name: str) -> None:
    """A name can neither end its quotes nor its line, and keeps its letters."""
    body = MultipartBody((Field(name, "v"), file(name=name, filename=name)))
    assert parsed(body) == [
        (escaped(name), None, None, b"v"),
        (escaped(name), escaped(name), "image/png", b"PNG"),
    ]


# A backslash in a name is sent as it is, as browsers do; the standard library's parser would unescape it.
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\\\0"), min_size=1, max_size=12)
VALUES = st.text(st.characters(codec="utf-8") | st.sampled_from("\r\n-"), max_size=30)
FIELDS = st.builds(Field, NAMES, VALUES)
FILES = st.builds(file, NAMES, NAMES, st.sampled_from(["image/png", "image/jpeg"]), st.binary(max_size=60))


@given(st.lists(FIELDS | FILES, min_size=1, max_size=5))
@example([Field("a", "\r\n--"), Field("b", "\r"), Field("c", "--\r\n\r\n"), file(data=b"\n\r\n--")])
def test_round_trip(parts: list[Field | File]) -> None:
    """An independent parser reads back every name, value and byte; the length is what is announced."""
    body = MultipartBody(tuple(parts))
    assert body.length == len(sent(body))
    expected = [
        (escaped(part.name), None, None, part.value.encode())
        if isinstance(part, Field)
        else (escaped(part.name), escaped(part.filename), part.media_type, b"".join(part.content.blocks()))
        for part in parts
    ]
    assert parsed(body) == expected
