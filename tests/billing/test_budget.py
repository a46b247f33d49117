"""A budget: what is reserved, spent and lost, and that no interleaving of calls goes above it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import imgkit
from imgkit.billing.budget_store import FILE
from imgkit.default_plugins.budget import Budget, BudgetLedger
from imgkit.models import Cost, CreateImageRequest, Estimate, ImagesResponse, Meta
from imgkit.plugins.hookspecs import ServiceSettings
from imgkit.testing.samples import answer, png
from imgkit.testing.wire_server import WireServer, drop, hang, reply
from tests.cli.support import imgkit as command
from tests.support.official import official

USAGE = {
    "input_tokens": 10, "output_tokens": 1000, "total_tokens": 1010,
    "input_tokens_details": {"text_tokens": 10, "image_tokens": 0},
}  # fmt: skip
PAID = {**answer(png(1)), "usage": USAGE}
COST = Decimal("0.03005")  # 10 tokens of text at 5 and 1000 of pictures at 30 USD for a million
ASKED = {"prompt": "a fox", "quality": "medium", "size": "1024x1024"}
UNKNOWN = {"prompt": "a fox", "model": "a-model-of-tomorrow"}


def estimated(usd: str | None, currency: str = "USD") -> Estimate:
    high = None if usd is None else Decimal(usd)
    return Estimate(low=high, high=high, currency=currency, note="" if usd else "no prices")


def response(usd: str | None, currency: str = "USD") -> ImagesResponse:
    cost = Cost(amount=None if usd is None else Decimal(usd), currency=currency, as_of=date(2026, 11, 23))
    meta = Meta(operation="create_image", call_id="1", backend="requests", provider="openai")
    return ImagesResponse(images=(), meta=meta, cost=cost)


def amounts(budget: Budget) -> tuple[Decimal, Decimal, Decimal, int]:
    return budget.spent, budget.reserved, budget.unknown, budget.unpriced


def paid(
    flavor: Any, server: WireServer, backend: str, budget: Budget, asked: Any = ASKED, **more: Any
) -> Any:
    settings = {"provider": official(server.base_url), "api_key": "sk-test", "model": "gpt-image-2", **more}
    return flavor.run(lambda images: images.create_image(**asked), backend, plugins=[budget], **settings)


@pytest.fixture(params=["memory", "folder"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path | None]:
    return None if request.param == "memory" else tmp_path / "budget"


# How reservations end


@pytest.mark.parametrize(
    ("end", "wanted"),
    [
        (lambda one: one.settle(response("0.25")), ("0.25", "0", "0", 0)),
        (lambda one: one.settle(response("0.75")), ("0.75", "0", "0", 0)),
        (lambda one: one.settle(response(None)), ("0.5", "0", "0.5", 0)),
        (lambda one: one.settle(response("0.1", "EUR")), ("0.5", "0", "0.5", 0)),
        (lambda one: one.settle(None), ("0", "0", "0", 0)),
        (lambda one: one.close(), ("0", "0", "0", 0)),
        (lambda one: one.keep(imgkit.OutcomeUnknownError("cut"), None), ("0.5", "0", "0.5", 0)),
        (lambda one: one.keep(imgkit.SaveError("full"), response("0.25")), ("0.25", "0", "0", 0)),
        (
            lambda one: (one.keep(KeyboardInterrupt(), None), one.settle(None), one.close()),
            ("0.5", "0", "0.5", 0),
        ),
        (lambda one: (one.settle(response("0.25")), one.keep(ValueError(), None)), ("0.25", "0", "0", 0)),
        (lambda one: None, ("0", "0.5", "0", 0)),
    ],
)
def test_ends(place: Path | None, end: Any, wanted: tuple[str, str, str, int]) -> None:
    """Spent is the cost; without one, what was reserved; nothing where nothing was billed. Once."""
    budget = Budget(1, place)
    end(budget.reserve(estimated("0.5")))
    spent, reserved, unknown, unpriced = wanted
    assert amounts(budget) == (Decimal(spent), Decimal(reserved), Decimal(unknown), unpriced)
    assert budget.left == 1 - Decimal(spent) - Decimal(reserved)


def test_no_room(place: Path | None) -> None:
    """The error says what is spent, lost, reserved and wanted; what just fits is taken."""
    budget = Budget("1.00", place)
    budget.reserve(estimated("0.25")).settle(response("0.125"))
    budget.reserve(estimated("0.25")).keep(imgkit.OutcomeUnknownError("cut"), None)
    budget.reserve(estimated("0.5"))
    with pytest.raises(imgkit.BudgetExceededError) as caught:
        budget.reserve(estimated("0.2"))
    error = caught.value
    assert (error.limit, error.spent, error.reserved, error.wanted) == (
        Decimal(1), Decimal("0.375"), Decimal("0.5"), Decimal("0.2"),
    )  # fmt: skip
    assert str(error) == (
        "The budget of 1.00 USD is exhausted: 0.375 spent, 0.25 of it by calls of unknown cost, "
        "0.50 reserved by running calls, and this call may cost 0.20. Nothing was sent. "
        "Request fewer or smaller images, or raise the budget."
    )
    budget.reserve(estimated("0.125"))
    assert budget.left == 0
    budget.reserve(estimated("0"))
    assert repr(budget) == "Budget(1.00 USD: 0.375 spent, 0.625 reserved, 0.25 of it unknown)"


def test_unknown_prices(place: Path | None) -> None:
    """They are refused, unless allowed; then they are counted, and bounded by nothing but their real cost."""
    for estimate in (estimated(None), estimated("0.1", "EUR")):
        with pytest.raises(imgkit.ConfigurationError, match=r"allow_unknown=True"):
            Budget(1, place).reserve(estimate)
    budget = Budget(1, place, allow_unknown=True)
    budget.reserve(estimated(None)).settle(response("0.25"))
    assert amounts(budget) == (Decimal("0.25"), 0, 0, 0)
    budget.reserve(estimated(None)).settle(response(None))
    budget.reserve(estimated(None)).keep(imgkit.OutcomeUnknownError("cut"), None)
    budget.reserve(estimated(None)).settle(None)
    assert amounts(budget) == (Decimal("0.25"), 0, 0, 2)
    assert "2 calls without a price" in repr(budget)


@pytest.mark.parametrize("usd", [0, -1, "nan", "inf", "five", True, None, [5], 10**10, ""])
def test_limits_that_are_none(usd: Any) -> None:
    with pytest.raises(imgkit.ConfigurationError, match="usd must be"):
        Budget(usd)


@pytest.mark.parametrize("folder", ["", 5, b"x"])
def test_folders_that_are_none(folder: Any) -> None:
    with pytest.raises(imgkit.ConfigurationError, match="folder must be"):
        Budget(1, folder)


def test_files_that_are_no_budget(tmp_path: Path) -> None:
    """What cannot be used is told, with its place."""
    (tmp_path / FILE).write_bytes(b"not a database at all" * 99)
    with pytest.raises(imgkit.ConfigurationError, match=r"budget in .*budget.sqlite"):
        Budget(1, tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(imgkit.ConfigurationError, match="cannot be read or written"):
        Budget(1, tmp_path / "file" / "below")


def test_amounts_are_exact_and_rounded_up(place: Path | None) -> None:
    """A thousand tiny costs add up without loss; what is below a billionth counts as one."""
    budget = Budget(0.1, place)
    for _ in range(10):
        budget.reserve(estimated("0.01")).settle(response("0.0000402"))
    assert budget.spent == Decimal("0.000402")
    budget.reserve(estimated("0.01")).settle(response("0.0000000001"))
    assert budget.spent == Decimal("0.000402001")


def test_absurd_costs(place: Path | None) -> None:
    """A server that counts wrongly uses the budget up, and breaks nothing."""
    budget = Budget(1, place)
    budget.reserve(estimated("0.5")).settle(response("1e40"))
    assert budget.left < 0
    with pytest.raises(imgkit.BudgetExceededError):
        budget.reserve(estimated("1e40"))


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["reserve", "settle", "lose", "keep", "refuse", "close"]),
        st.integers(0, 40), st.integers(0, 100),
    ),
    max_size=40,
)  # fmt: skip


@given(STEPS)
def test_never_above_the_limit(steps: list[tuple[str, int, int]]) -> None:
    """Whatever the order of reservations and their ends, all together stays below the limit and adds up."""
    budget, limit = Budget(1), 100
    running: list[tuple[Any, int]] = []
    spent = 0
    for what, number, percent in steps:
        if what == "reserve":
            fits = spent + sum(amount for _, amount in running) + number <= limit
            try:
                running.append((budget.reserve(estimated(f"0.{number:02}")), number))
                assert fits
            except imgkit.BudgetExceededError:
                assert not fits
        elif running:
            one, amount = running.pop(number % len(running))
            cost = amount * percent // 100
            if what == "settle":
                one.settle(response(str(Decimal(cost) / 100)))
                spent += cost
            elif what in ("lose", "keep"):
                one.settle(response(None)) if what == "lose" else one.keep(OSError(), None)
                spent += amount
            else:
                one.settle(None) if what == "refuse" else one.close()
        assert budget.spent * 100 == spent
        assert budget.reserved * 100 == sum(amount for _, amount in running)
        assert budget.spent + budget.reserved <= budget.limit
        assert budget.left == budget.limit - budget.spent - budget.reserved


# In services


def test_a_call_is_reserved_and_settled(flavor: Any, http_backend: str, place: Path | None) -> None:
    """What the usage of the reply says is spent, and the rest of the reservation is free again."""
    budget = Budget(5, place)
    with WireServer(reply(200, PAID)) as server:
        made = paid(flavor, server, http_backend, budget)
    assert made.cost.amount == COST
    assert amounts(budget) == (COST, 0, 0, 0)


def test_it_stops_before_the_next_paid_call(flavor: Any, http_backend: str) -> None:
    """The first call fits, the second would not: no connection is opened for it."""
    budget = Budget("0.06")
    with WireServer(reply(200, PAID)) as server:
        paid(flavor, server, http_backend, budget)
        with pytest.raises(imgkit.BudgetExceededError, match="exhausted"):
            paid(flavor, server, http_backend, budget)
        assert server.accepted == 1
    assert budget.spent == COST


@pytest.mark.parametrize(
    ("script", "lost"),
    [(drop, True), (reply(504, b"<html>"), True), (reply(200, b"{}"), True), (reply(200, b"what"), True),
     (reply(400, {"error": {"message": "no"}}), False), (reply(429, {"error": {"message": "no"}}), False),
     (reply(500, {"error": {"message": "no"}}), False)],
    ids=["drop", "504", "empty", "unreadable", "400", "429", "500"],
)  # fmt: skip
def test_how_failures_end(flavor: Any, http_backend: str, script: Any, lost: bool) -> None:
    """What may have been billed counts in full; what the API refused costs nothing."""
    budget = Budget(5)
    with WireServer(script) as server, pytest.raises(imgkit.ImgkitError):
        paid(flavor, server, http_backend, budget)
    assert (budget.spent > COST) is lost
    assert budget.unknown == budget.spent
    assert budget.reserved == 0


def test_what_was_not_sent_costs_nothing(flavor: Any, http_backend: str) -> None:
    budget = Budget(5)
    with WireServer(drop) as server:
        pass
    with pytest.raises(imgkit.NotSentError):
        paid(flavor, server, http_backend, budget)
    assert amounts(budget) == (0, 0, 0, 0)


def test_retries_are_reserved_one_by_one(flavor: Any, http_backend: str) -> None:
    """A refusal gives its reservation back before the next try, so the budget has room for it."""
    slow = reply(429, {"error": {"message": "slow"}}, retry_after="0.01")
    budget = Budget("0.06")
    with WireServer(slow, slow, reply(200, PAID)) as server:
        paid(flavor, server, http_backend, budget, retry=True)
        assert server.posts == 3
    assert budget.spent == COST


def test_prices_that_are_not_known(flavor: Any, http_backend: str) -> None:
    """Refused before anything is sent; allowed, they are counted."""
    with WireServer(reply(200, PAID)) as server:
        with pytest.raises(imgkit.ConfigurationError, match="allow_unknown"):
            paid(flavor, server, http_backend, Budget(5), UNKNOWN)
        assert server.accepted == 0
        budget = Budget(5, allow_unknown=True)
        paid(flavor, server, http_backend, budget, UNKNOWN)
    assert amounts(budget) == (0, 0, 0, 1)


def test_offline_costs_nothing(flavor: Any) -> None:
    budget = Budget("0.000001")
    flavor.run(lambda images: images.create_image("a fox", size="64x64"), plugins=[budget])
    assert amounts(budget) == (0, 0, 0, 0)


def test_a_broken_off_call_is_lost(http_backend: str) -> None:
    """A cancelled task may have been billed: its reservation counts as spent."""
    budget = Budget(5)

    async def main(server: WireServer) -> None:
        settings: dict[str, Any] = {"provider": official(server.base_url), "api_key": "sk-test"}
        async with imgkit.AsyncImageService(http_backend, plugins=[budget], **settings) as images:
            task = asyncio.create_task(images.create_image(**ASKED, model="gpt-image-2"))
            while not server.lines:
                await asyncio.sleep(0.005)
            assert budget.reserved > COST
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    with WireServer(hang) as server:
        asyncio.run(main(server))
    assert budget.reserved == 0
    assert budget.spent == budget.unknown > COST


def test_tasks_and_threads_of_several_services(place: Path | None) -> None:
    """Both services at once, many calls: as many are made as fit, and all others send nothing."""
    budget = Budget("0.3", place)

    async def tasks(server: WireServer) -> int:
        settings: dict[str, Any] = {"provider": official(server.base_url), "api_key": "sk-test"}
        async with imgkit.AsyncImageService("aiohttp", plugins=[budget], **settings) as images:
            calls = (images.create_image(**ASKED, model="gpt-image-2") for _ in range(12))
            return count(await asyncio.gather(*calls, return_exceptions=True))

    def threads(server: WireServer) -> int:
        settings: dict[str, Any] = {"provider": official(server.base_url), "api_key": "sk-test"}

        def one(images: Any) -> Any:
            try:
                return images.create_image(**ASKED, model="gpt-image-2")
            except imgkit.ImgkitError as error:
                return error

        with (
            imgkit.ImageService("requests", plugins=[budget], **settings) as images,
            ThreadPoolExecutor(6) as pool,
        ):
            return count(list(pool.map(one, [images] * 12)))

    def count(ends: list[Any]) -> int:
        assert all(isinstance(end, ImagesResponse | imgkit.BudgetExceededError) for end in ends), ends
        return sum(isinstance(end, ImagesResponse) for end in ends)

    with WireServer(reply(200, PAID)) as server, ThreadPoolExecutor(1) as beside:
        other = beside.submit(threads, server)
        made = asyncio.run(tasks(server)) + other.result()
        assert server.posts == made
    assert budget.spent == made * COST <= budget.limit
    assert 4 <= made <= 9
    assert budget.reserved == 0


# Between processes

RESERVE = """
import sys, time
from decimal import Decimal
from imgkit import Budget, BudgetExceededError
from imgkit.models import Estimate
budget, made = Budget(1, sys.argv[1]), []
amount = Decimal(sys.argv[2])
for _ in range(int(sys.argv[3])):
    try:
        made.append(budget.reserve(Estimate(low=amount, high=amount)))
    except BudgetExceededError:
        break
