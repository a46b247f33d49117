"""A budget as a plugin: a ledger that stops before more is spent than was meant to be."""

from __future__ import annotations

import os
from decimal import ROUND_CEILING, Decimal, InvalidOperation
from pathlib import Path

from imgkit.billing.budget_store import BudgetStore, Totals
from imgkit.errors import BudgetExceededError, ConfigurationError
from imgkit.models import Cost, Estimate, Estimator, ImageRequest, ImagesResponse
from imgkit.plugins.events import Call
from imgkit.plugins.hookspecs import ServiceSettings, hookimpl
from imgkit.wire.messages import Head

CURRENCY = "USD"
LARGEST_USD = 1_000_000_000
"""The most that is written down for one call, so that the sums, in billionths, have room."""


class Budget:
    """Bounds what calls may cost together: ``plugins=[Budget(usd=5)]``.

    Before each sending the most that it may cost is reserved; when it has ended, what it has cost is spent.
    A call that does not fit any more is refused before anything is sent. What may have been billed, although
    no answer came, counts as spent.

    One budget may be given to several services, and is shared by their threads and tasks; with a folder, by
    all processes that name it. Calls of the offline backend and answers from a cache cost nothing.

    Args:
        usd: the limit in US dollars.
        folder: where the account is kept, so that it outlives the process and others share it; in memory if
            None.
        allow_unknown: make calls whose price is not known, too. They are counted (`unpriced`), not bounded.

    Raises:
        ConfigurationError: no such limit, or a folder that cannot be used.
    """

    def __init__(
        self,
        usd: float | Decimal | str,
        folder: str | os.PathLike[str] | None = None,
        *,
        allow_unknown: bool = False,
    ) -> None:
        self._limit = _limit(usd)
        self._allow_unknown = bool(allow_unknown)
        self._book = BudgetStore(_folder(folder))

    @property
    def limit(self) -> Decimal:
        """The limit, in USD as all amounts here."""
        return _usd(self._limit)

    @property
    def spent(self) -> Decimal:
        """What was spent, or may have been."""
        return _usd(self._book.totals().spent)

    @property
    def unknown(self) -> Decimal:
        """The part of `spent` that was reserved by calls whose real cost is not known."""
        return _usd(self._book.totals().unknown)

    @property
    def reserved(self) -> Decimal:
        """What the calls that run now may cost."""
        return _usd(self._book.totals().reserved)

    @property
    def left(self) -> Decimal:
        """What can still be reserved; below 0 if calls have cost more than was foreseen."""
        totals = self._book.totals()
        return _usd(self._limit - totals.spent - totals.reserved)

    @property
    def unpriced(self) -> int:
        """How many calls were made whose price is not known."""
        return self._book.totals().unpriced

    @hookimpl
    def imgkit_ledger(self, settings: ServiceSettings) -> BudgetLedger | None:
        """Return the ledger of a service, None for one whose calls cost nothing."""
        return None if settings.host_class == "offline" else BudgetLedger(self, settings.estimate)

    def reserve(self, estimate: Estimate) -> BudgetReservation:
        """Reserve what a call may cost.

        Args:
            estimate: its bounds.

        Raises:
            BudgetExceededError: there is no room for it.
            ConfigurationError: its price is not known, and such calls are not allowed.
        """
        known = estimate.high is not None and estimate.currency == CURRENCY
        if not known and not self._allow_unknown:
            why = estimate.note or f"it is in {estimate.currency}"
            raise ConfigurationError(
                f"what this call may cost is not known ({why}), so the budget cannot bound it and nothing "
                "was sent: tell its prices with models=…, or allow such calls with Budget(allow_unknown=True)"
            )
        wanted = _nano(estimate.high) if known and estimate.high is not None else 0
        made = self._book.reserve(wanted, self._limit, priced=known)
        if isinstance(made, Totals):
            raise self._exceeded(made, wanted)
        return BudgetReservation(self._book, made)

    def _exceeded(self, totals: Totals, wanted: int) -> BudgetExceededError:
        lost = (
            f", of which {_shown(totals.unknown)} by calls whose cost is not known" if totals.unknown else ""
        )
        return BudgetExceededError(
            f"the budget of {_shown(self._limit)} USD has no room: {_shown(totals.spent)} spent{lost}, "
            f"{_shown(totals.reserved)} reserved by calls that run, and this one may cost {_shown(wanted)}. "
            "Nothing was sent. Ask for less, or raise the budget.",
            limit=_usd(self._limit),
            spent=_usd(totals.spent),
            reserved=_usd(totals.reserved),
            wanted=_usd(wanted),
        )

    def __repr__(self) -> str:
        totals = self._book.totals()
        more = f", {_shown(totals.unknown)} of it unknown" if totals.unknown else ""
        more += f", {totals.unpriced} calls without a price" if totals.unpriced else ""
        return (
            f"Budget({_shown(self._limit)} USD: {_shown(totals.spent)} spent, {_shown(totals.reserved)} "
            f"reserved{more})"
        )


