"""An app that makes posters for events: small enough to read, real enough to test."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

from imgkit import ModerationBlockedError

SIZE = "256x256"


class PosterRefused(Exception):
    """The image API refused this poster. Change its words."""


@dataclass(frozen=True)
class Event:
    """An event to announce."""

    title: str
    town: str


@dataclass(frozen=True)
class Poster:
    """An image on disk, and the number of attempts that it took."""

    path: Path
    attempts: int


def build_prompt(event):
    return f"a poster for {event.title} in {event.town}, flat colours, no text"


def poster_path(event, folder):
    return Path(folder, f"{event.title}-{event.town}.png".lower().replace(" ", "-"))


def make_poster(images, event, folder):
    """Make one poster with an `imgkit.ImageService`.

    Raises:
        PosterRefused: the content policy refused the prompt.
    """
    try:
        response = images.create_image(build_prompt(event), size=SIZE)
    except ModerationBlockedError as error:
        raise PosterRefused(f"{event.title}: {', '.join(error.categories) or 'no reason given'}") from error
    return Poster(Path(response[0].save(poster_path(event, folder))), len(response.meta.attempts))


async def make_posters(images, events, folder):
    """Make several posters at the same time with an `imgkit.AsyncImageService`."""
    responses = await asyncio.gather(
        *(images.create_image(build_prompt(event), size=SIZE) for event in events)
    )
    return [
        Poster(Path(response[0].save(poster_path(event, folder))), len(response.meta.attempts))
        for event, response in zip(events, responses, strict=True)
    ]
