"""The budget: reserved, spent and lost amounts, and a limit that no interleaving exceeds."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import stat
import subprocess
import sys
import threading
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
from imgkit.cli.run import run
from imgkit.default_plugins.budget import Budget, BudgetLedger
from imgkit.models import Cost, CreateImageRequest, Estimate, ImagesResponse, Meta
from imgkit.plugins.hookspecs import ServiceSettings
from imgkit.testing.samples import answer, png
from imgkit.testing.wire_server import WireServer, drop, hang, reply
from tests.cli.support import clear_environment
from tests.support.official import official
from tests.support.processes import run_in_fork, start_process

USAGE = {
    "input_tokens": 10, "output_tokens": 1000, "total_tokens": 1010,
    "input_tokens_details": {"text_tokens": 10, "image_tokens": 0},
}  # fmt: skip
PAID = {**answer(png(1)), "usage": USAGE}
COST = Decimal("0.03005")  # 10 text tokens at 5 and 1000 image tokens at 30 USD per million
ASKED: dict[str, Any] = {"prompt": "a fox", "quality": "medium", "size": "1024x1024"}
UNKNOWN: dict[str, Any] = {"prompt": "a fox", "model": "a-model-of-tomorrow"}


def build_estimate(usd: str | None, currency: str = "USD") -> Estimate:
    """Return an estimate of this amount, or an unknown price."""
    high = None if usd is None else Decimal(usd)
    return Estimate(low=high, high=high, currency=currency, note="" if usd else "no prices")


def build_response(usd: str | None, currency: str = "USD") -> ImagesResponse:
    """Return a response with this cost, or an unknown cost."""
    cost = Cost(amount=None if usd is None else Decimal(usd), currency=currency, as_of=date(2026, 11, 23))
    meta = Meta(operation="create_image", call_id="1", backend="requests", provider="openai")
    return ImagesResponse(images=(), meta=meta, cost=cost)


def list_amounts(budget: Budget) -> tuple[float | Decimal, float | Decimal, float | Decimal, int]:
    """Return the amounts spent, reserved and unknown, and the number of unpriced calls."""
    return budget.spent, budget.reserved, budget.unknown, budget.unpriced


def create_image(
    flavor: Any, server: WireServer, backend: str, budget: Budget, asked: Any = ASKED, **more: Any
) -> Any:
    """Create an image at the official host within the budget."""
    settings = {"provider": official(server.base_url), "api_key": "sk-test", "model": "gpt-image-2", **more}
    return flavor.run(lambda images: images.create_image(**asked), backend, plugins=[budget], **settings)


@pytest.fixture(params=["memory", "folder"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    return None if request.param == "memory" else tmp_path / "budget"


# Ends of reservations


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        (lambda reservation: reservation.settle(build_response("0.25")), ("0.25", "0", "0", 0)),
        (lambda reservation: reservation.settle(build_response("0.75")), ("0.75", "0", "0", 0)),
        (lambda reservation: reservation.settle(build_response(None)), ("0.5", "0", "0.5", 0)),
        (lambda reservation: reservation.settle(build_response("0.1", "EUR")), ("0.5", "0", "0.5", 0)),
        (lambda reservation: reservation.settle(None), ("0", "0", "0", 0)),
        (lambda reservation: reservation.close(), ("0", "0", "0", 0)),
        (
            lambda reservation: reservation.keep(imgkit.OutcomeUnknownError("cut"), None),
            ("0.5", "0", "0.5", 0),
        ),
        (
            lambda reservation: reservation.keep(imgkit.SaveError("full"), build_response("0.25")),
            ("0.25", "0", "0", 0),
        ),
        (
            lambda reservation: (
                reservation.keep(KeyboardInterrupt(), None),
                reservation.settle(None),
                reservation.close(),
            ),
            ("0.5", "0", "0.5", 0),
        ),
        (
            lambda reservation: (
                reservation.settle(build_response("0.25")),
                reservation.keep(ValueError(), None),
            ),
            ("0.25", "0", "0", 0),
        ),
        (lambda reservation: None, ("0", "0.5", "0", 0)),
    ],
)
def test_how_a_reservation_ends(place: Path | None, end: Any, expected: tuple[str, str, str, int]) -> None:
    """Counts the cost, else the reserved amount, and nothing for an unbilled call; each reservation once."""
    budget = Budget(1, place)
    end(budget.reserve(build_estimate("0.5")))
    spent, reserved, unknown, unpriced = expected
    assert list_amounts(budget) == (Decimal(spent), Decimal(reserved), Decimal(unknown), unpriced)
    assert budget.left == 1 - Decimal(spent) - Decimal(reserved)


def test_a_full_budget_names_its_amounts(place: Path | None) -> None:
    """The error names the limit and the spent, lost, reserved and requested amounts."""
    budget = Budget("1.00", place)
    budget.reserve(build_estimate("0.25")).settle(build_response("0.125"))
    budget.reserve(build_estimate("0.25")).keep(imgkit.OutcomeUnknownError("cut"), None)
    budget.reserve(build_estimate("0.5"))
    with pytest.raises(imgkit.BudgetExceededError) as caught:
        budget.reserve(build_estimate("0.2"))
    error = caught.value
    assert (error.limit, error.spent, error.reserved, error.wanted) == (
        Decimal(1), Decimal("0.375"), Decimal("0.5"), Decimal("0.2"),
    )  # fmt: skip
    assert str(error) == (
        "The budget of 1.00 USD is exhausted: 0.375 spent, 0.25 of it by calls of unknown cost, "
        "0.50 reserved by running calls, and this call may cost 0.20. Nothing was sent. "
        "Request fewer or smaller images, or raise the budget."
    )
    budget.reserve(build_estimate("0.125"))
    assert budget.left == 0
    budget.reserve(build_estimate("0"))
    assert repr(budget) == "Budget(1.00 USD: 0.375 spent, 0.625 reserved, 0.25 of it unknown)"


def test_a_price_per_image(place: Path | None) -> None:
    """Reserves the price of each image of unknown price, and spends it where the response has no cost."""
    budget = Budget(1, place, price_per_image="0.04")
    three = [budget.reserve(build_estimate(None), 3) for _ in range(3)]
    assert budget.reserved == Decimal("0.36")
    three[0].settle(build_response(None))
    three[1].settle(build_response("0.05"))
    three[2].close()
    assert (budget.spent, budget.unknown, budget.reserved) == (Decimal("0.17"), Decimal("0.12"), Decimal(0))
    budget.reserve(build_estimate("0.01")).keep(imgkit.OutcomeUnknownError("cut"), None)
    budget.add_spending("0.80")
    assert budget.left == Decimal("0.02")
    with pytest.raises(imgkit.BudgetExceededError):
        budget.reserve(build_estimate(None))
    for wrong in ("nan", 0, -1, "much", True):
        with pytest.raises(imgkit.ConfigurationError, match="price_per_image must be above 0"):
            Budget(1, price_per_image=wrong)


def test_unknown_prices(place: Path | None) -> None:
    """Refuses unknown prices unless allowed; then counts their real cost without a bound."""
    for estimate in (build_estimate(None), build_estimate("0.1", "EUR")):
        with pytest.raises(imgkit.ConfigurationError, match=r"allow_unknown=True"):
            Budget(1, place).reserve(estimate)
    budget = Budget(1, place, allow_unknown=True)
    budget.reserve(build_estimate(None)).settle(build_response("0.25"))
    assert list_amounts(budget) == (Decimal("0.25"), 0, 0, 0)
    budget.reserve(build_estimate(None)).settle(build_response(None))
    budget.reserve(build_estimate(None)).keep(imgkit.OutcomeUnknownError("cut"), None)
    budget.reserve(build_estimate(None)).settle(None)
    assert list_amounts(budget) == (Decimal("0.25"), 0, 0, 2)
    assert "2 calls without a price" in repr(budget)


@pytest.mark.parametrize("usd", [0, -1, "nan", "inf", "five", True, None, [5], 10**10, ""])
def test_bad_limits(usd: Any) -> None:
    """Refuses limits that are no amount."""
    with pytest.raises(imgkit.ConfigurationError, match="usd must be"):
        Budget(usd)


@pytest.mark.parametrize("folder", ["", 5, b"x"])
def test_bad_folders(folder: Any) -> None:
    """Refuses folders that are no path."""
    with pytest.raises(imgkit.ConfigurationError, match="folder must be"):
        Budget(1, folder)


def test_bad_files(tmp_path: Path) -> None:
    """Raises an error with the path of a file that is no budget."""
    (tmp_path / FILE).write_bytes(b"not a database at all" * 99)
    with pytest.raises(imgkit.ConfigurationError, match=r"budget in .*budget.sqlite"):
        Budget(1, tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(imgkit.ConfigurationError, match="Cannot read or write"):
        Budget(1, tmp_path / "file" / "below")


@pytest.mark.parametrize("content", [b"no database" * 100, b""])
def test_a_failure_leaves_no_open_file(tmp_path: Path, content: bytes) -> None:
    """Closes a broken file at once, even while the errors about it are alive."""
    budget = Budget(1, tmp_path)
    (tmp_path / FILE).write_bytes(content)
    before = len(os.listdir("/dev/fd"))
    errors = []
    for _ in range(3):
        with pytest.raises(imgkit.ConfigurationError) as caught:
            budget.reserve(build_estimate("0.5"))
        errors.append(caught)
    assert len(os.listdir("/dev/fd")) <= before  # others may close theirs meanwhile


def test_the_folder_is_private(tmp_path: Path) -> None:
    """Creates the folder of a budget for its user only."""
    assert Budget(1, tmp_path / "state" / "budget").spent == 0
    assert stat.S_IMODE((tmp_path / "state" / "budget").stat().st_mode) == 0o700


def test_the_memory_of_a_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    """A forked child counts the reservations of its parent as reserved."""
    budget = Budget(1)
    budget.reserve(build_estimate("0.25"))
    parent = os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: parent + 1)
    budget.reserve(build_estimate("0.5"))
    assert list_amounts(budget) == (0, Decimal("0.75"), 0, 0)


def test_amounts_are_exact_and_rounded_up(place: Path | None) -> None:
    """Adds tiny costs without loss, and rounds up below a billionth."""
    budget = Budget(0.1, place)
    for _ in range(10):
        budget.reserve(build_estimate("0.01")).settle(build_response("0.0000402"))
    assert budget.spent == Decimal("0.000402")
    budget.reserve(build_estimate("0.01")).settle(build_response("0.0000000001"))
    assert budget.spent == Decimal("0.000402001")


def test_absurd_costs(place: Path | None) -> None:
    """An absurd cost uses up the budget and breaks nothing."""
    budget = Budget(1, place)
    budget.reserve(build_estimate("0.5")).settle(build_response("1e40"))
    assert budget.left < 0
    with pytest.raises(imgkit.BudgetExceededError):
        budget.reserve(build_estimate("1e40"))


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["reserve", "settle", "lose", "keep", "refuse", "close"]),
        st.integers(0, 40), st.integers(0, 100),
    ),
    max_size=40,
)  # fmt: skip


@given(STEPS)
def test_never_above_the_limit(steps: list[tuple[str, int, int]]) -> None:
    """Stays below the limit and adds up in every order of reservations and ends."""
    budget, limit = Budget(1), 100
    running: list[tuple[Any, int]] = []
    spent = 0
    for action, number, percent in steps:
        if action == "reserve":
            fits = spent + sum(amount for _, amount in running) + number <= limit
            try:
                running.append((budget.reserve(build_estimate(f"0.{number:02}")), number))
                assert fits
            except imgkit.BudgetExceededError:
                assert not fits
        elif running:
            reservation, amount = running.pop(number % len(running))
            cost = amount * percent // 100
            if action == "settle":
                reservation.settle(build_response(str(Decimal(cost) / 100)))
                spent += cost
            elif action in ("lose", "keep"):
                reservation.settle(build_response(None)) if action == "lose" else reservation.keep(
                    OSError(), None
                )
                spent += amount
            else:
                reservation.settle(None) if action == "refuse" else reservation.close()
        assert budget.spent * 100 == spent
        assert budget.reserved * 100 == sum(amount for _, amount in running)
        assert budget.spent + budget.reserved <= budget.limit
        assert budget.left == budget.limit - budget.spent - budget.reserved


# In services


def test_a_call_is_reserved_and_settled(flavor: Any, http_backend: str, place: Path | None) -> None:
    """Counts the cost of the reply's usage and frees the rest of the reservation."""
    budget = Budget(5, place)
    with WireServer(reply(200, PAID)) as server:
        made = create_image(flavor, server, http_backend, budget)
    assert made.cost.amount == COST
    assert list_amounts(budget) == (COST, 0, 0, 0)


