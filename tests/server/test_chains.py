"""imgkit's own service, and another server, as clients of a server: they learn what may be billed."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import imgkit
from imgkit.server.served_service import ServedService
from imgkit.server.thread import ServerThread
from tests.support.served import GENERATIONS, SETTINGS, send
from tests.support.wire_server import WireServer, drop

PRICE = Decimal("0.04")


@pytest.fixture
def api() -> Iterator[WireServer]:
    """Serve an API that reads each request and hangs up: each may be billed."""
    with WireServer(drop) as api:
        yield api


def serve(base_url: str, folder: Path, **arguments: Any) -> ServerThread:
    """Return a server in front of an address."""
    settings: dict[str, Any] = {
        "api_key": "sk-upstream-0123456789abcdef",
        "model": "gpt-image-2",
        **arguments,
    }
    return ServerThread(
        SETTINGS,
        partial(ServedService, "aiohttp", base_url=base_url, state_folder=folder, retry=False, **settings),
    )


def open_client(server: ServerThread, folder: Path, budget: imgkit.Budget) -> imgkit.ImageService:
    """Return a service with a budget that asks a server."""
    return imgkit.ImageService(
        "requests",
        base_url=f"{server.address}/v1",
        api_key="any",
        model="gpt-image-2",
        state_folder=folder,
        retry=False,
        plugins=[budget],
    )


@pytest.mark.parametrize("stream", [False, True])
def test_a_budget_counts_what_a_server_says_may_be_billed(
    api: WireServer, tmp_path: Path, stream: bool
) -> None:
    """Ends with an unknown outcome, asks once, and counts the image as spent."""
    budget = imgkit.Budget(5, price_per_image=PRICE)
    with serve(api.base_url, tmp_path / "server") as server:
        with open_client(server, tmp_path / "client", budget) as images:
            with pytest.raises(imgkit.OutcomeUnknownError, match="HTTP 424|may have") as caught:
                if stream:
                    with images.stream_image("a fox", size="1024x1024") as events:
                        list(events)
                else:
                    images.create_image("a fox", size="1024x1024")
    assert (api.posts, caught.value.maybe_billed) == (1, True)
    assert (budget.spent, budget.reserved) == (PRICE, Decimal(0))


def test_a_budget_counts_nothing_if_the_server_has_sent_nothing(tmp_path: Path) -> None:
    """Counts nothing for a status that would else be an unknown outcome."""
    budget = imgkit.Budget(5, price_per_image=PRICE)
    with WireServer() as closed:
        url = closed.base_url
    with serve(url, tmp_path / "server") as server:
        with open_client(server, tmp_path / "client", budget) as images:
            with pytest.raises(imgkit.ServerError) as caught:
                images.create_image("a fox", size="1024x1024")
    assert not caught.value.maybe_billed
    assert (budget.spent, budget.reserved) == (Decimal(0), Decimal(0))


def test_a_server_in_front_of_a_server_passes_the_verdict_on(api: WireServer, tmp_path: Path) -> None:
    """Answers with the same status and advice, said once, and counts the call as unknown."""
    with serve(api.base_url, tmp_path / "inner") as inner:
        with serve(f"{inner.address}/v1", tmp_path / "outer") as outer:
            refused = send(outer, GENERATIONS, {"prompt": "a fox", "size": "1024x1024"})
            states = [call["state"] for call in send(outer, "/status").json["requests"]]
    assert (refused.status, refused.error["imgkit"]["maybe_billed"]) == (424, True)
    assert refused.error["message"].count("Do not send it again") == 1
    assert (api.posts, states) == (1, ["unknown"])
