"""Image inputs of a call: opened once, validated by their bytes, sent block by block.

Opening may block, so the core runs it as a `RunBlocking` effect. The result is an `ImageFile`: its digest is
known, it can be read repeatedly, and it never moves a file position of the caller.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import re
import stat
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from copy import copy
from dataclasses import dataclass, field
from typing import IO, Any, Literal, NoReturn, Self, TypeAlias, get_args

from imgkit.errors import ImgkitError, InvalidRequestError
from imgkit.files import open_regular_file
from imgkit.images.file_objects import copy_file_object
from imgkit.images.image import Image
from imgkit.images.mistakes import explain_missing_input, explain_text, suggest_name
from imgkit.images.pillow_inputs import UPLOAD_FORMATS, encode_pil, is_pil
from imgkit.images.references import ImageReference
from imgkit.images.sniff import Kind, ReadAt, guess_unsupported_format, is_complete, sniff_file
from imgkit.redact import scrub
from imgkit.wire.json_values import decode_data_url, is_data_url
from imgkit.wire.messages import BLOCK_BYTES
from imgkit.wire.plain_values import describe_failure, has_type, show_value, to_path, to_text, type_name

MAX_INPUT_BYTES = 256 * 1024 * 1024
"""Largest input in bytes. It is above the limit of every known server and stops only runaway inputs."""

MAX_INPUT_PIXELS = 500_000_000
"""Largest input in pixels by its header. A larger header is a decompression bomb."""

_MAX_EDGE_PX = 65_535
_QUOTED_CHARACTERS = 200
_SEEK_LOCK = threading.Lock()

Prepare: TypeAlias = Literal["check", "fit"]
"""Treatment of images that may not fit the model: "check" rejects them, "fit" changes them."""

OpenFile: TypeAlias = Callable[[object, str, ExitStack, float | None], "RawFile"]
"""A function with the arguments of `open_file`."""


def parse_prepare(value: object) -> Prepare | None:
    """Return the validated `prepare` argument of a call. Raises InvalidRequestError."""
    name = to_text(value)
    if value is not None and name not in get_args(Prepare):
        raise InvalidRequestError(
            {"prepare": f"{show_value(value)} is not a choice. Pass 'check', 'fit' or None."}
        )
    return name  # type: ignore[return-value]  # checked above


class RawFile:
    """An opened input of any format.

    Attributes:
        field: path in the request, such as "image" or "image.1", for error messages.
        length: size in bytes.
    """

    def __init__(
        self, field: str, length: int, read_at: ReadAt, is_unchanged: Callable[[], bool] = lambda: True
    ) -> None:
        self.field = field
        self.length = length
        self._read_at = read_at
        self._is_unchanged = is_unchanged

    def for_field(self, field: str) -> Self:
        """Return the same opened file as the input of another field; it is not read again."""
        file = copy(self)
        file.field = field
        return file

    def read_at(self, size: int, position: int) -> bytes:
        """Return up to `size` bytes from `position` on, without moving a file position.

        Raises:
            InvalidRequestError: the system cannot read the file.
        """
        try:
            return self._read_at(size, position)
        except OSError as error:
            raise InvalidRequestError({self.field: f"{error.strerror or error}."}) from None

    def blocks(self) -> Iterator[bytes]:
        """Yield the bytes from the beginning.

        Raises:
            InvalidRequestError: the file has changed since it was opened. The iterator holds the last
                block back until that check, so a changed file is never sent whole.
        """
        last = b""
        for block in self._iterate_blocks():
            if last:
                yield last
            last = block
        if not self._is_unchanged():
            self._reject("The file changed during the upload. imgkit sent no complete request. Try again.")
        if last:
            yield last

    def read(self) -> bytes:
        """Return the whole file; raises as `blocks` does."""
        return b"".join(self.blocks())

    def _iterate_blocks(self) -> Iterator[bytes]:
        position = 0
        while position < self.length:
            block = self.read_at(min(BLOCK_BYTES, self.length - position), position)
            if not block:
                self._reject("The file became shorter during reading. Nothing was sent. Try again.")
            position += len(block)
            yield block

    def _reject(self, problem: str) -> NoReturn:
        raise InvalidRequestError({self.field: problem})


class ImageFile(RawFile):
    """An opened image that an API may accept: a complete PNG, JPEG, WebP or GIF.

    >>> with ExitStack() as cleanup:
    ...     opened = open_input("data:;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAACAgQBADs=", "image", cleanup)
    >>> opened.kind
    Kind(format='gif', width=1, height=1)

    Attributes:
        kind: format and size by its bytes.
        sha256: hexadecimal digest of its bytes.
    """

    def __init__(
        self, field: str, length: int, read_at: ReadAt, is_unchanged: Callable[[], bool] = lambda: True
    ) -> None:
        super().__init__(field, length, read_at, is_unchanged)
        digest = hashlib.sha256()
        for block in self._iterate_blocks():
            digest.update(block)
        self.sha256 = digest.hexdigest()
        self.kind = validate_image(self)

    @classmethod
    def from_raw(cls, file: RawFile) -> ImageFile:
        """Return an opened input as an image.

        Raises:
            InvalidRequestError: the bytes are not an image that can be uploaded.
        """
        if isinstance(file, cls):
            return file
        return cls(file.field, file.length, file._read_at, file._is_unchanged)


@dataclass(frozen=True, slots=True)
class OpenedInputs:
    """The opened images of a request.

    >>> list(OpenedInputs(mask=ImageReference(file_id="file-123")))
    [ImageReference(file_id='file-123')]

    Attributes:
        image: in the caller's order; empty for `create_image`.
        mask, markup: None if the request has none.
        uploads: the API's handles of inputs that were uploaded before the request, by name.
    """

    image: tuple[ImageFile | ImageReference, ...] = ()
    mask: ImageFile | ImageReference | None = None
    markup: ImageFile | ImageReference | None = None
    uploads: Mapping[str, Any] = field(default_factory=dict)

    def __iter__(self) -> Iterator[ImageFile | ImageReference]:
        yield from (opened for opened in (*self.image, self.mask, self.markup) if opened is not None)

    @property
    def files(self) -> tuple[ImageFile, ...]:
        """The inputs to upload."""
        return tuple(opened for opened in self if isinstance(opened, ImageFile))

    @property
    def has_references(self) -> bool:
        """Whether an input is an `ImageReference`."""
        return any(isinstance(opened, ImageReference) for opened in self)


def find_type_problem(value: object) -> str | None:
    """Return why the type of `value` is no image input; None if it is one. Reads no bytes."""
    if isinstance(value, str):
        if re.match(r"(?!file:)(?:blob:)?[a-z][a-z0-9+.-]+://", value, re.IGNORECASE):
            return "The value is a URL, and imgkit does not fetch inputs. Download it and pass the file."
        return "The value is an empty path. Pass the path of an image." if not value else None
    if isinstance(value, bytes | bytearray | memoryview | os.PathLike | Image):
        return None
    if isinstance(value, ImageReference):
        return value.problem
    if hasattr(value, "read") or is_pil(value):
        return None
    if hasattr(type(value), "__array_interface__"):
        return "The value is an array. Pass PIL.Image.fromarray(array)."
    return (
        f"The value is of type {type_name(value)}. Pass a path, bytes, an open binary file, a PIL image, "
        "an image of an earlier response, or a data: URL."
    )


def validate_image(file: RawFile) -> Kind:
    """Return the kind of an opened image, by its header and its end marker. May block.

    Raises:
        InvalidRequestError: the bytes are not an image that can be uploaded.
    """
    kind, head = sniff_file(file.length, file.read_at)
    if kind is None or kind.format not in UPLOAD_FORMATS:
        name = kind.format if kind else guess_unsupported_format(head)
        if name == "text":
            file._reject(explain_text(head))
        file._reject(f"The file is {name}, not a PNG, JPEG, WebP or GIF image. Convert it.")
    if kind.width == 0 or kind.height == 0:
        file._reject(f"The image has {kind.width}x{kind.height} pixels. Pass an image with pixels.")
    if kind.width is None or kind.height is None:
        file._reject(f"The {kind.format} header is broken and has no readable size. Open and save it again.")
    if kind.width * kind.height > MAX_INPUT_PIXELS or max(kind.width, kind.height) > _MAX_EDGE_PX:
        file._reject(f"The header claims {kind.width}x{kind.height} pixels. Shrink the image.")
    if not is_complete(file.length, file.read_at):
        file._reject(f"The file is a {kind.format} image that is cut off. Get the complete file.")
    return kind


def open_input(value: object, field: str, cleanup: ExitStack) -> ImageFile:
    """Open an image input and validate its bytes. May block.

    Args:
        value: an input without a `find_type_problem`.
        field: its path in the request, for error messages.
        cleanup: receives the descriptors and temporary files to close.

    Raises:
        InvalidRequestError: missing, not a regular file, unreadable, empty, or not a complete image.
    """
    return ImageFile.from_raw(open_file(value, field, cleanup))


def open_file(value: Any, field: str, cleanup: ExitStack, deadline: float | None = None) -> RawFile:
    """Open an image input like `open_input`, without validating its bytes. May block until `deadline`."""
    with _reject_failures(field, f"The {type_name(value)} cannot be read", "Pass a path or bytes."):
        return _open_any(value, field, cleanup, deadline)


@contextmanager
def _reject_failures(field: str, problem: str, remedy: str) -> Iterator[None]:
    """Turn the exceptions of an object into invalid input: the object is the caller's, no bug of imgkit."""
    try:
        yield
    except ImgkitError:
        raise
    except Exception as error:
        raise InvalidRequestError({field: f"{problem} ({describe_failure(error)}). {remedy}"}) from None


