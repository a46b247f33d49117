"""The delivery of a reply to a row: images that the list can name, and bytes that are no whole image.

A single call delivers unknown bytes with a warning: its caller looks at them. Nobody looks at each row of a
run, and a data loader fails on such a file. So the run keeps the bytes beside the images, does not list
them, and says that the outcome of the row is unknown.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from imgkit.bulk.output import Output
from imgkit.bulk.row_values import BulkRow
from imgkit.core.context import SentPart
from imgkit.errors import ImgkitError, UnreadableReplyError
from imgkit.images.image import Image
from imgkit.images.sniff import guess_unsupported_format, is_complete
from imgkit.models import ImagesResponse
from imgkit.wire.json_values import JsonObject


class Delivery(NamedTuple):
    """The images that a reply has brought to a row.

    Attributes:
        entries: facts about the images, as the list has them.
        covered: the requests that brought them; of a request with some damaged images, a part for each other.
        damaged: the requests that brought damaged images.
        errors: the errors of the row, those of the damaged images among them.
    """

    entries: list[JsonObject]
    covered: list[SentPart]
    damaged: set[SentPart]
    errors: list[ImgkitError]


def publish_images(
    output: Output, row: BulkRow, response: ImagesResponse, parts: Sequence[tuple[SentPart, int]]
) -> Delivery:
    """Bring the saved images of a response to their places, and keep damaged ones apart. May block.

    Args:
        output: the output of the run.
        row: the row.
        response: its images.
        parts: the requests that brought them, and the number of images of each.

    Raises:
        ImgkitError: the output rejects an image.
    """
    sources = [(part, part.first + number) for part, count in parts for number in range(count)]
    entries = output.describe(row, response, [position for _, position in sources])
    problems = [_describe_damage(image, is_doubtful=bool(response.warnings)) for image in response.images]
    output.publish([image for image, problem in zip(response.images, problems, strict=True) if not problem])
    errors = [
        UnreadableReplyError(
            f"Image {position} {problem}. It is not listed. Its bytes are kept in {output.set_aside(image)}."
        )
        for image, problem, (_, position) in zip(response.images, problems, sources, strict=True)
        if problem
    ]
    if not errors:
        return Delivery(entries, [part for part, _ in parts], set(), list(response.errors))
    damaged = {part for (part, _), problem in zip(sources, problems, strict=True) if problem}
    covered = [part for part, _ in parts if part not in damaged]
    for (part, position), problem in zip(sources, problems, strict=True):
        if part in damaged and not problem:
            covered.append(part._replace(first=position, images=1))
    whole = [entry for entry, problem in zip(entries, problems, strict=True) if not problem]
    return Delivery(whole, covered, damaged, [*errors, *response.errors])


def _describe_damage(image: Image, *, is_doubtful: bool) -> str:
    """Return why the bytes of an image are no whole image, "" for no reason.

    Args:
        image: the image.
        is_doubtful: look for its end, too: the reply was decoded with a warning.
    """
    if image.format is None:
        return f"is {guess_unsupported_format(image.source.read_at(1024, 0))}, and no image of a known format"
    if is_doubtful and not is_complete(image.source.length, image.source.read_at):
        return "is cut off"
    return ""
