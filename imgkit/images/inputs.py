"""Pictures that the caller gives: opened once, judged by their bytes, sent block by block.

Opening happens in a `Run` need, since any of it may block. What comes out is an `InputFile`: its
digest is known, it can be read again and again from the same bytes, and it never moves a file
position that belongs to the caller.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import stat
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import IO, Any, Literal, NoReturn, TypeAlias, get_args

from imgkit.errors import ImgkitError, InvalidRequestError
from imgkit.images.image import Image
from imgkit.images.sniff import Kind, ReadAt, is_complete, sniff_file
from imgkit.redact import safe_url, scrub
from imgkit.wire.json_values import decode_data_url, is_data_url
from imgkit.wire.messages import BLOCK_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageReference:
    """An input of an edit that is not uploaded: exactly one of the two is given.

    The edit then goes as JSON (API reference of images/edits, read 2026-11-23); other inputs of the same edit
    go along as ``data:`` URLs.

    Attributes:
        url: an https URL that the API fetches.
        file_id: id of a file that was uploaded to the API before.
    """

    url: str | None = None
    file_id: str | None = None

    @property
    def problem(self) -> str | None:
        """What is wrong with it, None if nothing is."""
        if (self.url is None) == (self.file_id is None):
            return "needs a url or a file_id, and not both."
        if self.url is not None and not (isinstance(self.url, str) and self.url.startswith("https://")):
            return "needs an https:// URL: other pictures are given as they are."
        if self.file_id is not None and not (isinstance(self.file_id, str) and self.file_id.strip()):
            return "needs a file_id that is not empty."
        return None

    def __repr__(self) -> str:
        named = f"file_id={self.file_id!r}" if self.url is None else f"url={safe_url(str(self.url))!r}"
        return f"ImageReference({named})"


MOST_BYTES = 256 * 1024 * 1024
"""Largest input in bytes; above the limit of every known server, so only runaway inputs meet it."""

MOST_PIXELS = 500_000_000
"""Largest input in pixels, by its header: more is a decompression bomb, not a picture."""

UPLOAD_FORMATS = ("png", "jpeg", "webp", "gif")

_IN_MEMORY_BYTES = 8 * 1024 * 1024
_SHOWN_CHARACTERS = 200
_SEEKING = threading.Lock()
_PNG_MODES = {"I": "I;16", "La": "LA"}


Prepare: TypeAlias = Literal["check", "fit"]
"""What becomes of pictures that may not fit: refused, or changed."""


def parse_prepare(given: object) -> Prepare | None:
    """Return a checked choice. Raises InvalidRequestError."""
    if given is not None and given not in get_args(Prepare):
        raise InvalidRequestError({"prepare": f"is {str(given)[:40]!r}: give 'check', 'fit' or None"})
    return given  # type: ignore[return-value]  # checked above


class RawFile:
    """Bytes that the caller gave, whatever they are.

    Attributes:
        field: where it stands in the request, such as "image" or "image.1"; named in errors.
        length: size in bytes.
    """

    def __init__(
        self, field: str, length: int, read_at: ReadAt, unchanged: Callable[[], bool] = lambda: True
    ) -> None:
        self.field = field
        self.length = length
        self._read_at = read_at
        self._unchanged = unchanged

    def read_at(self, size: int, position: int) -> bytes:
        """Return up to `size` bytes from `position` on; nobody's file position is moved."""
        return self._read_at(size, position)

    def blocks(self) -> Iterator[bytes]:
        """Yield the bytes from the beginning.

        Raises:
            InvalidRequestError: the file has changed since it was opened. The last block is held
                back until that is known, so a changed file never goes out whole.
        """
        last = b""
        for block in self._raw_blocks():
            if last:
                yield last
            last = block
        if not self._unchanged():
            self._refuse("changed while it was being sent: nothing complete was sent; try again")
        if last:
            yield last

    def read(self) -> bytes:
        """Return the whole file."""
        return b"".join(self.blocks())

    def _raw_blocks(self) -> Iterator[bytes]:
        position = 0
        while position < self.length:
            block = self._read_at(min(BLOCK_BYTES, self.length - position), position)
            if not block:
                self._refuse("became shorter while it was being read: nothing was sent; try again")
            position += len(block)
            yield block

    def _refuse(self, problem: str) -> NoReturn:
        raise InvalidRequestError({self.field: f"{problem}."})