class BudgetLedger:
    """A `imgkit.plugins.protocols.Ledger` of one service.

    Args:
        budget: that its calls share.
        estimate: returns what a request may cost.
    """

    def __init__(self, budget: Budget, estimate: Estimator) -> None:
        self._budget = budget
        self._estimate = estimate

    def reserve(self, request: ImageRequest, call: Call, attempt: int) -> BudgetReservation:
        """Reserve what one sending may cost; see `Budget.reserve`."""
        return self._budget.reserve(self._estimate(request, call.partial_images or 0))


class BudgetReservation:
    """A `imgkit.plugins.protocols.Reservation` of an amount."""

    spools = False

    def __init__(self, book: BudgetStore, number: int) -> None:
        self._book = book
        self._number: int | None = number

    def begin(self, head: Head) -> None:
        """Nothing to do before the end."""

    def write(self, part: str, data: bytes) -> None:
        """Nothing to do before the end."""

    def complete(self) -> None:
        """Nothing to do before the end."""

    def settle(self, response: ImagesResponse | None) -> None:
        """Spend what the pictures have cost, all that was reserved if that is not known; nothing for None."""
        self._end(0 if response is None else _cost(response.cost))

    def keep(self, error: BaseException, response: ImagesResponse | None) -> str | None:
        """Spend what was reserved, or the cost where the reply tells it."""
        self._end(None if response is None else _cost(response.cost))
        return None

    def close(self) -> None:
        """Nothing was sent, so nothing is spent."""
        self._end(0)

    def _end(self, cost: int | None) -> None:
        number, self._number = self._number, None
        if number is not None:
            self._book.end(number, cost)


def _cost(cost: Cost) -> int | None:
    return None if cost.amount is None or cost.currency != CURRENCY else _nano(cost.amount)


def _nano(amount: Decimal) -> int:
    """Return an amount of dollars in whole billionths, rounded up: a budget errs on the safe side."""
    return int((min(amount, Decimal(LARGEST_USD)) * 1_000_000_000).to_integral_value(ROUND_CEILING))


def _usd(nano: int) -> Decimal:
    return Decimal(_shown(nano))


def _shown(nano: int) -> str:
    """Return an amount with cents, and with as many more digits as it has."""
    whole, _, rest = f"{Decimal(nano).scaleb(-9):f}".partition(".")
    return f"{whole}.{rest.rstrip('0').ljust(2, '0')}"


def _limit(usd: object) -> int:
    try:
        if isinstance(usd, bool) or not isinstance(usd, int | float | Decimal | str):
            raise InvalidOperation
        amount = Decimal(str(usd))
        if not (amount.is_finite() and 0 < amount <= LARGEST_USD):
            raise InvalidOperation
    except InvalidOperation:
        raise ConfigurationError(
            f"usd must be an amount above 0 and up to {LARGEST_USD}, not {str(usd)[:40]!r}"
        ) from None
    return int(amount * 1_000_000_000)


def _folder(folder: object) -> Path | None:
    if folder is None:
        return None
    if (
        not isinstance(folder, str | os.PathLike)
        or not isinstance(text := os.fspath(folder), str)
        or not text
    ):
        raise ConfigurationError("folder must be the path of a folder, as str or os.PathLike, or None")
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError as error:
        raise ConfigurationError(f"folder {text[:200]!r} cannot be found: {error}") from None
