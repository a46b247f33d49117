"""The budget plugin: a ledger that rejects calls which could exceed a limit."""

from __future__ import annotations

import os
from collections.abc import Iterable
from decimal import ROUND_CEILING, Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING

from imgkit.billing.budget_store import BudgetStore, Totals
from imgkit.errors import BudgetExceededError, ConfigurationError
from imgkit.models import Cost, Estimate, Estimator, ImageRequest, ImagesResponse, count_requested_images
from imgkit.plugins.events import Call
from imgkit.plugins.hookspecs import ServiceSettings, hookimpl
from imgkit.wire.messages import Head
from imgkit.wire.plain_values import show_value, to_flag, to_number, to_path, to_text

if TYPE_CHECKING:
    from imgkit.plugins.protocols import Ledger
    from imgkit.plugins.resources import Resource

CURRENCY = "USD"
LARGEST_USD = 1_000_000_000
"""Maximum amount of a call. Sums are kept in billionths, and must not overflow."""


class Budget:
    """Limits the total cost of calls.

    Each attempt first reserves its maximum cost; when it ends, its actual cost is spent. A call without
    enough budget fails before anything is sent. An attempt that may have been billed, but brought no
    response, counts as spent.

    Several services can share a budget, with all their threads and tasks; with a folder, several processes
    can. Calls of the offline backend and cache hits cost nothing.

    Args:
        usd: the limit in US dollars.
        folder: a folder for the account, which outlives the process and which processes share; None keeps
            the account in memory.
        allow_unknown: also make calls of unknown price; `unpriced` counts them, and the limit does not.
        price_per_image: the highest price in US dollars of an image whose price is not known. It is reserved
            for each image of such a call, and spent if the response has no cost.

    Raises:
        ConfigurationError: The limit or the price is invalid, or the folder cannot be used.

    Example:
        >>> from imgkit import ImageService
        >>> budget = Budget(usd=5)
        >>> with ImageService(plugins=[budget]) as service:  # the offline backend costs nothing
        ...     response = service.create_image("a fox", size="64x64")
        >>> budget.spent
        Decimal('0.00')
    """

    def __init__(
        self,
        usd: float | Decimal | str,
        folder: str | os.PathLike[str] | None = None,
        *,
        allow_unknown: bool = False,
        price_per_image: float | Decimal | str | None = None,
    ) -> None:
        self._limit = parse_amount("usd", usd)
        self._price = None if price_per_image is None else parse_amount("price_per_image", price_per_image)
        is_allowed = to_flag(allow_unknown)
        if is_allowed is None:
            raise ConfigurationError(
                f"allow_unknown must be True or False, not {show_value(allow_unknown)}.",
                field="allow_unknown",
            )
        self._allow_unknown = is_allowed
        self._store = BudgetStore(_parse_folder(folder))

    @property
    def limit(self) -> Decimal:
        """The limit in US dollars."""
        return _to_usd(self._limit)

    @property
    def price_per_image(self) -> Decimal | None:
        """The highest price in US dollars of an image whose price is not known, None if there is none."""
        return None if self._price is None else _to_usd(self._price)

    @property
    def spent(self) -> Decimal:
        """The amount in US dollars that was spent or may have been billed."""
        return _to_usd(self._store.totals().spent)

    @property
    def unknown(self) -> Decimal:
        """The part of `spent` in US dollars that comes from calls of unknown final cost."""
        return _to_usd(self._store.totals().unknown)

    @property
    def reserved(self) -> Decimal:
        """The maximum cost in US dollars of the running calls."""
        return _to_usd(self._store.totals().reserved)

    @property
    def left(self) -> Decimal:
        """The unreserved rest in US dollars; below 0 if calls cost more than their estimates."""
        totals = self._store.totals()
        return _to_usd(self._limit - totals.spent - totals.reserved)

    @property
    def unpriced(self) -> int:
        """The number of calls of unknown price."""
        return self._store.totals().unpriced

    @property
    def is_shared(self) -> bool:
        """Whether processes share it through a folder."""
        return self._store.may_block

    @hookimpl
    def imgkit_ledger(self, settings: ServiceSettings) -> BudgetLedger | None:
        """Return the ledger of a service, None if its calls cost nothing."""
        return None if settings.host_class == "offline" else BudgetLedger(self, settings.estimate)

    def can_reserve(self, estimate: Estimate) -> bool:
        """Return whether the budget takes a call of this price while enough is left.

        It takes no call of unknown price without `price_per_image` or `allow_unknown`.

        Args:
            estimate: bounds of the cost.
        """
        return _is_known(estimate) or self._price is not None or self._allow_unknown

    def complete_estimate(self, estimate: Estimate, images: int = 1) -> Estimate:
        """Return the bounds that `reserve` goes by: `price_per_image` is the upper bound of an unknown price.

        Example:
            >>> Budget(5, price_per_image="0.04").complete_estimate(Estimate(), images=2).high
            Decimal('0.08')

        Args:
            estimate: bounds of the cost.
            images: number of images that the attempt asks for.
        """
        price = self.price_per_image
        if _is_known(estimate) or price is None:
            return estimate
        return Estimate(high=price * max(1, images), note=estimate.note)

    def reserve(self, estimate: Estimate, images: int = 1) -> BudgetReservation:
        """Reserve the maximum cost of an attempt.

        Args:
            estimate: bounds of the cost.
            images: number of images that it asks for, for the price of an image.

        Raises:
            BudgetExceededError: The budget has not enough left.
            ConfigurationError: The price is unknown, and `allow_unknown` is False.
        """
        if not self.can_reserve(estimate):
            why = estimate.note or f"its price is in {estimate.currency}"
            raise ConfigurationError(
                f"The cost of this call is unknown ({why}), so the budget cannot limit it. Nothing was sent.",
                hint="Give its prices with models=…, name the highest price of an image with "
                "Budget(price_per_image=…), or allow such calls with Budget(allow_unknown=True).",
                field="allow_unknown",
            )
        estimate = self.complete_estimate(estimate, images)
        known = _is_known(estimate)
        amount = _to_nano(estimate.high) if known and estimate.high is not None else 0
        number = self._store.reserve(amount, self._limit, priced=known)
        if isinstance(number, Totals):
            raise self._to_error(number, amount)
        return BudgetReservation(self._store, number)

    def add_spending(self, usd: float | Decimal | str) -> None:
        """Count an amount as spent that this budget did not see, such as that of an earlier program.

        >>> budget = Budget(usd=5)
        >>> budget.add_spending("1.20")
        >>> budget.left
        Decimal('3.80')

        Args:
            usd: the amount in US dollars.

        Raises:
            ConfigurationError: The amount is invalid, or the folder cannot be used.
        """
        self._store.add_spending(parse_amount("usd", usd))

    def find_deferred(self, job_id: str) -> BudgetReservation | None:
        """Return the reservation that a job carries, None for none.

        Args:
            job_id: the `Job.id`.
        """
        number = self._store.find_deferred(job_id)
        return None if number is None else BudgetReservation(self._store, number)

    def _to_error(self, totals: Totals, amount: int) -> BudgetExceededError:
        unknown = f", {_format_usd(totals.unknown)} of it by calls of unknown cost" if totals.unknown else ""
        return BudgetExceededError(
            f"The budget of {_format_usd(self._limit)} USD is exhausted: {_format_usd(totals.spent)} spent"
            f"{unknown}, {_format_usd(totals.reserved)} reserved by running calls, and this call may cost "
            f"{_format_usd(amount)}. Nothing was sent. Request fewer or smaller images, or raise the budget.",
            limit=_to_usd(self._limit),
            spent=_to_usd(totals.spent),
            reserved=_to_usd(totals.reserved),
            wanted=_to_usd(amount),
        )

    def __repr__(self) -> str:
        totals = self._store.totals()
        more = f", {_format_usd(totals.unknown)} of it unknown" if totals.unknown else ""
        more += f", {totals.unpriced} calls without a price" if totals.unpriced else ""
        return (
            f"Budget({_format_usd(self._limit)} USD: {_format_usd(totals.spent)} spent, "
            f"{_format_usd(totals.reserved)} reserved{more})"
        )