class ImageFile(RawFile):
    """A picture that is about to be sent.

    Attributes:
        kind: format and size, read from its bytes.
        sha256: hexadecimal digest of its bytes.
    """

    def __init__(
        self, field: str, length: int, read_at: ReadAt, unchanged: Callable[[], bool] = lambda: True
    ) -> None:
        super().__init__(field, length, read_at, unchanged)
        digest = hashlib.sha256()
        for block in self._raw_blocks():
            digest.update(block)
        self.sha256 = digest.hexdigest()
        self.kind = self._judge()

    @classmethod
    def of(cls, file: RawFile) -> ImageFile:
        """Return opened bytes as the picture that they are.

        Raises:
            InvalidRequestError: they are none that could be sent as it is.
        """
        return file if isinstance(file, cls) else cls(file.field, file.length, file._read_at, file._unchanged)

    def _judge(self) -> Kind:
        kind, head = sniff_file(self.length, self._read_at)
        if kind is None or kind.format not in UPLOAD_FORMATS:
            what = kind.format if kind else _looks_like(head)
            self._refuse(f"is {what}, not a PNG, JPEG, WebP or GIF picture: convert it first")
        if kind.width == 0 or kind.height == 0:
            self._refuse(f"is a picture of {kind.width}x{kind.height} pixels: give one that shows something")
        if kind.width is None or kind.height is None:
            self._refuse(f"has a broken {kind.format} header: its size cannot be read; open and save it anew")
        if kind.width * kind.height > MOST_PIXELS or max(kind.width, kind.height) > 65_535:
            self._refuse(f"claims {kind.width}x{kind.height} pixels: shrink it first")
        if not is_complete(self.length, self._read_at):
            self._refuse(f"is a {kind.format} picture that is cut off: get the whole file")
        return kind


def check_type(value: object) -> str | None:
    """Return why `value` can be no image input, None if its type is one. Looks at no bytes."""
    if isinstance(value, str):
        if re.match(r"https?://", value, re.IGNORECASE):
            return (
                "is a URL, and imgkit does not fetch pictures to send: download it, and give the file; or "
                "let the API fetch it, with ImageReference(url=…)."
            )
        return "is an empty path." if not value else None
    if isinstance(value, bytes | bytearray | memoryview | os.PathLike | Image):
        return None
    if isinstance(value, ImageReference):
        return value.problem
    if hasattr(value, "read") or _is_pil(value):
        return None
    return (
        f"is of type {type(value).__name__}: give a path, bytes, an open binary file, a PIL image, an "
        "image of an earlier reply, or a data: URL."
    )


def open_input(value: Any, field: str, cleanup: ExitStack) -> ImageFile:
    """Open an image input. May block.

    Args:
        value: one that `check_type` accepts.
        field: its place in the request, for errors.
        cleanup: gets the descriptors and temporary files to close.

    Raises:
        InvalidRequestError: missing, not a regular file, unreadable, empty, not a whole picture.
    """
    return ImageFile.of(open_file(value, field, cleanup))


def open_file(value: Any, field: str, cleanup: ExitStack) -> RawFile:
    """Open an image input as `open_input` does, whatever its bytes are: they are not looked at."""
    if isinstance(value, str) and is_data_url(value):
        return _from_bytes(_data_url(value, field), field)
    if isinstance(value, str | os.PathLike):
        return _from_path(os.fspath(value), field, cleanup)
    if isinstance(value, bytes | bytearray | memoryview):
        return _from_bytes(bytes(value), field)
    if isinstance(value, Image):
        return _from_bytes(value.data, field)
    if _is_pil(value):
        return _from_bytes(_encode_pil(value, field), field)
    return _from_stream(value, field, cleanup)


