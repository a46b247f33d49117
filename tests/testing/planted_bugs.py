"""Planted bugs of providers: each is OpenAI's provider that ignores a field or an image.

The docstring of each class says why the mistake matters. `imgkit.testing` must find all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple, TypeVar

from imgkit import InvalidRequestError
from imgkit.models import field_names
from imgkit.providers import (
    HttpRequest,
    ImageReference,
    OpenAIProvider,
    OpenedInputs,
    Target,
)

ProviderT = TypeVar("ProviderT", bound=OpenAIProvider)


class PlantedBug(NamedTuple):
    """A provider with a bug, and the test of the contract that finds it.

    Attributes:
        provider: class of the provider.
        test: name of the test.
        arguments: its arguments.
        message: pattern of its message.
    """

    provider: type[OpenAIProvider]
    test: str
    arguments: tuple[object, ...]
    message: str


PLANTED_BUGS: list[PlantedBug] = []


def plant(test: str, message: str, *arguments: object) -> Callable[[type[ProviderT]], type[ProviderT]]:
    """Add a provider to the planted bugs; see `PlantedBug`."""

    def add(provider: type[ProviderT]) -> type[ProviderT]:
        PLANTED_BUGS.append(PlantedBug(provider, test, arguments, message))
        return provider

    return add


def without(request: Any, *fields: str) -> Any:
    """Return a request without some of its optional fields."""
    return replace(request, **{name: None for name in fields if name in field_names(type(request))})


# --- Fields that are not sent ----------------------------------------------------------------


@plant("test_sends_every_field", "ignores prompt", "prompt")
class IgnoresPrompt(OpenAIProvider):
    """Every call draws the same image, and is paid for."""

    def encode(self, request: Any, inputs: OpenedInputs, target: Target) -> HttpRequest:
        prompt = {"prompt": "a fox"} if hasattr(request, "prompt") else {}
        return super().encode(replace(request, **prompt), inputs, target)


@plant("test_sends_every_field", "ignores n", "n")
class IgnoresN(OpenAIProvider):
    """The caller asks for four images, and gets one."""

    def encode(self, request: Any, inputs: OpenedInputs, target: Target) -> HttpRequest:
        return super().encode(without(request, "n"), inputs, target)


@plant("test_sends_every_field", "n=2 and with n=3 give the same", "n")
class LimitsN(OpenAIProvider):
    """More images than the API has at once are left out in silence, not refused."""

    def encode(self, request: Any, inputs: OpenedInputs, target: Target) -> HttpRequest:
        return super().encode(replace(request, n=min(request.n or 1, 2)), inputs, target)


@plant("test_sends_every_field", "ignores size", "size")
class IgnoresSize(OpenAIProvider):
    """The image has another size than the layout needs."""

    def encode(self, request: Any, inputs: OpenedInputs, target: Target) -> HttpRequest:
        return super().encode(without(request, "size"), inputs, target)


@plant("test_sends_every_field", "ignores quality", "quality")
class IgnoresQuality(OpenAIProvider):
    """A cheap draft costs as much as a final image."""

    def encode(self, request: Any, inputs: OpenedInputs, target: Target) -> HttpRequest:
        return super().encode(without(request, "quality"), inputs, target)


@plant("test_sends_every_field", "ignores safety_identifier", "safety_identifier")
class IgnoresSafetyIdentifier(OpenAIProvider):
    """The API blocks the whole account for one end user."""

    def encode(self, request: Any, inputs: OpenedInputs, target: Target) -> HttpRequest:
        return super().encode(without(request, "safety_identifier"), inputs, target)


@plant("test_sends_every_field", "ignores extra_body", "extra_body")
class IgnoresExtraBody(OpenAIProvider):
    """Members that only the server knows never reach it."""

    def encode(self, request: Any, inputs: OpenedInputs, target: Target) -> HttpRequest:
        return super().encode(without(request, "extra_body"), inputs, target)


@plant("test_sends_every_field", "ignores extra_body", "extra_body")
class KeepsKnownMembersOnly(OpenAIProvider):
    """The members of the next version of the API never reach it."""

    def encode(self, request: Any, inputs: OpenedInputs, target: Target) -> HttpRequest:
        known = {name: value for name, value in (request.extra_body or {}).items() if name == "seed"}
        return super().encode(replace(request, extra_body=known), inputs, target)


@plant("test_sends_every_field", "ignores extra_headers", "extra_headers")
class IgnoresExtraHeaders(OpenAIProvider):
    """Headers for a gateway never reach it."""

    def encode(self, request: Any, inputs: OpenedInputs, target: Target) -> HttpRequest:
        return super().encode(without(request, "extra_headers"), inputs, target)


@plant("test_sends_every_field", "ignores model", "model")
class IgnoresModel(OpenAIProvider):
    """Another model answers, at another price."""

    def encode(self, request: Any, inputs: OpenedInputs, target: Target) -> HttpRequest:
        return super().encode(without(request, "model"), inputs, target)


@plant("test_sends_the_model_of_the_service", "of the service give the same.*ignores model")
class IgnoresModelOfTheService(OpenAIProvider):
    """``ImageService(model=…)`` has no effect."""

    def encode(self, request: Any, inputs: OpenedInputs, target: Target) -> HttpRequest:
        return super().encode(request, inputs, replace(target, model=None))


@plant("test_sends_every_field", "refused for operation", "size")
class RefusesWithoutTheName(OpenAIProvider):
    """The caller cannot see which field to change."""

    def check(self, request: Any, target: Target) -> None:
        if getattr(request, "size", None):
            raise InvalidRequestError({"operation": "This request is not possible."})


@plant("test_sends_every_field", "`accepts` has no style", "style")
class DeclaresWithoutRefusing(OpenAIProvider):
    """The declaration says that the API has no style, and the field is sent to it."""

    accepts: ClassVar[Any] = {"create_image": {"prompt", "n", "model", "extra_body"}}

    def check(self, request: Any, target: Any) -> None:
        return None


# --- Images that are not sent ----------------------------------------------------------------


@plant("test_sends_every_image", "images 1 and 2.* ignores image")
class IgnoresSecondImage(OpenAIProvider):
    """The edit combines two images, and the model sees one."""

    def encode(self, request: Any, inputs: OpenedInputs, target: Target) -> HttpRequest:
        return super().encode(request, replace(inputs, image=inputs.image[:1]), target)


@plant("test_sends_every_image", "images 1 and 2 and with images 2 and 1")
class SortsImages(OpenAIProvider):
    """The mask and "the first image" of a prompt belong to another image."""

    def encode(self, request: Any, inputs: OpenedInputs, target: Target) -> HttpRequest:
        images: Any = inputs.image
        if not inputs.has_references:
            images = tuple(sorted(images, key=lambda image: image.sha256))
        return super().encode(request, replace(inputs, image=images), target)


@plant("test_sends_masks", "no mask and with mask.*ignores mask", "mask")
class IgnoresMask(OpenAIProvider):
    """The model repaints the whole image."""

    def encode(self, request: Any, inputs: OpenedInputs, target: Target) -> HttpRequest:
        return super().encode(request, replace(inputs, mask=None), target)


@plant("test_sends_masks", "ignores markup", "markup")
class IgnoresMarkup(OpenAIProvider):
    """The model does not see the drawing that shows the change."""

    def encode(self, request: Any, inputs: OpenedInputs, target: Target) -> HttpRequest:
        return super().encode(request, replace(inputs, markup=None), target)


@plant("test_sends_references", "file-1.*url=.*ignores image")
class IgnoresUrlsOfReferences(OpenAIProvider):
    """An image at a URL is replaced by an uploaded file."""

    def encode(self, request: Any, inputs: OpenedInputs, target: Target) -> HttpRequest:
        images = tuple(
            ImageReference(file_id=getattr(image, "file_id", None) or "file-1")
            if isinstance(image, ImageReference)
            else image
            for image in inputs.image
        )
        return super().encode(request, replace(inputs, image=images), target)