def test_a_full_budget_sends_nothing(flavor: Any, http_backend: str) -> None:
    """Opens no connection for a call that does not fit."""
    budget = Budget("0.06")
    with WireServer(reply(200, PAID)) as server:
        create_image(flavor, server, http_backend, budget)
        with pytest.raises(imgkit.BudgetExceededError, match="exhausted"):
            create_image(flavor, server, http_backend, budget)
        assert server.accepted == 1
    assert budget.spent == COST


@pytest.mark.parametrize(
    ("script", "lost"),
    [(drop, True), (reply(504, b"<html>"), True), (reply(200, b"{}"), True), (reply(200, b"what"), True),
     (reply(400, {"error": {"message": "no"}}), False), (reply(429, {"error": {"message": "no"}}), False),
     (reply(500, {"error": {"message": "no", "code": "server_error"}}), False)],
    ids=["drop", "504", "empty", "unreadable", "400", "429", "500"],
)  # fmt: skip
def test_how_failures_end(flavor: Any, http_backend: str, script: Any, lost: bool) -> None:
    """Counts failures that may be billed in full, and refused calls not at all."""
    budget = Budget(5)
    with WireServer(script) as server, pytest.raises(imgkit.ImgkitError):
        create_image(flavor, server, http_backend, budget)
    assert (budget.spent > COST) is lost
    assert budget.unknown == budget.spent
    assert budget.reserved == 0


