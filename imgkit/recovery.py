"""From a record of the spool back to pictures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from imgkit.errors import ImgkitError, UnknownProviderError
from imgkit.hookspecs import ProviderSpec
from imgkit.image import BytesSource, Image, Source, UrlSource
from imgkit.plugins import build_table, wanted
from imgkit.providers.base import Answer, Provider, Target
from imgkit.sniff import is_complete_bytes, sniff
from imgkit.spool import Left
from imgkit.streaming.replies import TakenOut, parse_json, swapped
from imgkit.wire import Head

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


def recover(record: Left) -> Recovered:
    """Return the pictures of a record.

    Its provider reads it, as it would have then. Where it cannot, each picture that had begun to arrive
    counts.

    Raises:
        OSError: the record cannot be read.
    """
    parts = record.pictures()
    answer = _answer(record, parts)
    found = list(_pictures(answer, parts))
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
    whole = answer is not None and not damaged and bool(images) and not record.undecoded()
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
        return swapped(value, lambda one: pictures.get(one, one) if isinstance(one, str) else one)

    def raw(self) -> bytes:
        return self._text


class _Part(TakenOut):
    def __init__(self, data: bytes) -> None:
        self._data = data

    def decoded(self) -> bytes:
        return self._data


def _answer(record: Left, parts: dict[int, bytes]) -> Answer | None:
    """Return what the provider reads, None if it cannot."""
    facts = record.facts
    status = facts.get("status")
    try:
        offer = wanted(build_table(), ProviderSpec, str(facts.get("provider")), UnknownProviderError, "")
        provider: Provider = offer.make()
        target = Target(base_url=str(facts.get("base_url")), host_class="compatible")
        head = Head(status if isinstance(status, int) else 200, {})
        return provider.decode(head, _KeptReply(record.text(), parts), target)
    except ImgkitError:
        return None


def _pictures(
    answer: Answer | None, parts: dict[int, bytes]
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


def _about(record: Left, answer: Answer | None) -> dict[str, Any]:
    facts = record.facts
    names = ("operation", "prompt", "model", "parameters", "backend", "provider", "request_id", "call_id")
    return {
        **{name: facts.get(name) for name in names},
        "offline": False,
        "created": answer.created if answer else None,
        "recovered": True,
    }
