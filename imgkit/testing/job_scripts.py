"""The scripts of `imgkit.testing.ScriptedJobs`, and their clock."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from imgkit.errors import ConfigurationError
from imgkit.wire.plain_values import show_value, to_number

JobEnd = Literal["images", "refused", "failed", "expired"]
Submit = Literal["accepted", "reply_lost", "lost"]

_ENDS: tuple[JobEnd, ...] = ("images", "refused", "failed", "expired")
_SUBMITS: tuple[Submit, ...] = ("accepted", "reply_lost", "lost")


class JobNews(NamedTuple):
    """News that a scripted job tells while it is at work.

    Attributes:
        at_s: seconds after the submit.
        note: a word about the progress, such as "2 jobs ahead".
        progress: fraction that is done, from 0 to 1, None if unknown.
        preview: whether an unfinished image comes with it.
    """

    at_s: float
    note: str = ""
    progress: float | None = None
    preview: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class JobScript:
    """The course of a scripted job.

    Attributes:
        after_s: seconds from the submit to the end, by the clock of the script.
        news: the news before the end.
        end: "images"; "refused" by the safety system; "failed"; or "expired", when the provider made the
            images and has deleted them.
        billed: whether a job that was refused or has failed costs.
        expires_after_s: seconds from the end to the deletion of the images, None for never.
        submit: "accepted"; "reply_lost" if the job runs, but the reply to its submit is lost; "lost" if
            the request itself is.

    Raises:
        ConfigurationError: a value is impossible; the message names it.

    Example:
        >>> JobScript(after_s=90, news=[JobNews(30, "painting", 0.5)]).end
        'images'
    """

    after_s: float = 0.0
    news: Sequence[JobNews] = ()
    end: JobEnd = "images"
    billed: bool = False
    expires_after_s: float | None = None
    submit: Submit = "accepted"

    def __post_init__(self) -> None:
        _check_seconds("after_s", self.after_s)
        if self.expires_after_s is not None:
            _check_seconds("expires_after_s", self.expires_after_s)
        if self.end not in _ENDS:
            raise script_error("end", f"must be one of {', '.join(_ENDS)}, not {show_value(self.end)}")
        if self.submit not in _SUBMITS:
            raise script_error(
                "submit", f"must be one of {', '.join(_SUBMITS)}, not {show_value(self.submit)}"
            )
        if not isinstance(self.news, list | tuple):
            raise script_error("news", f"must be a list of JobNews, not {show_value(self.news)}")
        for each in self.news:
            if not isinstance(each, JobNews):
                raise script_error("news", f"must be a list of JobNews, not of {show_value(each)}")
            _check_seconds("news.at_s", each.at_s)
            fraction = to_number(each.progress)
            if each.progress is not None and (fraction is None or not 0 <= fraction <= 1):
                raise script_error("news.progress", f"must be 0 to 1, not {show_value(each.progress)}")


class ScriptClock:
    """The clock of some scripted jobs. It stands still until a test moves it. Thread-safe.

    Example:
        >>> clock = ScriptClock()
        >>> clock.advance(60)
        >>> clock.now_s
        60.0
    """

    def __init__(self) -> None:
        self._now_s = 0.0
        self._lock = threading.Lock()

    @property
    def now_s(self) -> float:
        """Seconds since the clock was made."""
        return self._now_s

    def advance(self, seconds: float) -> None:
        """Move the clock forward.

        Raises:
            ConfigurationError: the number is negative, or no number.
        """
        step_s = _check_seconds("seconds", seconds)
        with self._lock:
            self._now_s += step_s


def _check_seconds(name: str, value: object) -> float:
    number = to_number(value)
    if number is None or not 0 <= number < math.inf:
        raise script_error(name, f"must be seconds from 0 on, not {show_value(value)}")
    return float(number)


def script_error(name: str, problem: str) -> ConfigurationError:
    """Return the error of a value that a script cannot have."""
    return ConfigurationError(f"ScriptedJobs: {name} {problem}.", field=name)