def test_an_unsent_call_costs_nothing(flavor: Any, http_backend: str) -> None:
    """Counts nothing for a call that was not sent."""
    budget = Budget(5)
    with WireServer(drop) as server:
        pass
    with pytest.raises(imgkit.NotSentError):
        create_image(flavor, server, http_backend, budget)
    assert list_amounts(budget) == (0, 0, 0, 0)


def test_retries_are_reserved_one_by_one(flavor: Any, http_backend: str) -> None:
    """Frees the reservation of a refused attempt before the next attempt reserves."""
    slow = reply(429, {"error": {"message": "slow"}}, retry_after="0.01")
    budget = Budget("0.06")
    with WireServer(slow, slow, reply(200, PAID)) as server:
        create_image(flavor, server, http_backend, budget, retry=True)
        assert server.posts == 3
    assert budget.spent == COST


def test_unknown_prices_in_a_service(flavor: Any, http_backend: str) -> None:
    """Refuses unknown prices before sending, or counts them if allowed."""
    with WireServer(reply(200, PAID)) as server:
        with pytest.raises(imgkit.ConfigurationError, match="allow_unknown"):
            create_image(flavor, server, http_backend, Budget(5), UNKNOWN)
        assert server.accepted == 0
        budget = Budget(5, allow_unknown=True)
        create_image(flavor, server, http_backend, budget, UNKNOWN)
    assert list_amounts(budget) == (0, 0, 0, 1)


