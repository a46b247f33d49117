"""The tasks of Stability's models: address, images, mask, prompt and needed options of each.

Source: OpenAPI copies of the v2beta API and npm typings, read 2026-11-28. Bedrock has the same tasks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from imgkit.errors import InvalidRequestError
from imgkit.models import CreateImageRequest, ImageRequest
from imgkit.providers.json_requests import list_images

DEFAULT_STRENGTH = 0.7
"""The change of an image by a model that also draws without an image; the API has no default."""


class Endpoint(NamedTuple):
    """A task of the API.

    Attributes:
        path: its address below ``/v2beta/stable-image``.
        images: names of its images, in the order in which the caller gives them.
        takes_mask: it repaints the white pixels of a mask.
        draws: it also draws without an image; with an image, it needs a strength.
        prompt: name of its prompt, "" for a task without a prompt.
        needs: options of which it needs one at least.
    """

    path: str
    images: tuple[str, ...] = ("image",)
    takes_mask: bool = False
    draws: bool = False
    prompt: str = "prompt"
    needs: tuple[str, ...] = ()


SD3 = Endpoint("generate/sd3", draws=True)
"""The task of the models that a request names in its body."""

ENDPOINTS: Mapping[str, Endpoint] = {
    "ultra": Endpoint("generate/ultra", draws=True),
    "core": Endpoint("generate/core", images=(), draws=True),
    "inpaint": Endpoint("edit/inpaint", takes_mask=True),
    "erase": Endpoint("edit/erase", takes_mask=True, prompt=""),
    "outpaint": Endpoint("edit/outpaint", needs=("left", "right", "up", "down")),
    "search-and-replace": Endpoint("edit/search-and-replace", needs=("search_prompt",)),
    "search-and-recolor": Endpoint("edit/search-and-recolor", needs=("select_prompt",)),
    "remove-background": Endpoint("edit/remove-background", prompt=""),
    "replace-background-and-relight": Endpoint(
        "edit/replace-background-and-relight",
        images=("subject_image", "background_reference"),
        prompt="background_prompt",
    ),
    "sketch": Endpoint("control/sketch"),
    "structure": Endpoint("control/structure"),
    "style": Endpoint("control/style"),
    "style-transfer": Endpoint("control/style-transfer", images=("init_image", "style_image")),
    "fast": Endpoint("upscale/fast", prompt=""),
    "conservative": Endpoint("upscale/conservative"),
    "creative": Endpoint("upscale/creative"),
}
"""The tasks by the names of their models."""


def choose_task(request: ImageRequest) -> str:
    """Return the name of the model for a request that names none.

    Example:
        >>> choose_task(CreateImageRequest(prompt="a fox"))
        'core'
    """
    if isinstance(request, CreateImageRequest):
        return "core"
    return "sd3.5-large" if getattr(request, "mask", None) is None else "inpaint"


def check_task(request: ImageRequest, model: str, endpoint: Endpoint) -> None:
    """Refuse a request whose images, mask or options do not fit a task.

    Raises:
        InvalidRequestError: The message names the field. Nothing was sent.
    """
    count, most = len(list_images(request)), len(endpoint.images)
    problems = {}
    if not count and not endpoint.draws:
        problems["model"] = f"{model} changes an image. Use create_image_edit, or another model."
    if count > most:
        takes = "no image" if not most else "one image" if most == 1 else f"{most} images"
        problems["image"] = f"{model} takes {takes}, not {count}. Leave out the others or name another model."
    if getattr(request, "mask", None) is not None and not endpoint.takes_mask:
        problems["mask"] = f"{model} takes no mask. Name a model such as inpaint."
    options = {**(request.model_options or {}), **(request.extra_body or {})}
    if endpoint.needs and options.keys().isdisjoint(endpoint.needs):
        names = " or ".join(endpoint.needs)
        problems["model_options"] = f"{model} needs {names}. Pass model_options={{{endpoint.needs[0]!r}: …}}."
    if problems:
        raise InvalidRequestError(problems)


def list_members(request: ImageRequest, endpoint: Endpoint) -> dict[str, object]:
    """Return the members of a request's body but its images; options and ``extra_body`` win."""
    members: dict[str, object] = {
        name: getattr(request, name, None)
        for name in ("aspect_ratio", "negative_prompt", "output_format", "seed")
    }
    if endpoint.prompt:
        members[endpoint.prompt] = getattr(request, "prompt", None)
    if endpoint.draws and list_images(request) and getattr(request, "mask", None) is None:
        members["strength"] = DEFAULT_STRENGTH
    members |= {**(request.model_options or {}), **(request.extra_body or {})}
    members.pop("model", None)
    return {name: members[name] for name in sorted(members) if members[name] is not None}
