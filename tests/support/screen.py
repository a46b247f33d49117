"""A small model of a terminal: the lines that a person sees at the end, and the status lines before."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import struct
import sys
import termios
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

_PIECE = re.compile(r"\x1b\[(\d*)([A-Za-z])|([^\x1b])", re.DOTALL)


class Screen:
    """The lines of a terminal of some width, without a lower end.

    Attributes:
        lines: the visible lines.
        erased: the lines that were cleared in place, in order.
    """

    def __init__(self, columns: int) -> None:
        self._columns = columns
        self.lines = [""]
        self.erased: list[str] = []
        self._row = self._column = 0

    def feed(self, text: str) -> None:
        """Process output of a program."""
        position = 0
        for piece in _PIECE.finditer(text):
            assert piece.start() == position, f"unknown sequence {text[position : position + 20]!r}"
            position = piece.end()
            number, command, letter = piece.groups()
            if letter is not None:
                self._put(letter)
            elif command == "K":
                assert number == "2"
                self.erased.append(self.lines[self._row])
                self.lines[self._row] = ""
            else:
                assert command == "m", f"unknown sequence {piece[0]!r}"
        assert position == len(text)

    def _put(self, letter: str) -> None:
        if letter == "\r":
            self._column = 0
            return
        if letter == "\n" or self._column == self._columns:
            self._row += 1
            self.lines += [""] * (self._row + 1 - len(self.lines))
        if letter == "\n":
            return
        self._column %= self._columns
        line = self.lines[self._row].ljust(self._column)
        self.lines[self._row] = line[: self._column] + letter + line[self._column + 1 :]
        self._column += 1


@contextmanager
def open_terminal(columns: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], str]]:
    """Put standard output and error on a terminal; yield a function that ends it and returns its output."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    output: list[bytes] = []

    def read() -> None:
        try:
            while block := os.read(ours, 65536):
                output.append(block)
        except OSError:
            return  # Linux says EIO at the end

    reader = threading.Thread(target=read)
    reader.start()
    stream = io.TextIOWrapper(os.fdopen(theirs, "wb", buffering=0), "utf-8", write_through=True)

    def end() -> str:
        stream.close()
        reader.join(20)
        return b"".join(output).decode()

    try:
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", stream)
            patch.setattr(sys, "stderr", stream)
            yield end
    finally:
        end()
        os.close(ours)
