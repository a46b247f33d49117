"""From a record of the spool back to pictures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from imgkit.billing.spool import SpooledReply
from imgkit.errors import ImgkitError, UnknownProviderError
from imgkit.images.image import Image
from imgkit.images.sniff import is_complete_bytes, sniff
from imgkit.images.sources import BytesSource, Source, UrlSource
from imgkit.plugins.hookspecs import ProviderSpec
from imgkit.plugins.registry import find_spec, load_hook_table
from imgkit.providers.base import (
    DecodedImage,
    DecodedImages,
    DecodedPartialImage,
    Provider,
    StreamingProvider,
    Target,
)
from imgkit.wire.event_body import EVENT_MARK
from imgkit.wire.json_values import DivertedImage, parse_json, swapped
from imgkit.wire.messages import Head

PLACE = "imgkit-part-"
"""How the text of a record says where a picture was."""


@dataclass(frozen=True, slots=True)
class Recovered:
    """What a record holds.

    Attributes:
        images: pictures, those that were cut off too.
        damaged: indexes of those that are not whole.
        whole: the reply could be read to its end, and all of it is in `images`.
    """

    images: tuple[Image, ...]
    damaged: tuple[int, ...]
    whole: bool


def recover(record: SpooledReply) -> Recovered:
    """Return the pictures of a record.

    Its provider reads it, as it would have then. Where it cannot, each picture that had begun to arrive
    counts.

    Raises:
        OSError: the record cannot be read.
    """
    read = _read(record)
    answer = read.answer
    found = list(_pictures(answer, read.parts))
    images = tuple(
        Image(
            index=index,
            url=url,
            revised_prompt=prompt,
            about=_about(record, answer),
            source=source,
        )
        for index, (source, url, prompt) in enumerate(found)
    )
    damaged = tuple(
        image.index
        for image in images
        if isinstance(image.source, BytesSource) and not is_complete_bytes(image.data)
    )
    whole = read.whole and not damaged and bool(images) and not record.undecoded()
    return Recovered(images, damaged, whole)


class _KeptReply:
    """A record as a `ReplyBody`."""

    def __init__(self, text: bytes, parts: dict[int, bytes]) -> None:
        self._text = text
        self._parts = parts
        self.length = len(text) + sum(map(len, parts.values()))

    def json(self) -> Any:
        pictures = {f"{PLACE}{number}": _Part(data) for number, data in self._parts.items()}
        value = parse_json(self._text)
        return swapped(value, str, lambda one: pictures.get(one, one))

    def raw(self) -> bytes:
        return self._text


class _Part(DivertedImage):
    def __init__(self, data: bytes) -> None:
        self._data = data

    def decoded(self) -> bytes:
        return self._data


@dataclass(frozen=True, slots=True)
class _Read:
    """What could be read of a record.

    Attributes:
        answer: what the provider reads, None if it cannot.
        parts: pictures that count, also where they are not in the answer.
        whole: nothing is missing in the text.
    """

    answer: DecodedImages | None
    parts: dict[int, bytes]
    whole: bool


def _read(record: SpooledReply) -> _Read:
    facts = record.facts
    parts = record.pictures()
    text = record.text()
    status = facts.get("status")
    try:
        offer = find_spec(
            load_hook_table(), ProviderSpec, str(facts.get("provider")), UnknownProviderError, ""
        )
        provider: Provider = offer.make()
        target = Target(base_url=str(facts.get("base_url")), host_class="compatible")
        head = Head(status if isinstance(status, int) else 200, {})
        if text.startswith(EVENT_MARK) and isinstance(provider, StreamingProvider):
            return _read_events(provider, head, target, text, parts)
        return _Read(provider.decode(head, _KeptReply(text, parts), target), parts, whole=True)
    except ImgkitError:
        return _Read(None, parts, whole=False)


def _read_events(
    provider: StreamingProvider, head: Head, target: Target, text: bytes, parts: dict[int, bytes]
) -> _Read:
    """Read a stream: complete pictures, and the last partial one if nothing came of it."""
    complete: list[DecodedImage] = []
    partial: DecodedImage | None = None
    passed = set()
    created = None
    for event in text.split(EVENT_MARK)[1:]:
        try:
            found = provider.decode_event(head, _KeptReply(event, parts), target)
        except ImgkitError:
            continue  # cut off; what had come of its picture is among the parts
        if isinstance(found, DecodedPartialImage):
            partial = DecodedImage(data=found.data)
            passed.add(found.data)
        elif found is not None and found.pictures:
            complete += found.pictures
            created = found.created
            partial = None
    pictures = (*complete, *([partial] if partial else []))
    left = {number: data for number, data in parts.items() if data not in passed}
    return _Read(
        DecodedImages(pictures=pictures, created=created), left, whole=bool(complete) and partial is None
    )


def _pictures(
    answer: DecodedImages | None, parts: dict[int, bytes]
) -> Iterator[tuple[Source, str | None, str | None]]:
    """Yield what the provider has read, and then what it has not."""
    read = set()
    for picture in answer.pictures if answer else ():
        if picture.data is not None:
            read.add(picture.data)
            yield BytesSource(picture.data), picture.url, picture.revised_prompt
        else:
            yield UrlSource(picture.url or "", None), picture.url, picture.revised_prompt
    for data in parts.values():
        if data not in read and sniff(data[:1024]) is not None:
            yield BytesSource(data), None, None


def _about(record: SpooledReply, answer: DecodedImages | None) -> dict[str, Any]:
    facts = record.facts
    names = ("operation", "prompt", "model", "parameters", "backend", "provider", "request_id", "call_id")
    return {
        **{name: facts.get(name) for name in names},
        "offline": False,
        "created": answer.created if answer else None,
        "recovered": True,
    }
