"""Bodies of requests: JSON or forms, read in blocks, with their images on disk."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

from aiohttp import BodyPartReader
from aiohttp.http_exceptions import BadHttpMessage
from aiohttp.web import BaseRequest

from imgkit.images.part_files import PartFile, PartFiles
from imgkit.images.references import ImageReference
from imgkit.server.arriving_bodies import ArrivingBody, invite_body, reject_large
from imgkit.server.envelopes import Rejection, reject_body, reject_value
from imgkit.server.form_reader import FormReader
from imgkit.server.upload_folder import UploadFolder
from imgkit.wire.json_body import JsonReply
from imgkit.wire.json_values import DivertedImage, Json, JsonSyntaxError, decode_data_url, is_data_url

MOST_FIELDS = 200
"""Most parts of a form."""

MAX_TEXT_BYTES = 4 * 1024 * 1024
"""Largest text of a form in all, and of a JSON body without its images."""

MOST_VALUES = 5000
"""Most values of a JSON body: to check a million takes seconds, in which nobody else is answered."""

_BLOCK_BYTES = 64 * 1024
_IMAGE_FIELD = re.compile(r"image(?:\[[0-9]{0,2}\])?")
_INTEGER = re.compile(r"-?[0-9]{1,12}")
_INTEGER_FIELDS = ("n", "partial_images", "output_compression", "seed", "frame_count", "frame_duration_ms")
_JSON_FIELDS = ("svg", "model_options")
_IMAGE_MEMBERS = frozenset({"image_url", "image", "images", "mask", "url", "b64_json"})
_FILE_ROLES = ("mask", "markup")

Values: TypeAlias = dict[str, Json]


class UploadedImage:
    """An image of a request, in memory if it is small, else in a file that is deleted after use.

    Args:
        file: the file.
    """

    def __init__(self, file: PartFile) -> None:
        self._file = file
        self.digest = file.sha256

    @property
    def input(self) -> bytes | Path:
        """The image as an input of a call."""
        return self._file.path or self._file.read()


ReceivedInput: TypeAlias = UploadedImage | ImageReference


class ReceivedBody(NamedTuple):
    """The content of a request.

    Attributes:
        values: the parameters, by name.
        text: the parameters as JSON, in the order of their names.
        images: the images, in order.
        others: mask and markup, by name.
    """

    values: Values
    text: str
    images: tuple[ReceivedInput, ...] = ()
    others: Mapping[str, ReceivedInput] = {}

    def digest(self, operation: str) -> str:
        """Return the digest of an operation with this content: equal requests have equal digests."""
        digest = hashlib.sha256(f"{operation} {self.text}".encode())
        for name, received in (*(("image", image) for image in self.images), *sorted(self.others.items())):
            if isinstance(received, UploadedImage):
                content = received.digest
            else:  # its repr lacks the query of the URL, which may be all that differs
                content = f"{received.url} {received.file_id}"
            digest.update(f"\n{name} {content}".encode())
        return digest.hexdigest()


async def receive_body(request: BaseRequest, uploads: UploadFolder, max_bytes: int) -> ReceivedBody:
    """Read the body of a request.

    Args:
        request: the request.
        uploads: folder for images that are not small.
        max_bytes: largest body.

    Raises:
        Rejection: the body is too large, too slow, of another type, or malformed; or other requests leave no
            room for its images.
        ConnectionError: the client left.
    """
    length = request.content_length
    if length is not None and length > max_bytes:
        raise reject_large(max_bytes)
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding != "identity":
        raise Rejection(
            415,
            "unsupported_content_encoding",
            f"The body is encoded as {encoding[:100]!r}. Send it as it is. Nothing was sent.",
            headers={"accept-encoding": "identity"},
            closes=True,
        )
    arriving = ArrivingBody(request.content, max_bytes)
    kind = request.content_type if "content-type" in request.headers else "application/json"
    is_form = kind == "multipart/form-data"
    if not is_form and kind not in ("application/json", "text/json") and not kind.endswith("+json"):
        raise Rejection(
            415,
            "unsupported_content_type",
            f"The body is {kind[:100]!r}. Send application/json or multipart/form-data. Nothing was sent.",
            closes=True,
        )
    await invite_body(request)
    if is_form:
        return await _receive_form(request, arriving, uploads)
    return await _receive_json(arriving, uploads)


async def _write(files: PartFiles | PartFile, made: Sequence[PartFile]) -> None:
    """Write received bytes to the disk.

    Args:
        files: the files to write.
        made: the same files, one by one.

    Raises:
        Rejection: the disk is full.
    """
    await asyncio.to_thread(files.write)
    if any(file.path is None and file.length and not file.buffered for file in made):
        raise Rejection(
            503,
            "no_disk_space",
            "The server cannot write an image to its disk. Nothing was sent.",
            closes=True,
        )


# --- Forms -----------------------------------------------------------------------------------


async def _receive_form(request: BaseRequest, arriving: ArrivingBody, uploads: UploadFolder) -> ReceivedBody:
    texts: dict[str, str] = {}
    files: list[tuple[str, UploadedImage]] = []
    text_bytes = 0
    try:
        reader = FormReader(request.headers, request.content)
        for _ in range(MOST_FIELDS):
            part = await arriving.wait(reader.next())
            arriving.check_length()
            if part is None:
                return _sort_parts(texts, files)
            name, is_file = reader.part_head
            if not isinstance(part, BodyPartReader) or not name:
                raise reject_body("A part of the form has no name, or is a form itself.")
            if part.headers.get("content-transfer-encoding", "binary").lower() not in (
                "binary",
                "7bit",
                "8bit",
            ):
                raise reject_body("A part of the form is encoded. Send its bytes as they are.")
            if is_file:
                files.append((name, await _read_file(part, arriving, uploads.new_file())))
                continue
            if name in texts:
                raise reject_value(name[:100], "The form has this parameter twice.")
            texts[name] = await _read_text(part, arriving, MAX_TEXT_BYTES - text_bytes)
            text_bytes += len(texts[name].encode())
    except (ValueError, AssertionError, BadHttpMessage, LookupError, RuntimeError):
        # aiohttp raises these for forms that break off, and for those without a boundary.
        raise reject_body("The form is malformed: it breaks off, or its boundary is missing.") from None
    raise reject_body(f"The form has over {MOST_FIELDS} parts.")


async def _read_text(part: BodyPartReader, arriving: ArrivingBody, max_bytes: int) -> str:
    data = bytearray()
    while block := await arriving.wait(part.read_chunk(_BLOCK_BYTES)):
        arriving.count(block)
        data += block
        if len(data) > max_bytes:
            raise reject_body(f"The texts of the form are over {MAX_TEXT_BYTES} bytes.")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise reject_body("A text of the form is not UTF-8.") from None


async def _read_file(part: BodyPartReader, arriving: ArrivingBody, file: PartFile) -> UploadedImage:
    # The name that the client gives a file is never used.
    while block := await arriving.wait(part.read_chunk(_BLOCK_BYTES)):
        arriving.count(block)
        file.add(bytes(block))
        if file.buffered >= 2 * _BLOCK_BYTES:
            await _write(file, [file])
    if file.path is not None and file.buffered:
        await _write(file, [file])
    return UploadedImage(file)


def _sort_parts(texts: dict[str, str], files: list[tuple[str, UploadedImage]]) -> ReceivedBody:
    images, others = [], {}
    if texts.pop("_charset_", "utf-8").strip().lower() != "utf-8":
        raise reject_body("The texts of the form are not UTF-8.")
    for name, file in files:
        if _IMAGE_FIELD.fullmatch(name):
            images.append(file)
        elif name in _FILE_ROLES and name not in others:
            others[name] = file
        else:
            raise reject_value(name[:100], "The form has a file of this name that no operation takes.")
    values: Values = {name: _read_value(name, text) for name, text in texts.items()}
    for name in [name for name in values if _IMAGE_FIELD.fullmatch(name) or name in _FILE_ROLES]:
        raise reject_value(name, "Send the image as a file of the form, with a file name.")
    return ReceivedBody(values, _dump_values(values), tuple(images), others)


def _read_value(name: str, text: str) -> Json:
    """Return the value of a form's text: a number, a boolean or JSON where the parameter is one."""
    if name in _INTEGER_FIELDS and _INTEGER.fullmatch(text.strip()):
        return int(text)
    if name == "stream" and text.strip().lower() in ("true", "false"):
        return text.strip().lower() == "true"
    if name in _JSON_FIELDS:
        try:
            value: Json = json.loads(text)
        except (ValueError, RecursionError):
            raise reject_value(name, "Must be a JSON object.") from None
        _check_values(value)
        return value
    return text


