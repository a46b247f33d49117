"""All providers alike: costs that no reply can mean, words of a call, hostile replies."""

from __future__ import annotations

import base64
from decimal import Decimal
from typing import Any

import pytest

from imgkit import Cost, ImageService
from imgkit.providers import OpenAIProvider, read_cost
from imgkit.testing import WireServer, png, reply

NO_AMOUNTS = (None, True, -1, "-1", "free", [], {}, float("inf"), "Infinity", "NaN", 10**400, 10**5000)


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