class BudgetLedger:
    """The `imgkit.plugins.Ledger` of a service.

    Args:
        budget: the budget that its calls share.
        estimate: returns the estimated cost of a request.

    Attributes:
        budget: the budget.
    """

    def __init__(self, budget: Budget, estimate: Estimator) -> None:
        self.budget = budget
        self._estimate = estimate

    @property
    def reserve_may_block(self) -> bool:
        """Whether `reserve` waits for a disk: the budget has a folder."""
        return self.budget.is_shared

    def reserve(self, request: ImageRequest, call: Call, attempt: int) -> BudgetReservation:
        """Reserve the maximum cost of an attempt, as `Budget.reserve` does."""
        estimate = self._estimate(request, call.partial_images or 0)
        return self.budget.reserve(estimate, count_requested_images(request))

    def find_deferred(self, job_id: str) -> BudgetReservation | None:
        """Return the reservation that a job carries, None for none."""
        return self.budget.find_deferred(job_id)


def find_budget(ledgers: Iterable[Resource[Ledger]]) -> Budget | None:
    """Return the budget among the ledgers of a service, None for none."""
    things = (ledger.thing for ledger in ledgers)
    return next((thing.budget for thing in things if isinstance(thing, BudgetLedger)), None)


class BudgetReservation:
    """An `imgkit.plugins.Reservation` of an amount."""

    spools = False

    def __init__(self, store: BudgetStore, number: int) -> None:
        self._store = store
        self._number: int | None = number

    @property
    def settle_may_block(self) -> bool:
        """Whether `settle` waits for a disk: the budget has a folder."""
        return self._store.may_block

    def begin(self, head: Head) -> None:
        """Do nothing: only the end of the attempt counts."""

    def write(self, part: str, data: bytes) -> None:
        """Do nothing: only the end of the attempt counts."""

    def complete(self) -> None:
        """Do nothing: only the end of the attempt counts."""

    def defer(self, job_id: str) -> None:
        """Let the reservation outlive this process with a job."""
        if self._number is not None:
            self._store.defer(self._number, job_id)

    def settle(self, response: ImagesResponse | None) -> None:
        """Spend the cost of the response, or the reserved amount if it is unknown; nothing for None."""
        self._finish(0 if response is None else _parse_cost(response.cost))

    def keep(self, error: BaseException, response: ImagesResponse | None) -> str | None:
        """Spend the reserved amount, or the cost of the response if it is known."""
        self._finish(None if response is None else _parse_cost(response.cost))
        return None

    def close(self) -> None:
        """Release the reserved amount: nothing was sent."""
        self._finish(0)

    def _finish(self, cost: int | None) -> None:
        number, self._number = self._number, None
        if number is not None:
            self._store.end(number, cost)