def test_offline_costs_nothing(flavor: Any) -> None:
    """Counts nothing for offline calls."""
    budget = Budget("0.000001")
    flavor.run(lambda images: images.create_image("a fox", size="64x64"), plugins=[budget])
    assert list_amounts(budget) == (0, 0, 0, 0)


def test_a_cancelled_call_is_lost(http_backend: str) -> None:
    """Counts the reservation of a cancelled task as spent."""
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
    """Concurrent calls of both services send as many requests as the budget allows."""
    budget = Budget("0.3", place)

    async def tasks(server: WireServer) -> int:
        settings: dict[str, Any] = {"provider": official(server.base_url), "api_key": "sk-test"}
        async with imgkit.AsyncImageService("aiohttp", plugins=[budget], **settings) as images:
            calls = (images.create_image(**ASKED, model="gpt-image-2") for _ in range(12))
            return count(await asyncio.gather(*calls, return_exceptions=True))

    def threads(server: WireServer) -> int:
        settings: dict[str, Any] = {"provider": official(server.base_url), "api_key": "sk-test"}

        def create(images: Any) -> Any:
            try:
                return images.create_image(**ASKED, model="gpt-image-2")
            except imgkit.ImgkitError as error:
                return error

        with (
            imgkit.ImageService("requests", plugins=[budget], **settings) as images,
            ThreadPoolExecutor(6) as pool,
        ):
            return count(list(pool.map(create, [images] * 12)))

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
for reservation in made[::2]:
    reservation.close()
