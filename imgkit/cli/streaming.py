"""What `--stream` does: partial pictures become files beside the target, and are shown where that can be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import PurePath

from imgkit.cli import console as streams
from imgkit.cli import terminal_images as preview
from imgkit.cli.progress import Watcher
from imgkit.errors import ImgkitError
from imgkit.images.image import Image
from imgkit.images.saving import SavePlan
from imgkit.models import ImagesResponse, PartialImage
from imgkit.runtime.streams import ImageStream

DEFAULT_PARTIAL_IMAGES = 2


def watch(stream: ImageStream, plan: SavePlan, watcher: Watcher) -> ImagesResponse:
    """Read a stream to its end.

    Args:
        stream: not entered yet.
        plan: where its complete pictures go.
        watcher: shows what is going on where pictures cannot be shown.

    Returns:
        What the call without a stream would have returned.

    Raises:
        ImgkitError: as the library has it.
    """
    canvas = preview.canvas()
    if canvas is None:
        with watcher.line():
            return _read(stream, plan, None)
    return _read(stream, plan, canvas)


def partial_plan(plan: SavePlan, index: int) -> SavePlan:
    """Return where a partial picture goes: ``fox.partial-0.png`` for ``fox.png``; without a sidecar."""
    name = PurePath(plan.pattern)
    suffix = name.suffix if "." in name.name.strip(".") else ""
    stem = plan.pattern[: len(plan.pattern) - len(suffix)] if suffix else plan.pattern
    return replace(plan, pattern=f"{stem}.partial-{index}{suffix}", sidecar=False)


def _read(stream: ImageStream, plan: SavePlan, canvas: preview.Canvas | None) -> ImagesResponse:
    with stream as events:
        for event in events:
            caption = ""
            if isinstance(event, PartialImage):
                caption = _saved(event.image, partial_plan(plan, event.index))
            if canvas is not None:
                canvas.show(event.image, caption)
            elif caption:
                streams.tell(caption)
        return events.response


def _saved(image: Image, plan: SavePlan) -> str:
    """Save a partial picture; what goes wrong with it stops nothing."""
    try:
        return f"imgkit: partial picture: {plan.write(image, image.index + 1)}"
    except ImgkitError as error:
        return f"imgkit: a partial picture is not saved: {error}"
