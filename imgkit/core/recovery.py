"""Recovery: images from a reply that the spool kept."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

from imgkit.billing.reservations import HOOK
from imgkit.billing.spool import Spool
from imgkit.billing.spool_record import SpooledReply, read_record
from imgkit.core.cut_replies import find_images
from imgkit.core.job_keeper import apply_update, name_job
from imgkit.errors import ImgkitError, UnknownProviderError
from imgkit.images.image import Image
from imgkit.images.sniff import is_complete_bytes
from imgkit.images.sources import BytesSource, Source, UrlSource
from imgkit.jobs.job import Job
from imgkit.plugins.hookspecs import ProviderSpec
from imgkit.plugins.protocols import Ledger, ReplyKeeper
from imgkit.plugins.registry import find_spec, load_hook_table
from imgkit.plugins.resources import Resource
from imgkit.plugins.table import call_plugin
from imgkit.providers.base import (
    DecodedImage,
    DecodedImages,
    DecodedPartialImage,
    Provider,
    ReplyBody,
    StreamingProvider,
    Target,
)
from imgkit.providers.job_values import JobUpdate
from imgkit.wire.event_body import EVENT_MARK, is_event_text, split_events
from imgkit.wire.json_body import PLACEHOLDER
from imgkit.wire.json_values import DivertedImage, parse_json, replace_values
from imgkit.wire.messages import Head


@dataclass(frozen=True, slots=True)
class Recovered:
    """The images of a spooled reply.

    Attributes:
        images: the images, truncated ones included.
        damaged: indexes of truncated images.
        whole: the reply is complete, and `images` holds all of it.
        job: the job that the reply accepts in place of images, None for images.
    """

    images: tuple[Image, ...]
    damaged: tuple[int, ...]
    whole: bool
    job: Job | None = None


def recover(record: SpooledReply) -> Recovered:
    """Return the images of a spooled reply.

    The provider of the call decodes it. If it cannot, every image counts that began to arrive.

    Raises:
        OSError: the record cannot be read.
    """
    reply = _decode_record(record)
    found = list(_iterate_images(reply.decoded, reply.rest))
    images = tuple(
        Image(
            index=index,
            url=url,
            revised_prompt=prompt,
            about=_sidecar_facts(record, reply.decoded),
            source=source,
        )
        for index, (source, url, prompt) in enumerate(found)
    )
    damaged = tuple(
        image.index
        for image in images
        if isinstance(image.source, BytesSource) and not is_complete_bytes(image.data)
    )
    whole = reply.whole and not damaged and bool(images) and not record.undecoded()
    return Recovered(images, damaged, whole, reply.job)


class LostReply(NamedTuple):
    """The reply to an attempt of a dead process.

    Attributes:
        record: the record, None if the spool has none.
        head: status and request id.
        decoded: all its images, None unless the reply is whole.
    """

    record: SpooledReply | None
    head: Head = Head(200, {})
    decoded: DecodedImages | None = None


def find_lost_reply(ledgers: Iterable[Resource[Ledger]], attempt: str) -> LostReply:
    """Return the reply that a ledger keeps of an attempt.

    Args:
        ledgers: the ledgers of the service.
        attempt: name of the attempt, as `imgkit.plugins.ReplyKeeper` takes it.
    """
    found = LostReply(None)
    for ledger in ledgers:
        if not isinstance(ledger.thing, ReplyKeeper):
            continue
        # A ledger that cannot be read has no reply.
        with suppress(OSError, ImgkitError):
            for folder in call_plugin(ledger.origin, HOOK, ledger.thing.find_kept, attempt):
                record = read_record(folder)
                if record is not None:
                    found = _decode_lost_reply(record)
                if found.decoded is not None:
                    return found
    return found


def drop_record(record: SpooledReply) -> None:
    """Remove a record whose images are elsewhere. If that fails, it stays for `imgkit recover`."""
    with suppress(OSError):
        Spool(record.folder.parent).drop(record)


def _decode_lost_reply(record: SpooledReply) -> LostReply:
    if record.state == "running":
        return LostReply(record)
    reply = _decode_record(record)
    request_id, status = record.facts.get("request_id"), record.facts.get("status")
    head = Head(
        status if isinstance(status, int) else 200, {"x-request-id": str(request_id)} if request_id else {}
    )
    decoded = reply.decoded
    is_whole = (
        reply.whole
        and decoded is not None
        and bool(decoded.pictures)
        and not decoded.damaged
        and not record.undecoded()
        and all(image.data is None or is_complete_bytes(image.data) for image in decoded.pictures)
    )
    return LostReply(record, head, decoded if is_whole else None)


class _SpooledBody:
    """The text of a spooled reply, or of one of its events, as a `ReplyBody`."""

    def __init__(self, text: bytes, parts: dict[int, bytes]) -> None:
        self._text = text
        self._parts = parts
        self.length = len(text) + sum(map(len, parts.values()))

    def json(self) -> Any:
        images = {f"{PLACEHOLDER}{number}": _SpooledImage(data) for number, data in self._parts.items()}
        return replace_values(parse_json(self._text), str, lambda text: images.get(text, text))

    def raw(self) -> bytes:
        image = self.image()
        return self._text if image is None else image.to_bytes()

    def image(self) -> DivertedImage | None:
        is_image = self._text == f"{PLACEHOLDER}0".encode()
        return _SpooledImage(self._parts[0]) if is_image and 0 in self._parts else None


class _SpooledImage(DivertedImage):
    def __init__(self, data: bytes) -> None:
        self._data = data

    def to_bytes(self) -> bytes:
        return self._data


@dataclass(frozen=True, slots=True)
class _DecodedRecord:
    """The readable content of a record.

    Attributes:
        decoded: the provider's result, None if it could not decode the reply.
        rest: images that `decoded` may lack, the last one as far as it arrived.
        whole: the text is complete.
        job: the job that the reply accepts, None for images.
    """

    decoded: DecodedImages | None
    rest: tuple[bytes, ...]
    whole: bool
    job: Job | None = None


def _decode_record(record: SpooledReply) -> _DecodedRecord:
    facts, parts, text = record.facts, record.pictures(), record.text()
    # Of a request whose facts are lost, the dialect is most likely that of most servers.
    status, name = facts.get("status"), str(facts.get("provider") or "openai")
    try:
        provider: Provider = find_spec(load_hook_table(), ProviderSpec, name, UnknownProviderError, "").make()
        target = Target(base_url=str(facts.get("base_url")), host_class="compatible")
        head = Head(status if isinstance(status, int) else 200, {})
        if isinstance(provider, StreamingProvider):
            if text.startswith(EVENT_MARK):
                events = [_SpooledBody(event, parts) for event in text.split(EVENT_MARK)[1:]]
                return _decode_events(provider, head, target, events, parts)
            if is_event_text(text):
                return _decode_events(provider, head, target, split_events(text, provider.base64_keys), parts)
        decoded = provider.decode(head, _SpooledBody(text, parts), target)
        if isinstance(decoded, JobUpdate):
            return _DecodedRecord(None, (), whole=False, job=_rebuild_job(facts, provider, decoded))
        return _DecodedRecord(decoded, _list_images(parts), whole=True)
    except Exception:  # a provider's bug must not hide the images
        return _DecodedRecord(None, tuple(find_images(text, parts)), whole=False)


def _rebuild_job(facts: Mapping[str, Any], provider: Provider, update: JobUpdate) -> Job:
    """Return the job that a reply accepts, from the facts of its call. It knows no place for its images."""
    call_id, model = str(facts["call_id"]), facts.get("model")
    parameters = facts.get("parameters") or {}
    request_id = facts.get("request_id")
    job = Job(
        id=name_job(call_id, int(facts["attempt"])),
        provider=str(facts["provider"]),
        base_url=str(facts["base_url"]),
        operation=str(facts["operation"]),
        call_id=call_id,
        images=int(parameters.get("n") or 1),
        images_of_call=int(parameters.get("n") or 1),
        submitted_at=float(facts["started_at"]),
        request_id=str(request_id) if request_id else None,
        facts={"prompt": facts.get("prompt"), "model": model, "parameters": parameters},
        state_version=getattr(provider, "job_version", 1),
    )
    return Job.from_json(apply_update(job, update).to_json())  # facts may be damaged


def _decode_events(
    provider: StreamingProvider,
    head: Head,
    target: Target,
    events: Sequence[ReplyBody],
    parts: dict[int, bytes],
) -> _DecodedRecord:
    """Decode a stream: its complete images, and the last partial image of an unfinished one."""
    complete: list[DecodedImage] = []
    partial: DecodedImage | None = None
    superseded = set()
    cut: list[bytes] = []
    created = None
    for event in events:
        try:
            decoded = provider.decode_event(head, event, target)
        except Exception:  # a provider's bug must not hide the images
            cut += find_images(event.raw(), {})  # a longer image is among the parts
            continue
        if isinstance(decoded, DecodedPartialImage):
            partial = DecodedImage(data=decoded.data)
            superseded.add(decoded.data)
        elif decoded is not None and decoded.pictures:
            complete += decoded.pictures
            created = decoded.created
            partial = None
    images = (*complete, *([partial] if partial else []))
    rest = tuple(data for data in _list_images(parts) if data not in superseded)
    whole = bool(complete) and partial is None and not cut
    return _DecodedRecord(DecodedImages(pictures=images, created=created), (*rest, *cut), whole)


def _list_images(parts: dict[int, bytes]) -> tuple[bytes, ...]:
    return tuple(find_images(b"", parts))


def _iterate_images(
    decoded: DecodedImages | None, rest: tuple[bytes, ...]
) -> Iterator[tuple[Source, str | None, str | None]]:
    """Yield source, URL and revised prompt of the decoded images, then of the rest that they lack."""
    seen = set()
    for image in decoded.pictures if decoded else ():
        if image.data is not None:
            seen.add(image.data)
            yield BytesSource(image.data), image.url, image.revised_prompt
        else:
            yield UrlSource(image.url or "", None), image.url, image.revised_prompt
    for data in rest:
        if data not in seen:
            yield BytesSource(data), None, None


def _sidecar_facts(record: SpooledReply, decoded: DecodedImages | None) -> dict[str, object]:
    facts = record.facts
    names = ("operation", "prompt", "model", "parameters", "backend", "provider", "request_id", "call_id")
    return {
        **{name: facts.get(name) for name in names},
        "offline": False,
        "created": decoded.created if decoded else None,
        "recovered": True,
    }