print(len(made), flush=True)
sys.stdin.readline()
for one in made[::2]:
    one.close()
"""


def process(folder: Path, amount: str, times: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", RESERVE, str(folder), amount, str(times)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_two_processes_share_a_folder(tmp_path: Path) -> None:
    """Together they reserve as much as there is, and what one gives back the other may have."""
    budget = Budget(1, tmp_path)
    both = [process(tmp_path, "0.1", 8) for _ in range(2)]
    with contextlib.ExitStack() as stack:
        for one in both:
            stack.enter_context(one)
        got = [int(one.stdout.readline()) for one in both if one.stdout]
        assert sum(got) == 10
        assert budget.reserved == 1
        with pytest.raises(imgkit.BudgetExceededError):
            budget.reserve(estimated("0.1"))
        for one in both:
            one.communicate("\n")
    # Half of them were given back; the others' owners ended without a word.
    lost = sum(count - (count + 1) // 2 for count in got)
    assert amounts(budget) == (Decimal(lost) / 10, 0, Decimal(lost) / 10, 0)
    assert list(tmp_path.glob("*.lock")) == []


def test_a_process_that_is_killed(tmp_path: Path) -> None:
    """What it had reserved may be spent: it counts from the next look on, and the error tells."""
    with process(tmp_path, "0.3", 2) as one:
        assert one.stdout
        assert one.stdout.readline() == "2\n"
        budget = Budget(1, tmp_path)
        assert amounts(budget) == (0, Decimal("0.6"), 0, 0)
        one.send_signal(signal.SIGKILL)
        one.wait()
    with pytest.raises(imgkit.BudgetExceededError, match="0.60 spent, 0.60 of it by calls of unknown cost"):
        budget.reserve(estimated("0.5"))
    assert amounts(Budget(1, tmp_path)) == (Decimal("0.6"), 0, Decimal("0.6"), 0)
    budget.reserve(estimated("0.4")).settle(response("0.4"))
    assert budget.left == 0


def test_it_outlives_the_process(tmp_path: Path) -> None:
    Budget(1, tmp_path).reserve(estimated("0.5")).settle(response("0.25"))
    assert Budget(1, tmp_path).spent == Decimal("0.25")
    assert (tmp_path / FILE).stat().st_size < 50_000


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_fork_has_reservations_of_its_own(tmp_path: Path) -> None:
    """A child does not give back what its parent has reserved, and the child's own are lost with it."""
    budget = Budget(1, tmp_path)
    kept = budget.reserve(estimated("0.25"))
    child = os.fork()
    if child == 0:
        try:
            budget.reserve(estimated("0.5"))
            os._exit(0 if budget.reserved == Decimal("0.75") else 3)
        finally:
            os._exit(4)
    assert os.waitpid(child, 0)[1] == 0
    assert amounts(budget) == (Decimal("0.5"), Decimal("0.25"), Decimal("0.5"), 0)
    kept.settle(None)
    assert budget.left == Decimal("0.5")


