"""The money of a run: attempts that may be billed twice count as spent, with the most that they may cost."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from imgkit import ImageService
from imgkit.bulk.manifest import Manifest
from imgkit.bulk.reports import TaskAccount
from imgkit.default_plugins.budget import Budget
from imgkit.plugins.engines import Claim, Part
from imgkit.providers.fakes import FakeReply, json_reply
from imgkit.testing import answer
from imgkit.testing.wire_server import serve_fake
from tests.bulk import test_bulk_recovery as recovery
from tests.bulk.test_bulk import carry_out
from tests.bulk.test_bulk_recovery import KEY, SYNC, Parts, kill_run
from tests.support.official import official
from tests.support.pictures import noise

USAGE = {"input_tokens": 10, "output_tokens": 272, "input_tokens_details": {"text_tokens": 10}}


def reply(number: int) -> FakeReply:
    """Return a reply with an image and its usage."""
    return json_reply(200, {**answer(noise(number)), "usage": USAGE})


@pytest.mark.parametrize("model", ["gpt-image-2", "dall-e-3"])
def test_requests_that_are_sent_again(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that is sent again counts once more, or its cost is not known if its price is not."""
    rows = [{"id": "a", "prompt": "a fox", "model": model, "size": "1024x1024"}]
    if model == "gpt-image-2":
        rows[0]["quality"] = "low"

    def start(server: Any, folder: Path, **more: Any) -> Any:
        provider = official(f"{server.origin}/v1")
        given = {"provider": provider, "api_key": KEY, "state_folder": folder / "state", **more}
        return carry_out(SYNC, rows, tmp_path / "out", "requests", **given)

    monkeypatch.setattr(recovery, "run_parts", start)
    api = Parts(reply(1), reply(2))
    with serve_fake(api) as server:
        with ImageService("requests", provider=official(f"{server.origin}/v1"), api_key=KEY) as service:
            high = service.estimate(
                "a fox", model=model, size="1024x1024", quality=rows[0].get("quality")
            ).high
        kill_run(server, tmp_path, "core.send.read_response")
        _, run = start(server, tmp_path)
        assert (run.counts["unknown"], run.spent) == (1, 0)
        [outcome], run = start(server, tmp_path, retry_unknown=True)
    assert (outcome.state, len(api.bodies)) == ("done", 2)
    manifest = Manifest(tmp_path / "out")
    cost = outcome.cost or Decimal(0)
    assert run.spent == manifest.sum_costs() == cost + (high or 0)
    assert [row.id for row in manifest.list_without_cost()] == ([] if high else ["a"])
    manifest.close()
    assert (high is None, cost > 0) == (model == "dall-e-3", model == "gpt-image-2")


FIRST: Part = ("call", 1, 0, 2)


@pytest.mark.parametrize(
    ("claim", "report", "reserved", "spent"),
    [
        ({}, {}, "0.08", "0.07"),
        ({"ended": [FIRST]}, {"ended": [FIRST]}, "0.04", "0.03"),
        ({}, {"ended": [FIRST]}, "0.08", "0.03"),
    ],
    ids=["unknown", "ended", "ended later"],
)
def test_a_further_attempt_of_a_task(claim: Any, report: Any, reserved: str, spent: str) -> None:
    """A worker's second attempt is reserved, too, and both count unless the first has ended for free."""
    budget = Budget("1", price_per_image="0.02")
    request = {"operation": "create_image", "prompt": "a fox", "n": 2}
    base: Claim = {"task": "t", "epoch": 1, "worker": "w", "part": FIRST}
    done: Any = {"images": [{}], "cost": "0.03", **report}
    with ImageService("requests", model="m", base_url="http://127.0.0.1:9/v1", plugins=[budget]) as service:
        account = TaskAccount(service._core, request, 9.0)
        account.reserve(base)
        account.reserve({**base, **claim, "part": ("call", 2, 0, 2)})
        account.mark_sent()
        assert budget.reserved == Decimal(reserved)
        account.end(done)
    assert (budget.spent, budget.reserved) == (Decimal(spent), Decimal(0))


def test_a_claim_that_cannot_be_written_down() -> None:
    """A claim that is cancelled, or a task that is given back, leaves nothing reserved."""
    budget = Budget("1", price_per_image="0.02")
    request = {"operation": "create_image", "prompt": "a fox", "n": 2}
    first: Claim = {"task": "t", "epoch": 1, "worker": "w", "part": FIRST}
    second: Claim = {**first, "part": ("call", 2, 0, 2)}
    with ImageService("requests", model="m", base_url="http://127.0.0.1:9/v1", plugins=[budget]) as service:
        account = TaskAccount(service._core, request, 9.0)
        account.reserve(first)
        account.reserve(second)
        account.cancel(second)
        assert budget.reserved == Decimal("0.04")
        account.give_back()
    assert (budget.spent, budget.reserved) == (Decimal(0), Decimal(0))
