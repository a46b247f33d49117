"""Rows from files: CSV, TSV, JSONL and Parquet, read row by row in flat memory."""

from __future__ import annotations

import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import IO, NoReturn, Self

from imgkit.bulk.row_formats import load_parquet, read_json_lines, read_parquet, read_table
from imgkit.bulk.rows import TableRow
from imgkit.errors import InvalidRequestError
from imgkit.files import open_regular_file

FILE_KINDS: Mapping[str, str] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
}
"""Kinds of files by extension."""

SPOOLED_BYTES = 8 * 1024 * 1024
"""Size of a standard input above which it goes to a temporary file."""

_FOREIGN: Mapping[bytes, str] = {
    b"\xff\xfe": "It is UTF-16. Save it as UTF-8.",
    b"\xfe\xff": "It is UTF-16. Save it as UTF-8.",
    b"PK\x03\x04": "It is a ZIP file, such as a spreadsheet. Export it as CSV.",
    b"\x1f\x8b": "It is compressed with gzip. Unpack it.",
    b"SQLite format 3\0": "It is a database, and no table. Export it as CSV.",
    b"%PDF-": "It is a PDF, and no table. Export it as CSV.",
    b"\x89PNG": "It is an image, and no table. Put its path into a column 'image'.",
    b"\xff\xd8\xff": "It is an image, and no table. Put its path into a column 'image'.",
}
"""Problems by the first bytes of a file."""

_UTF8_BOM, _PARQUET = b"\xef\xbb\xbf", b"PAR1"


class RowFile:
    r"""The rows of a file, in flat memory. It is a context manager that closes the file.

    >>> import tempfile
    >>> from pathlib import Path
    >>> path = Path(tempfile.mkdtemp()) / "prompts.csv"
    >>> _ = path.write_text("id,prompt\nfox,a red fox\n")
    >>> with RowFile(path) as rows:
    ...     list(rows)
    [TableRow(line=2, columns={'id': 'fox', 'prompt': 'a red fox'}, problem='')]

    Its extension names the kind of a regular file. A pipe is read to its end first, a large one into a
    temporary file; its beginning tells its kind.

    Args:
        path: the file, or "-" for standard input.

    Raises:
        InvalidRequestError: the file cannot be read, or is no text in UTF-8.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = os.fspath(path)
        self._cleanup = ExitStack()
        self._kind = FILE_KINDS.get(os.path.splitext(self._path)[1].lower(), "")
        with self._cleanup:
            if self._kind == "parquet":
                load_parquet()
            self._stream = self._open()
            self.noun = "row" if self._kind == "parquet" else "line"
            if self._kind != "parquet":
                _check_head(self._stream)
            self._cleanup = self._cleanup.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._cleanup.close()

    def __iter__(self) -> Iterator[TableRow]:
        """Yield the rows from the beginning; one that cannot be read says why.

        Raises:
            InvalidRequestError: the file is no table, or has no rows.
            ConfigurationError: it is Parquet, and the package for it is missing.
        """
        is_empty = True
        self._stream.seek(0)
        if self._kind != "parquet":
            _check_head(self._stream)
        try:
            for row in _READERS[self._kind](self._stream):
                is_empty = False
                yield row
        except OSError as error:
            raise self._unreadable(error) from None
        if is_empty:
            raise InvalidRequestError({"file": "It has no requests. Add a row for each image."})

    def _open(self) -> IO[bytes]:
        try:
            if self._path == "-":
                return self._copy(sys.stdin.buffer)
            if not self._kind and not os.path.exists(self._path):
                self._refuse_extension()
            mode = os.stat(self._path).st_mode
            if stat.S_ISDIR(mode):
                raise InvalidRequestError(
                    {"file": f"{self._path[:200]!r} is a folder. Give a file with a row for each request."}
                )
            if not stat.S_ISREG(mode):
                with open(self._path, "rb") as pipe:
                    return self._copy(pipe)
            if not self._kind:
                self._refuse_extension()
            return self._cleanup.enter_context(open_regular_file(self._path))
        except (OSError, ValueError) as error:
            raise self._unreadable(error) from None

    def _refuse_extension(self) -> NoReturn:
        known = ", ".join(FILE_KINDS)
        raise InvalidRequestError(
            {"file": f"{self._path[:200]!r} has no known extension. Give one of {known}."}
        )

    def _copy(self, pipe: IO[bytes]) -> IO[bytes]:
        """Return a copy of a pipe that can be read again, and find out its kind."""
        copy = self._cleanup.enter_context(tempfile.SpooledTemporaryFile(SPOOLED_BYTES))  # noqa: SIM115  # on the stack
        shutil.copyfileobj(pipe, copy, 1024 * 1024)
        copy.seek(0)
        self._kind = self._kind or _guess_kind(copy.read(64 * 1024).removeprefix(_UTF8_BOM))
        copy.seek(0)
        return copy

    def _unreadable(self, error: OSError | ValueError) -> InvalidRequestError:
        name = "standard input" if self._path == "-" else repr(self._path[:200])
        reason = error.strerror if isinstance(error, OSError) else None
        return InvalidRequestError({"file": f"Cannot read {name} ({reason or error}). Check the path."})


def _guess_kind(head: bytes) -> str:
    """Return the kind of rows whose beginning is known."""
    line = head.lstrip().partition(b"\n")[0]
    if head.startswith(_PARQUET):
        return "parquet"
    if line[:1] == b"{":
        return "jsonl"
    return "tsv" if b"\t" in line and b"," not in line else "csv"


def _check_head(stream: IO[bytes]) -> None:
    """Skip a byte order mark; refuse a file of another kind.

    Raises:
        InvalidRequestError: the file is no text in UTF-8.
    """
    head = stream.read(16)
    if not head.removeprefix(_UTF8_BOM).strip():
        rest = stream.read(4096)
        if not rest.strip():
            raise InvalidRequestError({"file": "It is empty. Give a row for each image."})
    problem = next((text for mark, text in _FOREIGN.items() if head.startswith(mark)), "")
    if not problem and head.startswith(_PARQUET):
        problem = "It is a Parquet file. Give it the extension .parquet."
    if not problem and b"\0" in (head[:1], head[1:2]):
        problem = "It is UTF-16, or no text. Save it as UTF-8."
    if problem:
        raise InvalidRequestError({"file": problem})
    stream.seek(len(_UTF8_BOM) if head.startswith(_UTF8_BOM) else 0)


_READERS = {
    "csv": lambda stream: read_table(stream, ","),
    "tsv": lambda stream: read_table(stream, "\t"),
    "jsonl": read_json_lines,
    "parquet": read_parquet,
}