# --- JSON ------------------------------------------------------------------------------------


async def _receive_json(arriving: ArrivingBody, uploads: UploadFolder) -> ReceivedBody:
    files, made = uploads.new_files(), list[PartFile]()

    def make_file() -> PartFile:
        made.append(files.new_file())
        return made[-1]

    reader = JsonReply(_IMAGE_MEMBERS, make_file)
    async for block in arriving.blocks():
        reader.feed(block)
        if arriving.length - sum(file.length for file in made) * 4 // 3 > MAX_TEXT_BYTES:
            raise reject_body(f"The body has over {MAX_TEXT_BYTES} bytes beside its images.")
        if files.should_flush:
            await _write(files, made)
    reader.close()
    if files.is_behind:
        await _write(files, made)
    try:
        members = reader.json()
    except (ValueError, RecursionError) as error:
        place = _describe_place(error, has_columns=not reader.has_images)
        raise reject_body(f"The body is not JSON{place}.", "invalid_json") from None
    if not isinstance(members, dict):
        raise reject_body("The body must be a JSON object.", "invalid_json")
    _check_values(members)
    values = {name: value for name, value in members.items() if name not in ("image", "images", *_FILE_ROLES)}
    text = _dump_values(values)
    if members.get("images") is not None and members.get("image") is not None:
        raise reject_value("image", "Is the same as images. Send one of them.")
    name = "image" if members.get("images") is None else "images"
    given = members.get(name)
    listed = given if isinstance(given, list) else [] if given is None else [given]
    names = [f"{name}.{number}" if isinstance(given, list) else name for number in range(len(listed))]
    images = tuple(_read_image(entry, place, uploads) for place, entry in zip(names, listed, strict=True))
    others = {
        role: _read_image(members[role], role, uploads)
        for role in _FILE_ROLES
        if members.get(role) is not None
    }
    return ReceivedBody(values, text, images, others)


