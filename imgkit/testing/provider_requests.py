"""The requests of a provider: the part of its contract that is about `check` and `encode`."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import TypeAlias
from urllib.parse import urlsplit

import pytest

from imgkit.errors import InvalidRequestError
from imgkit.images.references import ImageReference
from imgkit.models import ImageRequest, field_names
from imgkit.testing import canary
from imgkit.testing.provider_samples import FIELD_VALUES, ProviderSamples, change
from imgkit.testing.request_checks import (
    assert_body_type,
    assert_no_key,
    assert_well_formed,
    find_image_types,
    join_wire,
)
from imgkit.testing.samples import GIF, png
from imgkit.wire.messages import HttpRequest

Encode: TypeAlias = Callable[[ImageRequest, ExitStack], HttpRequest]
"""A function that checks and encodes a request; the stack closes its opened images."""

RELAY = "https://relay.example"
"""A server in front of the API."""

CHANGEABLE_VALUES = {
    "extra_body": {"a": {"b": [1]}},
    "extra_headers": {"x-contract": "1"},
    "svg": {"model": "a"},
}
"""Values of fields that a careless provider can change."""

REFERENCES = (
    *(ImageReference(file_id=f"file-{number}") for number in (1, 2)),
    *(ImageReference(url=f"https://files.example/{number}.png") for number in (1, 2)),
)


class ProviderRequestTests(ProviderSamples):
    """The tests of requests: a provider sends all that the caller asks for, and nothing else."""

    def test_encodes_requests(self) -> None:
        """Encodes equal requests to equal bytes, in a POST that every backend can send."""
        for request in self.list_requests():
            with ExitStack() as cleanup:
                first, second = self.encode(request, cleanup), self.encode(request, cleanup)
                assert_well_formed(first, self.secret_headers)
                assert join_wire(first) == join_wire(second), (
                    f"Two equal {request.operation} requests differ. Caches and cassettes would not find "
                    "them again: use no clock, no random numbers and no counter, and sort keys. "
                    "imgkit.providers.MultipartBody makes a boundary from the content."
                )

    def test_bodies_can_be_read_again(self) -> None:
        """Returns a body that has its stated length, and yields the same bytes each time."""
        for request in self.list_requests():
            with ExitStack() as cleanup:
                body = self.encode(request, cleanup).body
                first, second = b"".join(body.blocks()), b"".join(body.blocks())
            assert first == second, (
                f"The second reading of a {request.operation} body gives other bytes. A retry would send "
                "them: blocks() must start anew each time. Use BytesBody or MultipartBody."
            )
            assert len(first) == body.length, (
                f"A {request.operation} body has {len(first)} bytes, and its length says {body.length}."
            )

    def test_content_type_is_true(self) -> None:
        """States the type of the body, and of the images in it."""
        for request in self.list_requests():
            with ExitStack() as cleanup:
                body = self.encode(request, cleanup).body
                assert_body_type(body.content_type, b"".join(body.blocks()))
        for request in self.list_input_requests():
            with ExitStack() as cleanup:
                try:
                    body = self.encode(change(request, image=GIF), cleanup).body
                except InvalidRequestError:
                    continue  # The API takes no GIF.
                stated = find_image_types(b"".join(body.blocks()), GIF)
            assert stated <= {"image/gif"}, (
                f"A GIF is sent as {', '.join(sorted(stated))}. State the type of each file: "
                "ImageFile.kind.media_type."
            )

    def test_requests_hold_no_credentials(self) -> None:
        """Puts no key into URL, headers or body: an auth plugin sends it."""
        variables = {credential.variable for credential in self.provider().credentials}
        with pytest.MonkeyPatch.context() as environment:
            for variable in variables:
                environment.setenv(variable, canary.KEY)
            provider = self.provider()
            leaks = canary.find_secret(provider)
            assert not leaks, f"The provider keeps the key, in {leaks[0]}. The auth plugin has it."
            for request in self.list_requests():
                with ExitStack() as cleanup:
                    assert_no_key(self.encode(request, cleanup, provider), self.secret_headers)
            if (listing := provider.models_request(self.target(provider))) is not None:
                assert_no_key(listing, self.secret_headers)

    def test_leaves_requests_unchanged(self) -> None:
        """Changes nothing in the request that it encodes."""
        for request in self.list_requests():
            for field in CHANGEABLE_VALUES.keys() & set(field_names(type(request))):
                before = CHANGEABLE_VALUES[field]
                value = copy.deepcopy(before)
                with ExitStack() as cleanup:
                    try:
                        self.encode(change(request, **{field: value}), cleanup)
                    except InvalidRequestError:
                        continue  # The dialect has no such field.
                assert value == before, (
                    f"Encoding changes {field} of the caller's {request.operation} request from {before!r} "
                    f"to {value!r}. Change a copy."
                )

    @pytest.mark.parametrize("field", FIELD_VALUES)
    def test_sends_every_field(self, field: str) -> None:
        """Sends a field, or refuses it: two values never give the same request."""
        for request in self.list_requests():
            if field in field_names(type(request)):
                self.assert_field_is_sent(request, field, self.encode)

    def test_sends_every_image(self) -> None:
        """Sends all input images in their order, or refuses several."""
        for request in self.list_input_requests():
            self.assert_images_are_sent(request, self.encode)

    @pytest.mark.parametrize("field", ["mask", "markup"])
    def test_sends_masks(self, field: str) -> None:
        """Sends a mask or a markup, or refuses it."""
        for request in self.list_input_requests():
            if field in field_names(type(request)):
                self.assert_overlay_is_sent(request, field, self.encode)

    def test_sends_references(self) -> None:
        """Sends references to images, if `takes_references` is true."""
        for request in self.list_input_requests():
            if self.provider().takes_references and request.operation == "create_image_edit":
                variants = {repr(reference): change(request, image=reference) for reference in REFERENCES}
                self.assert_distinct("image", variants, self.encode)

    def test_sends_the_model_of_the_service(self) -> None:
        """Sends the model of the service with a request that names none, or refuses it."""
        target = self.target(self.provider())

        def encode(request: ImageRequest, cleanup: ExitStack) -> HttpRequest:
            service = change(target, model=request.model)
            return self.encode(change(request, model=None), cleanup, target=service)

        for request in self.list_requests():
            variants = {
                f"model={value!r} of the service": change(request, model=value)
                for value in self.copy_values("model")
            }
            self.assert_distinct("model", variants, encode)

    def test_follows_the_target(self) -> None:
        """Sends requests to the base URL of the target, with its organization and project."""
        provider = self.provider()
        target = self.target(provider)
        relay = change(target, base_url=RELAY + urlsplit(target.base_url).path)
        for request in self.list_requests():
            with ExitStack() as cleanup:
                url = self.encode(request, cleanup, target=relay).url
                assert url.startswith(relay.base_url), (
                    f"With base_url={relay.base_url!r}, {request.operation} goes to {url}. Build the URL "
                    "from target.base_url: users put other servers there."
                )
                # Only a provider with a variable for a setting has the setting.
                for name in sorted({"organization", "project"} & set(provider.env)):
                    targets = [change(target, **{name: value}) for value in ("group-1", "group-2")]
                    first, second = (self.encode(request, cleanup, target=group) for group in targets)
                    assert join_wire(first) != join_wire(second), (
                        f"`env` has a variable for {name}, and {request.operation} ignores target.{name}."
                    )

    def test_sends_operations_to_their_endpoints(self) -> None:
        """Sends each operation to an endpoint of its own, or to the endpoint that `endpoints` names."""
        urls: dict[str, str] = {}
        for request in self.list_requests():
            operation = request.operation
            with ExitStack() as cleanup:
                url = self.encode(request, cleanup).url
            path, expected = urlsplit(url).path, self.endpoints.get(operation)
            if expected is not None:
                assert path.endswith(expected), f"{operation} goes to {path}. Its endpoint is {expected}."
                continue
            other = urls.setdefault(url, operation)
            assert other == operation, (
                f"{other} and {operation} both go to {url}. If the API has one endpoint for both, say so in "
                f'the contract: endpoints = {{"{other}": "{path}", "{operation}": "{path}"}}.'
            )

    def assert_field_is_sent(self, request: ImageRequest, field: str, encode: Encode) -> None:
        """Fail unless the values of a field give different requests, or are refused."""
        values = self.copy_values(field)
        variants = {f"{field}={value!r}": change(request, **{field: value}) for value in values}
        refusals = self.assert_distinct(field, variants, encode)
        accepts = getattr(self.provider(), "accepts", None)
        is_accepted = accepts is None or field in accepts.get(request.operation, ())
        assert is_accepted or refusals == len(variants), (
            f"`accepts` has no {field} for {request.operation}, and check() lets it pass. Call "
            "super().check(request, target) in check()."
        )

    def assert_images_are_sent(self, request: ImageRequest, encode: Encode) -> None:
        """Fail unless different input images give different requests, or are refused."""
        first, second, third = png(1), png(2), png(3)
        lists: dict[str, object] = {"image 1": first, "image 2": second}
        if request.operation == "create_image_edit":
            lists |= {"images 1 and 2": (first, second), "images 2 and 1": (second, first)}
            lists |= {"images 1 and 3": (first, third), "images 1, 2 and 3": (first, second, third)}
        variants = {name: change(request, image=images) for name, images in lists.items()}
        refusals = self.assert_distinct("image", variants, encode)
        assert len(variants) - refusals >= 2, f"{request.operation} refuses every image."

    def assert_overlay_is_sent(self, request: ImageRequest, field: str, encode: Encode) -> None:
        """Fail unless different masks, and no mask, give different requests, or masks are refused."""
        # imgkit converts masks to the polarity of the provider before it encodes them.
        is_grey = field == "mask" and self.provider().mask_polarity != "transparent"
        masks = {f"{field} {seed}": png(seed, 8, "L" if is_grey else "RGBA") for seed in (4, 5)}
        plain = change(request, mask=None, markup=None)
        variants = {name: change(plain, **{field: mask}) for name, mask in masks.items()}
        self.assert_distinct(field, {f"no {field}": plain, **variants}, encode)

    def assert_distinct(self, field: str, variants: Mapping[str, ImageRequest], encode: Encode) -> int:
        """Fail if two variants of a request encode to the same bytes; return the number of refusals.

        Args:
            field: the field in which the variants differ.
            variants: requests, by the words for their difference.
            encode: encodes a request, or refuses it with an `InvalidRequestError` that names the field.
        """
        names: dict[bytes, str] = {}
        for name, request in variants.items():
            with ExitStack() as cleanup:
                wire = self.encode_or_refuse(field, name, request, encode, cleanup)
            if wire is None:
                continue
            assert wire not in names, (
                f"{request.operation} with {names[wire]} and with {name} give the same request: the provider "
                f"ignores {field}. Send it. If the API has no such thing, leave {field} out of `accepts`, or "
                f'raise InvalidRequestError({{"{field}": "…"}}) in check().'
            )
            names[wire] = name
        return len(variants) - len(names)

    def encode_or_refuse(
        self, field: str, name: str, request: ImageRequest, encode: Encode, cleanup: ExitStack
    ) -> bytes | None:
        """Return the wire form of a variant of a request, None if the provider refuses its field."""
        try:
            encoded = encode(request, cleanup)
        except InvalidRequestError as error:
            refusal = error
        except Exception as error:
            error.add_note(f"The contract encoded {request.operation} with {name}.")
            raise
        else:
            assert_well_formed(encoded, self.secret_headers)
            return join_wire(encoded)
        fields = {path.partition(".")[0] for path in refusal.fields}
        assert field in fields, (
            f"{request.operation} with {name} is refused for {', '.join(sorted(fields))}: {refusal} A "
            f"refusal names the field that the caller must change, {field}."
        )
        return None
