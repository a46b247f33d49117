"""Numeric options: what they say about a text that is no number."""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest

from imgkit.cli.app import build_cli
from imgkit.cli.run import run


def list_options(command: click.Command, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the words of the command line before the value of each numeric option."""
    for param in command.params:
        if isinstance(param, click.Option) and isinstance(
            param.type, click.types.IntParamType | click.types.FloatParamType
        ):
            yield (*words, param.opts[0])
    for name, inner in getattr(command, "commands", {}).items():
        yield from list_options(inner, (*words, name))


def test_every_number_has_the_same_words(capsys: pytest.CaptureFixture[str]) -> None:
    """Says that a text is no number or no integer; ranges and floats are words of programmers."""
    listed = list(list_options(build_cli()))
    assert ("serve", "--port") in listed
    assert ("bulk", "run", "--rpm") in listed
    for words in listed:
        assert run([*words, "abc"]) == 2
        shown = " ".join(capsys.readouterr().err.split())
        assert f"Invalid value for '{words[-1]}'" in shown, words
        assert "'abc' is not a valid integer." in shown or "'abc' is not a valid number." in shown, shown


def test_refuses_numbers_that_are_none(capsys: pytest.CaptureFixture[str]) -> None:
    """Takes no "nan" for a limit."""
    for words in (("serve", "--rpm"), ("serve", "--stop-after"), ("create", "--timeout")):
        assert run([*words, "nan"]) == 2
        assert "'nan' is not a number." in capsys.readouterr().err
