"""The money of a run: its budget, its estimate before the first request, and the question about it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

import click

from imgkit.bulk.bulk_run import BulkRun
from imgkit.bulk.manifest import BulkRow
from imgkit.cli import console
from imgkit.default_plugins.budget import CURRENCY, Budget, parse_amount
from imgkit.errors import ConfigurationError
from imgkit.models import Estimate

BUDGET_FOLDER = "budget"
"""The account of a run, in its folder."""

_MOST_ESTIMATES = 10_000
"""Estimates that are kept in memory: equal requests with prompts of equal length cost the same."""


class RunPrice(NamedTuple):
    """The estimated cost of the requests of a run that wait.

    Attributes:
        requests: number of requests.
        high: most that they may cost, in dollars, without those of unknown price.
        most: most that any of them may cost, in dollars.
        unknown: number of requests of unknown price.
        note: why a price is unknown.
        sent_again: number of requests of unknown outcome, which are sent again.
        again: the part of `high` for these, None if the price of any is not known.
    """

    requests: int = 0
    high: Decimal = Decimal(0)
    most: Decimal = Decimal(0)
    unknown: int = 0
    note: str = ""
    sent_again: int = 0
    again: Decimal | None = Decimal(0)


class Pricer:
    """Estimates the cost of rows. Memory stays flat.

    Args:
        estimate: returns the bounds of a row's cost at its provider.
        price_per_image: price of an image whose price is not known, None for none.
    """

    def __init__(self, estimate: Callable[[BulkRow], Estimate], price_per_image: str | None) -> None:
        self._estimate = estimate
        self._estimates: dict[str, Estimate] = {}
        self._price: Decimal | None = None
        if price_per_image is not None:
            parse_amount("price_per_image", price_per_image)
            self._price = Decimal(price_per_image)

    def estimate_row(self, row: BulkRow) -> tuple[Decimal | None, str]:
        """Return the most that a row may cost, None if its price is not known, and why."""
        values = {name: value for name, value in row.request.items() if name != "prompt"}
        length = len(str(row.request.get("prompt", "")).encode("utf-8", "surrogatepass"))
        key = f"{length} {json.dumps(values, sort_keys=True)}"
        estimate = self._estimates.get(key)
        if estimate is None:
            if len(self._estimates) >= _MOST_ESTIMATES:
                self._estimates.clear()
            estimate = self._estimates[key] = self._estimate(row)
        if estimate.high is not None and estimate.currency == CURRENCY:
            return estimate.high, ""
        if self._price is None:
            return None, estimate.note or f"its price is in {estimate.currency}"
        in_body = (row.request.get("extra_body") or {}).get("n")
        return self._price * (in_body if type(in_body) is int else row.request.get("n") or 1), ""

    def estimate_run(self, run: BulkRun) -> RunPrice:
        """Return the estimated cost of all requests that wait."""
        count = unknown = sent_again = after = 0
        high = most = Decimal(0)
        again: Decimal | None = Decimal(0)
        note = ""
        while rows := run.manifest.list_given(after):
            after = rows[-1].number
            for row in rows:
                count += 1
                is_again = bool(row.info.get("again"))
                sent_again += is_again
                price, problem = self.estimate_row(row)
                if is_again:
                    again = None if price is None or again is None else again + price
                if price is None:
                    unknown, note = unknown + 1, problem
                    continue
                high, most = high + price, max(most, price)
        return RunPrice(count, high, most, unknown, note, sent_again, again)


def open_budget(max_cost_usd: str | None, price_per_image: str | None, folder: Path) -> Budget | None:
    """Return the budget of a run, None without a limit. Its account is in the run folder."""
    if max_cost_usd is None:
        return None
    return Budget(max_cost_usd, folder / BUDGET_FOLDER, price_per_image=price_per_image)


def count_earlier_spending(run: BulkRun, budget: Budget, pricer: Pricer) -> None:
    """Count what earlier processes of the run have spent without this budget, by the manifest."""
    cost = run.manifest.sum_costs()
    for row in run.manifest.list_without_cost():
        cost += pricer.estimate_row(row)[0] or 0
    missing = cost - budget.spent - budget.reserved
    if missing > 0:
        budget.add_spending(missing)


def confirm_cost(price: RunPrice, budget: Budget | None, confirm_above: Decimal, *, yes: bool) -> None:
    """Show the estimated cost of a run; ask on a terminal if it is high.

    Raises:
        ConfigurationError: the limit cannot hold, or the answer is no; nothing was sent.
    """
    if not price.requests:
        return
    if price.unknown and budget is not None:
        raise ConfigurationError(
            f"The price of {price.unknown:,} of {price.requests:,} requests is not known ({price.note}), so "
            "--max-cost cannot limit the run. Nothing was sent.",
            hint="Name the highest price of an image with --price-per-image USD, or give prices with "
            "--models FILE.",
            field="price_per_image",
        )
    console.print_message(f"imgkit: {_describe_price(price, budget)}")
    if price.sent_again:
        most_again = "" if price.again is None else f", for up to {price.again:.2f} USD"
        console.print_message(
            f"imgkit: Sent again at the risk of paying twice: {price.sent_again:,} of them{most_again}."
        )
    most = price.high if budget is None else min(price.high, budget.left)
    is_high = most > confirm_above or (price.unknown > 0 and confirm_above.is_finite())
    if not is_high or yes or not console.is_terminal(sys.stderr):  # a script is not asked
        return
    if not console.is_terminal(sys.stdin):
        raise ConfigurationError(
            "Standard input is not a terminal, so imgkit cannot ask about the cost. Nothing was sent.",
            hint="Pass --yes, or a higher --confirm-above.",
        )
    if not click.confirm("Send them?", err=True):
        raise ConfigurationError("You answered no. Nothing was sent.")


def _describe_price(price: RunPrice, budget: Budget | None) -> str:
    noun = "request" if price.requests == 1 else "requests"
    text = f"{price.requests:,} {noun} to send"
    if price.unknown == price.requests:
        return f"{text}. The price is not known ({price.note})."
    if price.unknown:
        text += f", for up to {price.high:.2f} USD and {price.unknown:,} of unknown price ({price.note})."
    else:
        text += f", for up to {price.high:.2f} USD." if price.high else ", at no cost."
    if budget is not None and price.high > budget.left:
        text += f" --max-cost leaves {budget.left:.2f} USD: the run stops there."
    return text