def _is_known(estimate: Estimate) -> bool:
    return estimate.high is not None and estimate.currency == CURRENCY


def _parse_cost(cost: Cost) -> int | None:
    return None if cost.amount is None or cost.currency != CURRENCY else _to_nano(cost.amount)


def _to_nano(amount: Decimal) -> int:
    """Return an amount of dollars in billionths, rounded up to stay within the limit."""
    return int((min(amount, Decimal(LARGEST_USD)) * 1_000_000_000).to_integral_value(ROUND_CEILING))


def _to_usd(nano: int) -> Decimal:
    return Decimal(_format_usd(nano))


def _format_usd(nano: int) -> str:
    """Return an amount in billionths as dollars, with two digits or more."""
    whole, _, rest = f"{Decimal(nano).scaleb(-9):f}".partition(".")
    return f"{whole}.{rest.rstrip('0').ljust(2, '0')}"


def parse_amount(name: str, usd: object) -> int:
    """Return an amount of US dollars in billionths.

    Args:
        name: name of the argument, for the message.
        usd: the amount.

    Raises:
        ConfigurationError: it is no number above 0, or too large.
    """
    text = to_text(usd)
    number = to_number(usd) if text is None else None
    try:
        if type(usd) is Decimal:
            amount = usd
        elif type(number) is int:
            amount = Decimal(number)
        elif text is not None or number is not None:
            amount = Decimal(str(number) if text is None else text)
        else:
            raise InvalidOperation
        if not (amount.is_finite() and 0 < amount <= LARGEST_USD):
            raise InvalidOperation
    except InvalidOperation:
        raise ConfigurationError(
            f"{name} must be above 0 and at most {LARGEST_USD}, not {show_value(usd)}.", field=name
        ) from None
    return int(amount * 1_000_000_000)


def _parse_folder(folder: object) -> Path | None:
    if folder is None:
        return None
    try:
        text = to_path(folder)
        os.fsencode(text)
    except ValueError:
        text = ""
    if not text or "\0" in text:
        raise ConfigurationError("folder must be the path of a folder, as str or os.PathLike, or None.")
    try:
        return Path(text).expanduser().absolute()
    except (RuntimeError, OSError) as error:
        raise ConfigurationError(f"Cannot find folder {text[:200]!r}: {error}.") from None
