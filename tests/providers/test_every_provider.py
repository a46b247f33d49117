"""All providers alike: costs that no reply can mean, words of a call, hostile replies."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from imgkit import Cost, ImageService
from imgkit.providers import (
    DecodedImages,
    FakeApi,
    FakeReply,
    FakeRequest,
    Head,
    OpenAIProvider,
    Target,
    read_cost,
)
from imgkit.providers.listing import find_provider
from imgkit.testing import WireServer, png, reply, serve_fake
from imgkit.wire.json_body import JsonReply

KEYS = {"fal": "a-key", "comfy_router": "comfyui-a-key", "replicate": "a-key"}

NO_AMOUNTS: tuple[object, ...] = (
    None,
    True,
    -1,
    "-1",
    "free",
    [],
    {},
    float("inf"),
    "Infinity",
    "NaN",
    10**400,
    10**5000,
)


def test_an_amount_that_no_reply_can_mean_is_no_cost() -> None:
    """Reads no cost from a negative, endless or huge amount, nor from anything but a number."""
    assert [read_cost(amount, 100) for amount in NO_AMOUNTS] == [None] * len(NO_AMOUNTS)


def test_reads_a_cost_from_a_number_and_from_its_text() -> None:
    """Reads an amount in cents from a number and from its text, and keeps zero."""
    for amount in (3, "3", 3.0):
        cost = read_cost(amount, 100, "as the API announced it")
        assert cost is not None
        assert (cost.amount, cost.note) == (Decimal("0.03"), "as the API announced it")
    assert getattr(read_cost(0), "amount", None) == 0


@pytest.mark.parametrize("cost", [Decimal(-1), Decimal("Infinity"), Decimal("NaN"), Decimal("1e400"), 0.04])
def test_a_provider_that_tells_no_amount_leaves_the_cost_unknown(cost: Any) -> None:
    """Delivers the images of a provider whose cost is no amount, and knows no cost."""

    class Acme(OpenAIProvider):
        def examine_reply(self, *arguments: Any) -> tuple[Cost | None, tuple[str, ...]]:
            return Cost(amount=cost), ()

    with (
        WireServer(reply(200, {"data": [{"b64_json": base64.b64encode(png(1)).decode()}]})) as server,
        ImageService("requests", provider=Acme(), base_url=server.base_url, api_key="a-key") as service,
    ):
        response = service.create_image("a fox", model="m")
    assert len(response) == 1
    assert not response.cost.known


Submit = dict[str, Any]

DAMAGED_SUBMITS: dict[str, list[Callable[[Submit], Submit]]] = {
    "fal": [
        lambda reply: without(reply, "request_id"),
        lambda reply: without(reply, "response_url"),
        lambda reply: without(reply, "status_url"),
        lambda reply: {**reply, "cancel_url": None},
    ],
    "comfy_router": [
        lambda reply: without(reply, "request_id"),
        lambda reply: without(reply, "response_url"),
        lambda reply: without(reply, "status_url"),
        lambda reply: without(reply, "cancel_url"),
    ],
    "replicate": [
        lambda reply: without(reply, "id"),
        lambda reply: without(reply, "status"),
        lambda reply: without(reply, "urls"),
        lambda reply: {**reply, "urls": [None]},
        lambda reply: {**reply, "urls": {"get": 5}},
    ],
}


def without(reply: Submit, name: str) -> Submit:
    """Return a reply that lacks a member."""
    return {key: value for key, value in reply.items() if key != name}


class Altered:
    """A fake whose replies to POST requests are altered.

    Args:
        fake: the fake.
        alter: returns another JSON value.
    """

    def __init__(self, fake: FakeApi, alter: Callable[[Any], object]) -> None:
        self.fake, self.alter = fake, alter
        self.count = fake.count

    def answer(self, request: FakeRequest) -> FakeReply:
        """Return the reply of the fake, altered."""
        answer = self.fake.answer(request)
        if request.method != "POST":
            return answer
        return answer._replace(body=json.dumps(self.alter(json.loads(answer.body))).encode())


@pytest.mark.usefixtures("short_pauses")
@pytest.mark.parametrize("name", DAMAGED_SUBMITS)
def test_an_accepted_job_is_collected_whatever_its_reply_lacks(name: str) -> None:
    """Collects a job whose accepting reply lacks its id, an address or its state: it is paid for."""
    for alter in DAMAGED_SUBMITS[name]:
        fake = find_provider(name).make().fake()
        altered: Any = Altered(fake, alter)
        with (
            serve_fake(altered) as server,
            ImageService("requests", provider=name, base_url=server.base_url, api_key=KEYS[name]) as service,
        ):
            assert len(service.create_image("a fox")) == 1
        assert server.posts == 1


ODD_REASONS: tuple[Any, ...] = (5, "x", {}, [5], [[]], ["SUCCESS"])
PIXELS = base64.b64encode(png(1)).decode()

ODD_NEIGHBOURS: dict[str, list[Any]] = {
    "bedrock": [
        *({"images": [PIXELS], "finish_reasons": odd} for odd in ODD_REASONS),
        {"images": [PIXELS, PIXELS], "finish_reasons": ["Filter reason: output image", None]},
    ],
    "a1111": [
        *({"images": [PIXELS], "parameters": odd} for odd in (5, "x", [None], {"n_iter": "x"})),
        {"images": [PIXELS], "parameters": {"batch_size": float("inf")}, "info": '{"all_seeds": 5}'},
        {"images": [PIXELS], "info": '{"index_of_first_image": "x", "all_seeds": {}}'},
    ],
}


@pytest.mark.parametrize("name", ODD_NEIGHBOURS)
def test_an_odd_member_loses_no_image(name: str) -> None:
    """Returns the image of a reply whose other members are odd: it is paid for."""
    target = Target(base_url="https://api.acme.example", host_class="official")
    provider = find_provider(name).make()
    for value in ODD_NEIGHBOURS[name]:
        body = JsonReply(provider.base64_keys)
        body.feed(json.dumps(value).replace("Infinity", "1e999").encode())
        body.close()
        decoded = provider.decode(Head(200, {}), body, target)
        assert isinstance(decoded, DecodedImages)
        assert [image.data for image in decoded.pictures] == [png(1)]


def test_recraft_gives_an_automatic_size_the_shape_of_the_image() -> None:
    """Sends the ratio of the input image with a variation for "auto", as it does without a size."""
    with ImageService("offline", provider="recraft") as service:
        shapes = [
            re.findall(r'size"?[ =:]+"([^"]+)"', service.dry_run("create_image_variation", png(1), size=size))
            for size in (None, "auto")
        ]
    assert shapes[0] == shapes[1] != []