def _from_bytes(data: bytes, field: str) -> RawFile:
    _check_length(len(data), field)
    view = memoryview(data)
    return RawFile(field, len(data), lambda size, at: bytes(view[at : at + size]))


def _from_path(path: str | bytes, field: str, cleanup: ExitStack) -> RawFile:
    shown = _shown(os.fsdecode(path))
    try:
        # O_NONBLOCK: opening a FIFO would otherwise wait for a writer for ever.
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
        flags |= getattr(os, "O_BINARY", 0)
        descriptor = os.open(path, flags)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InvalidRequestError({field: f"cannot open {shown}: {_said(reason)}. Check the path."}) from None
    cleanup.callback(os.close, descriptor)
    return _from_descriptor(descriptor, 0, shown, field)


def _from_descriptor(descriptor: int, start: int, shown: str, field: str) -> RawFile:
    before = os.fstat(descriptor)
    if stat.S_ISDIR(before.st_mode):
        raise InvalidRequestError({field: f"{shown} is a folder: give a picture file."})
    if not stat.S_ISREG(before.st_mode):
        raise InvalidRequestError({field: f"{shown} is not a regular file: give a picture file."})
    _check_length(before.st_size - start, field, shown)

    def read_at(size: int, position: int) -> bytes:
        try:
            return _pread(descriptor, size, start + position)
        except OSError as error:
            raise InvalidRequestError({field: f"cannot read {shown}: {error.strerror}."}) from None

    def unchanged() -> bool:
        now = os.fstat(descriptor)
        return (now.st_size, now.st_mtime_ns, now.st_ctime_ns) == (
            before.st_size, before.st_mtime_ns, before.st_ctime_ns,
        )  # fmt: skip

    return RawFile(field, before.st_size - start, read_at, unchanged)


def _pread(descriptor: int, size: int, position: int) -> bytes:
    if hasattr(os, "pread"):
        return os.pread(descriptor, size, position)
    with _SEEKING:  # Windows; the descriptor is then our own
        os.lseek(descriptor, position, os.SEEK_SET)
        return os.read(descriptor, size)


def _from_stream(stream: IO[Any], field: str, cleanup: ExitStack) -> RawFile:
    """Open a file object at its position, which stays where it is if that can be."""
    try:
        if hasattr(stream, "encoding"):
            raise InvalidRequestError({field: "is open as text: open it with mode 'rb'."})
        if _is_plain_file(stream) and hasattr(os, "pread") and stream.seekable():
            descriptor = os.dup(stream.fileno())  # the caller may close theirs while this is being sent
            cleanup.callback(os.close, descriptor)
            shown = f"the file {_shown(str(stream.name))}"
            return _from_descriptor(descriptor, stream.tell(), shown, field)
        return _from_copy(stream, field, cleanup)
    except ImgkitError:
        raise
    except Exception as error:
        # The object is the caller's: whatever it raises is the input's fault, not a bug of ours.
        raise InvalidRequestError(
            {field: f"the file object failed ({type(error).__name__}: {_said(error)}). Is it still open?"}
        ) from None


def _is_plain_file(stream: IO[Any]) -> bool:
    """Return whether its descriptor gives its bytes; that of a GzipFile, say, gives the packed ones."""
    return type(stream) is io.FileIO or (type(stream) is io.BufferedReader and type(stream.raw) is io.FileIO)


def _from_copy(stream: IO[Any], field: str, cleanup: ExitStack) -> RawFile:
    seekable = bool(getattr(stream, "seekable", lambda: False)())
    start = stream.tell() if seekable else 0
    copy = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES)  # noqa: SIM115 - closed with the call
    cleanup.callback(copy.close)
    length = 0
    try:
        while block := stream.read(BLOCK_BYTES):
            if not isinstance(block, bytes | bytearray | memoryview):
                raise InvalidRequestError({field: f"its read() gives {type(block).__name__}, not bytes."})
            length += len(block)
            if length > MOST_BYTES:
                break
            copy.write(block)
    finally:
        if seekable:
            stream.seek(start)
    _check_length(length, field, "the file object, from its position on,")

    reading = threading.Lock()  # the requests of one call send it at the same time

    def read_at(size: int, position: int) -> bytes:
        with reading:
            copy.seek(position)
            return copy.read(size)

    return RawFile(field, length, read_at)


