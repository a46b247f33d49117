"""Multipart forms: their bytes, their boundary, and an independent parser's view of them."""

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
    """The bytes of a file part, in blocks of five bytes."""

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


def file_part(
    name: str = "image", filename: str = "image.png", media_type: str = "image/png", data: bytes = b"PNG"
) -> File:
    return File(name, filename, media_type, Content(data))


def to_bytes(body: MultipartBody) -> bytes:
    return b"".join(body.blocks())


def parse_parts(body: MultipartBody) -> list[tuple[str, str | None, str | None, bytes]]:
    """Return name, file name, media type and content of each part, as the standard library reads it."""
    head = f"MIME-Version: 1.0\r\nContent-Type: {body.content_type}\r\n\r\n".encode()
    message = BytesParser().parsebytes(head + to_bytes(body))
    assert not message.defects
    parts: Any = message.get_payload()
    return [_parse_part(part) for part in parts]


def _parse_part(part: Message) -> tuple[str, str | None, str | None, bytes]:
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


def escape_name(name: str) -> str:
    return name.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")


def test_exact_bytes() -> None:
    """Writes exactly these bytes."""
    body = MultipartBody(
        (Field("a[]", "foo"), Field("a[]", "bär"), file_part("image", "image.png", "image/png", b"\x89P"))
    )
    line = b"--" + body.boundary.encode()
    assert to_bytes(body) == b"\r\n".join(
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


def test_equal_parts_give_equal_bytes() -> None:
    """Gives equal bytes for equal parts, because recordings are matched by them."""
    body, equal_body = (MultipartBody((Field("n", "1"), file_part(data=b"0123456789ab"))) for _ in range(2))
    assert to_bytes(body) == to_bytes(body) == to_bytes(equal_body)
    assert len(body.boundary) == 64


PARTS: tuple[Field | File, ...] = (Field("ab", "c"), file_part(), Field("n", "1"))
OTHER_FORMS: list[tuple[Field | File, ...]] = [
    (Field("a", "bc"), *PARTS[1:]),
    (Field("ab", "d"), *PARTS[1:]),
    (Field("abc", ""), *PARTS[1:]),
    (PARTS[0], file_part(name="image[]"), PARTS[2]),
    (PARTS[0], file_part(filename="x.png"), PARTS[2]),
    (PARTS[0], file_part(media_type="image/gif"), PARTS[2]),
    (PARTS[0], file_part(data=b"PNF"), PARTS[2]),
    (PARTS[1], PARTS[0], PARTS[2]),
    PARTS[:2],
    (*PARTS, Field("n", "1")),
    (Field("ab", "c"), Field("image", "image.png"), Field("n", "1")),
    (),
]


def test_boundary_depends_on_every_part() -> None:
    """Gives a different boundary for each difference, even in the split between two texts."""
    boundaries = {MultipartBody(parts).boundary for parts in (PARTS, *OTHER_FORMS)}
    assert len(boundaries) == 1 + len(OTHER_FORMS)


def test_a_part_with_another_boundary_inside() -> None:
    """Chooses a new boundary for a part that contains the old form, and keeps it as one part."""
    inner = MultipartBody((Field("prompt", "x"),))
    nested = replace(
        inner, parts=(Field("prompt", f"x\r\n--{inner.boundary}--\r\n"), file_part(data=to_bytes(inner)))
    )
    assert inner.boundary != nested.boundary
    assert [content for *_, content in parse_parts(nested)] == [
        f"x\r\n--{inner.boundary}--\r\n".encode(),
        to_bytes(inner),
    ]


def test_repr_shows_no_content() -> None:
    """Shows the names and the size of a form, and never the prompt."""
    body = MultipartBody((Field("prompt", "my secret otter"), file_part()))
    assert repr(body) == f"MultipartBody(prompt, image; {len(to_bytes(body))} bytes)"


ODD_NAMES = ['a"b', "a\r\nX-Evil: 1", 'x"; filename="evil.sh', "näme ☃", "a;b=c", "svg[a]", "'"]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names(name: str) -> None:
    """Escapes quotes and line ends in a name, and keeps its letters."""
    body = MultipartBody((Field(name, "v"), file_part(name=name, filename=name)))
    assert parse_parts(body) == [
        (escape_name(name), None, None, b"v"),
        (escape_name(name), escape_name(name), "image/png", b"PNG"),
    ]


# Names contain no backslash: forms send it as browsers do, and the standard library's parser unescapes it.
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\\\0"), min_size=1, max_size=12)
VALUES = st.text(st.characters(codec="utf-8") | st.sampled_from("\r\n-"), max_size=30)
FIELDS = st.builds(Field, NAMES, VALUES)
FILES = st.builds(
    file_part, NAMES, NAMES, st.sampled_from(["image/png", "image/jpeg"]), st.binary(max_size=60)
)


@given(st.lists(FIELDS | FILES, min_size=1, max_size=5))
@example([Field("a", "\r\n--"), Field("b", "\r"), Field("c", "--\r\n\r\n"), file_part(data=b"\n\r\n--")])
def test_round_trip(parts: list[Field | File]) -> None:
    """Lets an independent parser read back every name, value and byte; announces the exact length."""
    body = MultipartBody(tuple(parts))
    assert body.length == len(to_bytes(body))
    expected = [
        (escape_name(part.name), None, None, part.value.encode())
        if isinstance(part, Field)
        else (
            escape_name(part.name),
            escape_name(part.filename),
            part.media_type,
            b"".join(part.content.blocks()),
        )
        for part in parts
    ]
    assert parse_parts(body) == expected
