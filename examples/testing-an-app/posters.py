"""An app that makes posters of events: small enough to read, real enough to be tested."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

from imgkit import ModerationBlockedError

SIZE = "256x256"


class PosterRefused(Exception):
    """The service will not draw this; the words have to change."""


@dataclass(frozen=True)
class Event:
    """What is announced."""

    title: str
    town: str


@dataclass(frozen=True)
class Poster:
    """A picture on disk, and how often it had to be asked for."""

    path: Path
    tries: int


def words(event):
    return f"a poster for {event.title} in {event.town}, flat colours, no text"


def file_of(event, folder):
    return Path(folder, f"{event.title}-{event.town}.png".lower().replace(" ", "-"))


def make(images, event, folder):
    """Make one poster with an `imgkit.ImageService`."""
    try:
        reply = images.create_image(words(event), size=SIZE)
    except ModerationBlockedError as error:
        raise PosterRefused(f"{event.title}: {', '.join(error.categories) or 'no reason given'}") from error
    return Poster(Path(reply[0].save(file_of(event, folder))), len(reply.meta.attempts))


async def make_all(images, events, folder):
    """Make posters at the same time with an `imgkit.AsyncImageService`."""
    replies = await asyncio.gather(*(images.create_image(words(event), size=SIZE) for event in events))
    return [
        Poster(Path(reply[0].save(file_of(event, folder))), len(reply.meta.attempts))
        for event, reply in zip(events, replies, strict=True)
    ]