def _open_any(value: Any, field: str, cleanup: ExitStack, deadline: float | None) -> RawFile:
    if has_type(value, str) and is_data_url(value):
        return _open_bytes(_decode_data_url(value, field), field)
    if has_type(value, str) or hasattr(type(value), "__fspath__"):
        try:
            return _open_path(to_path(value), field, cleanup)
        except ValueError as error:
            raise InvalidRequestError({field: f"The path cannot be used: {error}. Pass a str."}) from None
    if isinstance(value, bytes | bytearray | memoryview):
        return _open_bytes(bytes(value), field)
    if isinstance(value, Image):
        return _open_bytes(bytes(memoryview(value.data)), field)
    if is_pil(value):
        return _open_bytes(encode_pil(value, field, MAX_INPUT_BYTES), field)
    return _open_stream(value, field, cleanup, deadline)


def _open_bytes(data: bytes, field: str) -> RawFile:
    _check_length(len(data), field)
    view = memoryview(data)
    return RawFile(field, len(data), lambda size, position: bytes(view[position : position + size]))


def _decode_data_url(text: str, field: str) -> bytes:
    try:
        return decode_data_url(text)
    except ValueError as error:
        raise InvalidRequestError(
            {field: f"The data: URL cannot be read: {scrub(str(error), limit=_QUOTED_CHARACTERS)}."}
        ) from None


