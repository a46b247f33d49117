"""What calls cost: amounts with their currency and the date of the prices, or unknown; never a false 0."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from imgkit.models import ImageRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a call has cost, as usage and dated prices tell.

    Attributes:
        amount: in `currency`; None where it is not known.
        currency: such as "USD".
        as_of: date of the prices, None where there are none.
        note: how it was found, or why it is not known.
    """

    amount: Decimal | None = None
    currency: str = "USD"
    as_of: date | None = None
    note: str = ""

    @property
    def known(self) -> bool:
        """Whether there is an amount."""
        return self.amount is not None

    def __str__(self) -> str:
        if self.amount is None:
            return f"unknown ({self.note})" if self.note else "unknown"
        dated = f" (prices of {self.as_of})" if self.as_of else f" ({self.note})" if self.note else ""
        return f"{self.amount:.4f} {self.currency}{dated}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What a call may cost, before it is sent.

    Attributes:
        low, high: bounds of the amount in `currency`; both None where they are not known.
        currency: such as "USD".
        as_of: date of the prices, None where there are none.
        note: what the bounds rest on, or why there are none.
    """

    low: Decimal | None = None
    high: Decimal | None = None
    currency: str = "USD"
    as_of: date | None = None
    note: str = ""

    @property
    def known(self) -> bool:
        """Whether there are bounds."""
        return self.high is not None

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"unknown ({self.note})" if self.note else "unknown"
        bounds = f"{self.low:.4f}" if self.low == self.high else f"{self.low:.4f} to {self.high:.4f}"
        dated = f" (prices of {self.as_of})" if self.as_of else ""
        return f"{bounds} {self.currency}{dated}"


class Estimator(Protocol):
    """Returns what a request may cost, all its pictures and the partial ones of a stream together."""

    def __call__(self, request: ImageRequest, partial_images: int = 0) -> Estimate:
        """Return bounds, or that they are not known."""


def unknown_estimate(request: ImageRequest, partial_images: int = 0) -> Estimate:
    """Return that nothing is known of what a request costs."""
    return Estimate(note="no prices are known here")