"""


def start_reserving(folder: Path, amount: str, times: int) -> subprocess.Popen[str]:
    """Start a process that reserves up to `times` amounts and frees every second after a line."""
    return start_process(
        [sys.executable, "-c", RESERVE, str(folder), amount, str(times)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_two_processes_share_a_folder(tmp_path: Path) -> None:
    """Two processes reserve the whole budget together, and share freed amounts."""
    budget = Budget(1, tmp_path)
    both = [start_reserving(tmp_path, "0.1", 8) for _ in range(2)]
    with contextlib.ExitStack() as stack:
        for process in both:
            stack.enter_context(process)
        counts = [int(process.stdout.readline()) for process in both if process.stdout]
        assert sum(counts) == 10
        assert budget.reserved == 1
        with pytest.raises(imgkit.BudgetExceededError):
            budget.reserve(build_estimate("0.1"))
        for process in both:
            process.communicate("\n")
    # Each process freed half of its reservations and exited without ending the others.
    lost = sum(count - (count + 1) // 2 for count in counts)
    assert list_amounts(budget) == (Decimal(lost) / 10, 0, Decimal(lost) / 10, 0)
    assert list(tmp_path.glob("*.lock")) == []


def test_a_killed_process_loses_its_reservations(tmp_path: Path) -> None:
    """Counts the reservations of a killed process as spent, and says so in the error."""
    with start_reserving(tmp_path, "0.3", 2) as process:
        assert process.stdout
        assert process.stdout.readline() == "2\n"
        budget = Budget(1, tmp_path)
        assert list_amounts(budget) == (0, Decimal("0.6"), 0, 0)
        process.send_signal(signal.SIGKILL)
        process.wait()
    with pytest.raises(imgkit.BudgetExceededError, match="0.60 spent, 0.60 of it by calls of unknown cost"):
        budget.reserve(build_estimate("0.5"))
    assert list_amounts(Budget(1, tmp_path)) == (Decimal("0.6"), 0, Decimal("0.6"), 0)
    budget.reserve(build_estimate("0.4")).settle(build_response("0.4"))
    assert budget.left == 0


def test_a_folder_keeps_the_budget(tmp_path: Path) -> None:
    """Keeps the spent amount in its folder."""
    Budget(1, tmp_path).reserve(build_estimate("0.5")).settle(build_response("0.25"))
    assert Budget(1, tmp_path).spent == Decimal("0.25")
    assert (tmp_path / FILE).stat().st_size < 50_000


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_has_reservations_of_its_own(tmp_path: Path) -> None:
    """A forked child frees no reservation of its parent, and loses its own when it exits."""
    budget = Budget(1, tmp_path)
    kept = budget.reserve(build_estimate("0.25"))

    def reserve() -> bool:
        budget.reserve(build_estimate("0.5"))
        return budget.reserved == Decimal("0.75")

    assert run_in_fork(reserve) == 0
    assert list_amounts(budget) == (Decimal("0.5"), Decimal("0.25"), Decimal("0.5"), 0)
    kept.settle(None)
    assert budget.left == Decimal("0.5")


def test_many_threads_on_one_file(tmp_path: Path) -> None:
    """Eight threads on two budgets of one folder count every cost once."""
    budgets = [Budget(1, tmp_path), Budget(1, tmp_path)]
    start = threading.Barrier(8)

    def work(number: int) -> int:
        start.wait()
        made = 0
        for _ in range(20):
            try:
                budgets[number % 2].reserve(build_estimate("0.02")).settle(build_response("0.01"))
                made += 1
            except imgkit.BudgetExceededError:
                pass
        return made

    with ThreadPoolExecutor(8) as pool:
        made = sum(pool.map(work, range(8)))
    assert budgets[0].spent == Decimal(made) / 100 <= 1
    assert made >= 85  # near the limit, concurrent reservations do not all fit


def test_a_ledger_reserves_the_estimate() -> None:
    """Reserves the service's estimate for the request, partial images included."""
    asked: list[Any] = []

    def estimate(request: Any, partial_images: int = 0) -> Estimate:
        asked.append((request, partial_images))
        return build_estimate("0.5")

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


def test_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """``--max-cost`` exits with 8 before sending; an unknown price needs ``--allow-unknown-price``."""
    clear_environment(monkeypatch, tmp_path)
    (tmp_path / "own.toml").write_text(PRICES)

    def create(*options: str) -> tuple[int, str]:
        code = run(["create", "a fox", *options])
        return code, capsys.readouterr().err

    with WireServer(reply(200, PAID)) as server:
        network = ("--backend", "requests", "--base-url", server.base_url, "--quality", "medium")
        own = ("--model", "own", "--size", "1024x1024", "--models", "own.toml")
        code, problem = create(*network, *own, "--max-cost", "0.01")
        assert code == 8, problem
        assert "imgkit: The budget of 0.01 USD is exhausted" in problem
        code, problem = create(*network, "--model", "other", "--max-cost", "1")
        assert code == 2
        assert "--allow-unknown-price" in problem
        assert "allow_unknown" not in problem
        assert server.accepted == 0
        for options in (
            (*own, "--max-cost", "0.04"),
            ("--model", "other", "--max-cost", "1", "--allow-unknown-price"),
        ):
            code, problem = create(*network, *options)
            assert code == 0, problem
        assert server.posts == 2
    code, problem = create("--max-cost", "nothing")
    assert code == 2
    assert "--max-cost must be above 0" in problem
    code, problem = create("--allow-unknown-price")
    assert code == 2
    assert "--allow-unknown-price requires --max-cost" in problem