def test_many_threads_on_one_file(tmp_path: Path) -> None:
    """Two budgets of one folder in one process, eight threads: nothing is counted twice or lost."""
    budgets = [Budget(1, tmp_path), Budget(1, tmp_path)]
    start = threading.Barrier(8)

    def work(number: int) -> int:
        start.wait()
        made = 0
        for _ in range(20):
            try:
                budgets[number % 2].reserve(estimated("0.02")).settle(response("0.01"))
                made += 1
            except imgkit.BudgetExceededError:
                pass
        return made

    with ThreadPoolExecutor(8) as pool:
        made = sum(pool.map(work, range(8)))
    assert budgets[0].spent == Decimal(made) / 100 <= 1
    assert made >= 85  # the last ones fit only while few are reserved at once


def test_a_ledger_asks_what_a_request_may_cost() -> None:
    """The estimate is the service's, for the request as it is sent, partial pictures included."""
    asked: list[Any] = []

    def estimate(request: Any, partial_images: int = 0) -> Estimate:
        asked.append((request, partial_images))
        return estimated("0.5")

    settings: dict[str, Any] = {"backend": "requests", "provider": "openai", "base_url": "https://x",
                                "model": None, "timeout_s": 5.0, "state_folder": None}  # fmt: skip
    budget = Budget(1)
    ledger = budget.imgkit_ledger(ServiceSettings(host_class="official", estimate=estimate, **settings))
    assert isinstance(ledger, BudgetLedger)
    call: Any = SimpleNamespace(partial_images=None)
    stream: Any = SimpleNamespace(partial_images=2)
    request = CreateImageRequest(prompt="a fox", n=3)
    ledger.reserve(request, call, 1)
    assert asked == [(request, 0)]
    assert budget.reserved == Decimal("0.5")
    ledger.reserve(request, stream, 1)
    assert asked[1:] == [(request, 2)]
    assert budget.imgkit_ledger(ServiceSettings(host_class="offline", **settings)) is None


