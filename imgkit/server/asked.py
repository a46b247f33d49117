"""Requests of callers as requests of imgkit: parameters by operation, and the model behind a name."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

from imgkit.catalogue.catalogue import Catalogue
from imgkit.models import (
    CreateImageEditRequest,
    CreateImageRequest,
    CreateImageVariationRequest,
    ImageRequest,
    Operation,
    field_names,
)
from imgkit.providers.listing import find_provider
from imgkit.schemas.requests import validate_request
from imgkit.server.envelopes import reject_value
from imgkit.server.received_bodies import ReceivedBody, ReceivedInput, UploadedImage
from imgkit.server.settings import ANY_MODEL, ModelRoute

REQUESTS: Mapping[Operation, type[ImageRequest]] = {
    "create_image": CreateImageRequest,
    "create_image_edit": CreateImageEditRequest,
    "create_image_variation": CreateImageVariationRequest,
}
STREAMING_OPERATIONS = ("create_image", "create_image_edit")

MAX_MODEL_CHARACTERS = 300

_OWN_VALUES = ("stream", "partial_images", "response_format", "model")
_NEVER_TAKEN = ("extra_headers", "extra_body")
"""Fields of a request that a caller must not set: headers go to the provider beside its key."""

_INPUTS = ("image", "mask", "markup")


class AskedCall(NamedTuple):
    """A call as a caller asks for it.

    Attributes:
        request: the request.
        model: the model as the caller names it.
        provider: the provider of the model, None for that of the server.
        is_stream: the reply is a stream of events.
        partial_images: number of partial images.
        by_url: the reply has URLs in place of the images.
    """

    request: ImageRequest
    model: str | None
    provider: str | None
    is_stream: bool
    partial_images: int
    by_url: bool


def build_asked_call(
    operation: Operation, body: ReceivedBody, routes: Mapping[str, ModelRoute], *, takes_unknown: bool = True
) -> AskedCall:
    """Return the call that a body asks for.

    Args:
        operation: the operation.
        body: the content of the request.
        routes: the models behind names.
        takes_unknown: unknown parameters go to the provider. A budget could not count what they cost.

    Raises:
        Rejection: a parameter of the server itself is wrong.
        InvalidRequestError: a field of the request is wrong.
    """
    values = body.values
    for name in _NEVER_TAKEN:
        if name in values:
            raise reject_value(name, "The server takes no such parameter. Put its members into the body.")
    is_stream = _read_stream(operation, values.get("stream"))
    response_format = _read_choice("response_format", values.get("response_format"), ("url", "b64_json"))
    partial_images = values.get("partial_images")
    if partial_images is not None and (
        isinstance(partial_images, bool)
        or not isinstance(partial_images, int)
        or not 0 <= partial_images <= 3
    ):
        raise reject_value("partial_images", "Must be a whole number from 0 to 3.")
    if partial_images and not is_stream:
        raise reject_value("partial_images", 'Is for streams. Send "stream": true with it.')
    model = values.get("model")
    if model is not None and not isinstance(model, str):
        raise reject_value("model", "Must be the name of a model.")
    if model is not None and not _is_model_name(model):
        raise reject_value(
            "model", "Must be a name without control characters and without steps such as '..'."
        )
    route = find_route(model, routes)
    kind = REQUESTS[operation]
    fields = {
        name: values.get(name) for name in field_names(kind) if name not in (*_OWN_VALUES, *_NEVER_TAKEN)
    }
    fields["model"] = route.model
    fields.update(_list_inputs(operation, body))
    more = {name: value for name, value in values.items() if name not in (*fields, *_OWN_VALUES)}
    if more and not takes_unknown:
        name = next(iter(more))[:100]
        raise reject_value(
            name, "Unknown, and the budget of this server could not count its cost. Leave it out."
        )
    if more:
        fields["extra_body"] = more
    request = validate_request(kind, fields)
    # The only model of OpenAI that has made variations answers with URLs.
    asked = model or ("dall-e-2" if operation == "create_image_variation" else None)
    by_url = has_url_by_default(asked) if response_format is None else response_format == "url"
    return AskedCall(request, model, route.provider, is_stream, partial_images or 0, by_url)


def find_route(model: str | None, routes: Mapping[str, ModelRoute]) -> ModelRoute:
    """Return provider and model behind the name of a model.

    >>> find_route("dall-e-2", {"*": ModelRoute("bfl", "flux-2-pro")})
    ModelRoute(provider='bfl', model='flux-2-pro')
    """
    route = routes.get(model or "", routes.get(ANY_MODEL))
    return ModelRoute(None, model) if route is None else ModelRoute(route.provider, route.model or model)


@lru_cache(maxsize=256)
def has_url_by_default(model: str | None) -> bool:
    """Return whether OpenAI's API answers a model with URLs unless a request asks for base64.

    It does so for the models that take the field ``response_format``, whose default is "url" (API
    reference, read 2026-11-23).

    >>> has_url_by_default("dall-e-3"), has_url_by_default("gpt-image-2"), has_url_by_default("flux")
    (True, False, False)
    """
    facts = Catalogue("openai", find_provider("openai").load().model_facts, [])
    found = None if model is None else facts.find_model(model, "official")
    return found is not None and not any(
        rule.field == "response_format" and rule.refused for rule in found.rules
    )


def _is_model_name(model: str) -> bool:
    """Return whether a text can be a model: some providers put it into the path of their address."""
    steps = model.replace("\\", "/").split("/")
    return len(model) <= MAX_MODEL_CHARACTERS and model.isprintable() and not {".", ".."} & set(steps)


def _list_inputs(operation: Operation, body: ReceivedBody) -> dict[str, object]:
    """Return the input images of an operation, by field."""
    taken = {"create_image": (), "create_image_edit": _INPUTS, "create_image_variation": ("image",)}[
        operation
    ]
    given = {**body.others, **({"image": body.images} if body.images else {})}
    for name in given:
        if name not in taken:
            raise reject_value(name, "This operation takes no such image.")
    if "image" in taken and not body.images:
        raise reject_value(
            "image", "An image is missing. Send it as a file of a form, or as a data: URL.", "missing_image"
        )
    inputs: dict[str, object] = {name: _to_input(image) for name, image in body.others.items()}
    if body.images:
        images = [_to_input(image) for image in body.images]
        inputs["image"] = images if len(images) > 1 and operation == "create_image_edit" else images[0]
        if len(images) > 1 and operation != "create_image_edit":
            raise reject_value("image", "This operation takes one image.")
    return inputs


def _to_input(image: ReceivedInput) -> object:
    return image.input if isinstance(image, UploadedImage) else image


def _read_stream(operation: Operation, value: object) -> bool:
    if value is None or value is False:
        return False
    if value is not True:
        raise reject_value("stream", "Must be true or false.")
    if operation not in STREAMING_OPERATIONS:
        raise reject_value("stream", "Variations have no streams.")
    return True


def _read_choice(name: str, value: object, choices: tuple[str, ...]) -> object:
    if value is not None and value not in choices:
        raise reject_value(name, f"Must be one of {', '.join(choices)}.")
    return value