def _open_path(path: str, field: str, cleanup: ExitStack) -> RawFile:
    quoted = _quote(path)
    try:
        stream = open_regular_file(path)
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in (errno.EISDIR, errno.EINVAL):
            kind = "a folder" if error.errno == errno.EISDIR else "not a regular file"
            raise InvalidRequestError({field: f"{quoted} is {kind}. Pass an image file."}) from None
        reason = scrub(str(getattr(error, "strerror", None) or error), limit=_QUOTED_CHARACTERS)
        problem = explain_missing_input(path) or (
            f"Cannot open {quoted}: {reason}{suggest_name(path)}. Check the path."
        )
        raise InvalidRequestError({field: problem}) from None
    cleanup.callback(stream.close)
    return _open_descriptor(stream.fileno(), 0, quoted, field)


def _open_descriptor(descriptor: int, start: int, quoted: str, field: str) -> RawFile:
    before = os.fstat(descriptor)
    if not stat.S_ISREG(before.st_mode):
        raise InvalidRequestError({field: f"{quoted} is not a regular file. Pass an image file."})
    _check_length(before.st_size - start, field, quoted)

    def read_at(size: int, position: int) -> bytes:
        try:
            return _read_descriptor(descriptor, size, start + position)
        except OSError as error:
            raise OSError(error.errno, f"Cannot read {quoted}: {error.strerror}") from None

    def is_unchanged() -> bool:
        now = os.fstat(descriptor)
        return (now.st_size, now.st_mtime_ns, now.st_ctime_ns) == (
            before.st_size, before.st_mtime_ns, before.st_ctime_ns,
        )  # fmt: skip

    return RawFile(field, before.st_size - start, read_at, is_unchanged)


def _read_descriptor(descriptor: int, size: int, position: int) -> bytes:
    if hasattr(os, "pread"):
        return os.pread(descriptor, size, position)
    with _SEEK_LOCK:  # Windows; the descriptor is then our own
        os.lseek(descriptor, position, os.SEEK_SET)
        return os.read(descriptor, size)


def _open_stream(stream: IO[Any], field: str, cleanup: ExitStack, deadline: float | None) -> RawFile:
    """Open a file object at its position and leave the position there if possible."""
    with _reject_failures(field, "The file object failed", "Is it still open?"):
        if hasattr(stream, "encoding"):
            raise InvalidRequestError({field: "The file is open as text. Open it with mode 'rb'."})
        if _is_plain_file(stream) and hasattr(os, "pread") and stream.seekable():
            # The caller may close the own descriptor during the upload.
            descriptor = os.dup(stream.fileno())
            cleanup.callback(os.close, descriptor)
            quoted = f"The file {_quote(str(stream.name))}"
            return _open_descriptor(descriptor, stream.tell(), quoted, field)
        return _copy_stream(stream, field, cleanup, deadline)


def _is_plain_file(stream: IO[Any]) -> bool:
    """Return whether the descriptor reads the stream's bytes. A GzipFile's reads compressed bytes."""
    return type(stream) is io.FileIO or (type(stream) is io.BufferedReader and type(stream.raw) is io.FileIO)


def _copy_stream(stream: IO[Any], field: str, cleanup: ExitStack, deadline: float | None) -> RawFile:
    copy, length = copy_file_object(stream, MAX_INPUT_BYTES, deadline)
    cleanup.callback(copy.close)
    _check_length(length, field, "The file object, from its position on,")

    lock = threading.Lock()  # the requests of a call read it concurrently

    def read_at(size: int, position: int) -> bytes:
        with lock:
            copy.seek(position)
            return copy.read(size)

    return RawFile(field, length, read_at)


def _check_length(length: int, field: str, subject: str = "The image") -> None:
    if length <= 0:
        remedy = "Call seek(0) first, or pass an image" if "position" in subject else "Pass an image"
        raise InvalidRequestError({field: f"{subject} is empty (0 bytes). {remedy}."})
    if length > MAX_INPUT_BYTES:
        raise InvalidRequestError({field: f"{subject} is over {MAX_INPUT_BYTES} bytes. Shrink the image."})


def _quote(name: str) -> str:
    return repr(name if len(name) <= _QUOTED_CHARACTERS else name[:_QUOTED_CHARACTERS] + "…")