# On the command line

PRICES = """
hosts = ["compatible"]
[prices.own]
currency = "USD"
text_in = 5
image_in = 8
image_out = 30
[tokens.own.medium]
"1024x1024" = 1056
[[models]]
id = "own"
prices = "own"
tokens = "own"
"""


def test_the_command(tmp_path: Path) -> None:
    """``--max-cost`` ends with 8 before anything is sent; an unknown price needs a word of its own."""
    (tmp_path / "own.toml").write_text(PRICES)
    with WireServer(reply(200, PAID)) as server:
        draw = (
            "create",
            "a fox",
            "--backend",
            "requests",
            "--base-url",
            server.base_url,
            "--quality",
            "medium",
        )
        own = ("--model", "own", "--size", "1024x1024", "--models", "own.toml")
        done = command(*draw, *own, "--max-cost", "0.01", cwd=tmp_path)
        assert done.returncode == 8, done.stderr
        assert b"imgkit: The budget of 0.01 USD is exhausted" in done.stderr
        done = command(*draw, "--model", "other", "--max-cost", "1", cwd=tmp_path)
        assert done.returncode == 2
        assert b"--allow-unknown-price" in done.stderr
        assert b"allow_unknown" not in done.stderr
        assert server.accepted == 0
        for more in (
            (*own, "--max-cost", "0.04"),
            ("--model", "other", "--max-cost", "1", "--allow-unknown-price"),
        ):
            done = command(*draw, *more, cwd=tmp_path)
            assert done.returncode == 0, done.stderr
        assert server.posts == 2
    done = command("create", "a fox", "--max-cost", "nothing", cwd=tmp_path)
    assert done.returncode == 2
    assert b"--max-cost must be above 0" in done.stderr
    done = command("create", "a fox", "--allow-unknown-price", cwd=tmp_path)
    assert done.returncode == 2
    assert b"goes with --max-cost" in done.stderr
