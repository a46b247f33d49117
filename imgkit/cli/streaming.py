"""The option `--stream`: partial images become files beside the target, and appear in the terminal."""

from __future__ import annotations

from dataclasses import replace
from pathlib import PurePath

from imgkit.cli import console, terminal_images
from imgkit.cli.messages import format_error
from imgkit.cli.progress import CallWatcher
from imgkit.errors import ImgkitError
from imgkit.images.image import Image
from imgkit.images.saving import SavePlan
from imgkit.models import ImagesResponse, PartialImage
from imgkit.runtime.streams import ImageStream

DEFAULT_PARTIAL_IMAGES = 2


def read_stream(stream: ImageStream, plan: SavePlan, watcher: CallWatcher) -> ImagesResponse:
    """Read a stream to its end; save and show its partial images.

    Args:
        stream: a stream that is not entered yet.
        plan: the save plan of the complete images.
        watcher: shows the progress below the images.

    Returns:
        The response, as the call without a stream returns it.

    Raises:
        ImgkitError: the error of the library.
    """
    canvas = terminal_images.open_canvas()
    with watcher.show_progress():
        return _read_events(stream, plan, canvas)


def build_partial_plan(plan: SavePlan, index: int) -> SavePlan:
    """Return the save plan of a partial image: ``fox.partial-0.png`` for ``fox.png``, without a sidecar."""
    name = PurePath(plan.pattern)
    suffix = name.suffix if "." in name.name.strip(".") else ""
    stem = plan.pattern[: len(plan.pattern) - len(suffix)] if suffix else plan.pattern
    return replace(plan, pattern=f"{stem}.partial-{index}{suffix}", sidecar=False)


def _read_events(
    stream: ImageStream, plan: SavePlan, canvas: terminal_images.Canvas | None
) -> ImagesResponse:
    with stream as events:
        for event in events:
            caption = ""
            if isinstance(event, PartialImage):
                caption = _save_partial_image(event.image, build_partial_plan(plan, event.index))
            if canvas is not None:
                canvas.show(event.image, caption)
            elif caption:
                console.print_message(caption)
        return events.response


def _save_partial_image(image: Image, plan: SavePlan) -> str:
    """Save a partial image and return a message; a failure does not end the call."""
    try:
        return f"imgkit: partial image: {plan.write(image, image.index + 1)}"
    except ImgkitError as error:
        return f"imgkit: A partial image was not saved. {format_error(error)}"