def _describe_place(error: Exception, *, has_columns: bool) -> str:
    """Return the place and the reason of an error in a JSON text, without a word of the text; "" for none."""
    if not isinstance(error, JsonSyntaxError):
        return ""
    # The text that was parsed has short marks in place of images, so columns behind them differ.
    column = f", column {error.column}" if has_columns else ""
    # Python's reasons may end with a piece of the text behind a colon, or with "at" or "starting at".
    reason = error.reason.partition(": ")[0].removesuffix(" at").removesuffix(" starting")
    return f" (line {error.line}{column}: {reason})"


def _dump_values(values: Values) -> str:
    """Return parameters as JSON, in the order of their names.

    Raises:
        Rejection: one of them is an image, or no JSON.
    """
    try:
        return json.dumps(values, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        raise reject_body("The body has a value that no parameter takes.", "invalid_json") from None


def _check_values(value: object) -> None:
    """Check the number of values in a JSON value.

    Raises:
        Rejection: there are too many.
    """
    waiting, count = [value], 0
    while waiting:
        entry = waiting.pop()
        inner = entry.values() if isinstance(entry, dict) else entry if isinstance(entry, list) else ()
        count += len(inner)
        if count > MOST_VALUES:
            raise reject_body(f"The body has over {MOST_VALUES} values.")
        waiting.extend(inner)


def _read_image(entry: object, param: str, uploads: UploadFolder) -> ReceivedInput:
    """Return an image of a JSON body: a ``data:`` URL, or a reference that the provider resolves."""
    if isinstance(entry, dict):
        file_id = entry.get("file_id")
        if file_id is not None:
            return _check_reference(ImageReference(file_id=file_id), param)
        entry = entry.get("image_url", entry.get("url", entry.get("b64_json")))
        if isinstance(entry, dict):
            entry = entry.get("url")
    if isinstance(entry, DivertedImage):
        source = entry.source()
        return UploadedImage(
            source if isinstance(source, PartFile) else _keep_bytes(entry.to_bytes(), uploads)
        )
    if isinstance(entry, str) and is_data_url(entry):
        try:
            return UploadedImage(_keep_bytes(decode_data_url(entry), uploads))
        except ValueError:
            raise reject_value(param, "The data: URL cannot be read.") from None
    if isinstance(entry, str) and entry.startswith("https://"):
        return _check_reference(ImageReference(url=entry), param)
    raise reject_value(
        param, "Must be a data: URL, an https URL that the provider fetches, or a file_id of the provider."
    )


def _check_reference(reference: ImageReference, param: str) -> ImageReference:
    if reference.problem is not None:
        raise reject_value(param, reference.problem)
    return reference.to_plain()


def _keep_bytes(data: bytes, uploads: UploadFolder) -> PartFile:
    file = uploads.new_file()
    file.add(data)
    return file
