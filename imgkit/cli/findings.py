"""What `imgkit doctor` finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        verdict: "wrong" makes the command fail; a "note" is for the reader to judge.
        text: what was found, and how to mend it.
    """

    verdict: Literal["ok", "note", "wrong"]
    text: str