def _check_length(length: int, field: str, shown: str = "the picture") -> None:
    if length <= 0:
        raise InvalidRequestError({field: f"{shown} is empty (0 bytes): give a picture."})
    if length > MOST_BYTES:
        raise InvalidRequestError({field: f"{shown} is over {MOST_BYTES} bytes: shrink it first."})


def _data_url(text: str, field: str) -> bytes:
    try:
        return decode_data_url(text)
    except ValueError as error:
        raise InvalidRequestError({field: f"is a data: URL that cannot be read: {_said(error)}."}) from None


def _is_pil(value: object) -> bool:
    # Without importing Pillow: whoever has such an image has imported it.
    return any(base.__module__ == "PIL.Image" and base.__name__ == "Image" for base in type(value).__mro__)


def _encode_pil(picture: Any, field: str) -> bytes:
    if 0 in picture.size:
        raise InvalidRequestError({field: f"is a PIL image of {picture.width}x{picture.height} pixels."})
    stream = io.BytesIO()
    try:
        if picture.mode not in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16", "I;16B"):
            other = "RGBA" if picture.has_transparency_data else "RGB"
            picture = picture.convert(_PNG_MODES.get(picture.mode, other))
        picture.save(stream, "PNG", compress_level=1)
    except Exception as error:
        raise InvalidRequestError(
            {field: f"the PIL image cannot be written as PNG ({type(error).__name__}: {_said(error)})."}
        ) from None
    return stream.getvalue()


def _shown(name: str) -> str:
    return repr(name if len(name) <= _SHOWN_CHARACTERS else name[:_SHOWN_CHARACTERS] + "…")


def _said(error: object) -> str:
    return scrub(str(error), limit=_SHOWN_CHARACTERS).rstrip(".")


_OTHER_FORMATS = {
    b"II*\0": "TIFF", b"MM\0*": "TIFF", b"\0\0\1\0": "an icon (ICO)",
    b"\0\0\0\x0cjP  ": "JPEG 2000", b"\xff\x0a": "JPEG XL", b"\0\0\0\x0cJXL ": "JPEG XL",
    b"8BPS": "Photoshop",
}  # fmt: skip
_BRANDS = {
    b"avif": "AVIF",
    b"avis": "AVIF",
    b"heic": "HEIC",
    b"heix": "HEIC",
    b"mif1": "HEIF",
    b"msf1": "HEIF",
}


def _looks_like(head: bytes) -> str:
    if head[4:8] == b"ftyp" and head[8:12] in _BRANDS:
        return _BRANDS[head[8:12]]
    if head.startswith(b"BM") and head[6:10] == bytes(4):
        return "BMP"
    for start, name in _OTHER_FORMATS.items():
        if head.startswith(start):
            return name
    if head.startswith(b"%PDF"):
        return "a PDF"
    if head.startswith((b"%!PS", b"\xc5\xd0\xd3\xc6")):
        return "PostScript"
    if head[:1024].lstrip().lower().startswith((b"<!doctype html", b"<html")):
        return "HTML"
    if b"\0" not in head[:1024]:
        return "text"
    return "something else"


@dataclass(frozen=True, slots=True)
class OpenedInputs:
    """The pictures of a request, opened.

    Attributes:
        image: in the caller's order; empty for `create_image`.
        mask, markup: where given.
    """

    image: tuple[ImageFile | ImageReference, ...] = ()
    mask: ImageFile | ImageReference | None = None
    markup: ImageFile | ImageReference | None = None

    def __iter__(self) -> Iterator[ImageFile | ImageReference]:
        yield from (one for one in (*self.image, self.mask, self.markup) if one is not None)

    @property
    def files(self) -> tuple[ImageFile, ...]:
        """Those that are sent."""
        return tuple(one for one in self if isinstance(one, ImageFile))

    @property
    def referring(self) -> bool:
        """Whether any of them is only named."""
        return any(isinstance(one, ImageReference) for one in self)
