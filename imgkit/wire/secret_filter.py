"""The secrets of requests, removed by value from everything that a server sends back."""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NoReturn

from imgkit.errors import ImgkitError
from imgkit.redact import Secret
from imgkit.wire.secret_finder import Kind, Match, SecretFinder

_SECONDS = re.compile(r"[0-9.]+|[A-Z][a-z]{2}, [0-9A-Za-z: ]{10,30} GMT")
_MEDIA_TYPE = re.compile(r"[a-z-]+(?:/[a-z0-9.+-]+)?(?:; ?charset=[A-Za-z0-9-]+)?")
PROTOCOL_HEADERS: Mapping[str, tuple[re.Pattern[str], Kind]] = {
    **dict.fromkeys(("content-encoding", "content-type"), (_MEDIA_TYPE, "word")),
    **dict.fromkeys(("content-length", "date", "retry-after", "retry-after-ms"), (_SECONDS, "number")),
}
"""Headers that tell how to read the reply: the form of their values, and the secrets that these keep."""

_QUOTE = re.compile(rb'\\.|"', re.DOTALL)
_JSON_START = re.compile(rb'[\s\xef\xbb\xbf]*(?:[\[{"]|data:|event:|id:|retry:|:)')
_LINK = re.compile(r"(?:https?:/|/|data:)\S*")
_ESCAPED = re.compile(rb"(?<!\\)(?:\\\\)*\\(?:u[0-9A-Fa-f]{0,3})?\Z")
_ESCAPE_CONTEXT = 64
_IMAGE_START = re.compile(
    rb"\x89PNG|\xff\xd8\xff|GIF8|RIFF.{4}WEBP|.{4}ftyp|BM.{4}\0{4}|II\*\0|MM\0\*|\0\0[\1\2]\0", re.DOTALL
)
"""The beginning of a picture, which is never a text."""
_NAME_END = re.compile(rb'"\s*:')
_NUMBER_START = re.compile(rb"[-+.0-9eE]*\s*(?:[:\[,]|\Z)")
_NUMBER_END = re.compile(rb'[-+.0-9eE]*\s*(?:[\]}]|,\s*["\[{0-9tfn-]|\Z)')


class SecretFilter:
    """Puts ``…`` in place of secrets, in all usual spellings.

    Example::

        >>> SecretFilter([Secret("s3cr3t")]).clean_text("The key s3cr3t is wrong.")
        'The key … is wrong.'

    Args:
        secrets: the secrets. Those of fewer than `imgkit.wire.secret_finder.MIN_SECRET_LENGTH` characters
            stay in a text.
        mark: the text in place of a secret.

    Attributes:
        secrets: the secrets, the longest first.
        finder: finds them in text.
    """

    __slots__ = ("finder", "mark", "secrets")

    def __init__(self, secrets: Iterable[Secret] = (), *, mark: str = "…") -> None:
        self.secrets = tuple(sorted(dict.fromkeys(secrets), key=lambda secret: -len(secret.reveal())))
        self.finder = SecretFinder(self.secrets)
        self.mark = mark.encode()

    def __bool__(self) -> bool:
        return bool(self.secrets)

    def __reduce__(self) -> NoReturn:
        raise TypeError("Secrets cannot be pickled.")

    def with_mark(self, mark: str) -> SecretFilter:
        """Return a filter for the same secrets that puts another text in their place."""
        other = SecretFilter(mark=mark)
        other.secrets, other.finder = self.secrets, self.finder
        return other

    def occurs_in(self, data: bytes) -> bool:
        """Return whether a text has a secret."""
        return bool(self.secrets) and bool(self.finder.find(data))

    def clean_text(self, text: str) -> str:
        """Return text without the secrets."""
        if not self.secrets:
            return text
        data = text.encode("utf-8", "surrogatepass")
        matches = self.finder.find(data)
        if not matches:
            return text
        return self.replace(data, matches).decode("utf-8", "surrogatepass")

    def clean_bytes(self, data: bytes) -> bytes:
        r"""Return a text without the secrets. JSON stays JSON, and images stay whole, in base64 or not.

        Example::

            >>> SecretFilter([Secret("1234")]).clean_bytes(b'{"created": 12345, "id": "1234"}').decode()
            '{"created": 12345, "id": "…"}'
        """
        if _IMAGE_START.match(data):
            return data
        if b"\0" in data[:4]:
            data = self._clean_wide_text(data)
        matches = self.finder.find(data)
        if matches and is_like_json(data):
            matches = keep_json_valid(data, matches)
        return self.replace(data, matches)

    def _clean_wide_text(self, data: bytes) -> bytes:
        """Return a text in UTF-16 or UTF-32 without the secrets, which look different there."""
        encoding = json.detect_encoding(data)
        try:
            text = data.decode(encoding)
            cleaned = self.clean_text(text)
            return data if cleaned == text else cleaned.encode(encoding)
        except UnicodeError:
            return data

    def replace(self, data: bytes, matches: Sequence[Match], start: int = 0, end: int | None = None) -> bytes:
        """Return the bytes from `start` to `end` with the mark in place of matches within them."""
        if not matches:
            return data[start:end]
        pieces: list[bytes] = []
        for match in matches:
            pieces += (data[start : match.start], self.mark)
            start = match.end
        return b"".join([*pieces, data[start:end]])

    def clean_json(self, value: Any, *, keep: frozenset[str] = frozenset(), links: bool = True) -> Any:
        """Return a JSON value without the secrets: a copy, or the value itself if it has none.

        Args:
            value: the JSON value. Other objects stay.
            keep: names of members with images in base64, whose values stay.
            links: also clean the URLs of members such as "url"; a changed URL leads nowhere.
        """
        texts = "\0".join(_iterate_texts(value))
        if not self.occurs_in(texts.encode("utf-8", "surrogatepass")):
            return value
        root: list[Any] = [value]
        waiting: list[tuple[Any, Any, str]] = [(root, 0, "")]
        # Without recursion, because replies may be nested deeply.
        while waiting:
            container, key, name = waiting.pop()
            inner = container[key]
            if isinstance(inner, str):
                is_link = "url" in name.lower() and _LINK.fullmatch(inner) is not None
                if name not in keep and (links or not is_link):
                    container[key] = self.clean_text(inner)
            elif isinstance(inner, Mapping):
                copy: Any = {self._clean_name(each): content for each, content in inner.items()}
                container[key] = copy
                waiting += [(copy, each, str(each)) for each in copy]
            elif type(inner) in (list, tuple):
                copy = list(inner)
                container[key] = copy
                waiting += [(copy, index, name) for index in range(len(copy))]
        return root[0]

    def _clean_name(self, name: Any) -> Any:
        """Return the name of a member without secrets; a word such as "data" is no secret there."""
        if not isinstance(name, str):
            return name
        data = name.encode("utf-8", "surrogatepass")
        return name if self.finder.find(data) == [Match(0, len(data), "word")] else self.clean_text(name)

    def clean_headers(self, headers: Mapping[str, str]) -> Mapping[str, str]:
        """Return a read-only copy of reply headers without the secrets."""
        if not self.occurs_in("\0".join(headers.values()).encode("utf-8", "surrogatepass")):
            return MappingProxyType(dict(headers))
        return MappingProxyType({name: self._clean_header(name, value) for name, value in headers.items()})

    def _clean_header(self, name: str, value: str) -> str:
        data = value.encode("utf-8", "surrogatepass")
        form, kept = PROTOCOL_HEADERS.get(name, (None, None))
        is_readable = form is not None and form.fullmatch(value) is not None
        matches = [match for match in self.finder.find(data) if not is_readable or match.kind != kept]
        return self.replace(data, matches).decode("utf-8", "surrogatepass")

    def clean_error(self, error: BaseException) -> None:
        """Remove the secrets from an error: its message, attributes, notes, causes and contexts."""
        waiting: list[BaseException | None] = [error]
        seen: set[int] = set()
        while self.secrets and waiting:
            current = waiting.pop()
            if current is None or id(current) in seen:
                continue
            seen.add(id(current))
            if isinstance(current, BaseExceptionGroup):
                waiting += current.exceptions
            self._clean_attributes(current)
            is_suppressed = current.__suppress_context__
            for link in ("__cause__", "__context__"):
                linked = getattr(current, link)
                if linked is None:
                    continue
                self._clean_attributes(linked)
                text = _read_text(linked)
                if self.occurs_in(text.encode("utf-8", "surrogatepass")):
                    # Many errors of libraries build their text from other attributes than `args`.
                    linked = Exception(self.clean_text(text)).with_traceback(linked.__traceback__)
                    setattr(current, link, linked)
                waiting.append(linked)
            current.__suppress_context__ = is_suppressed

    def _clean_attributes(self, error: BaseException) -> None:
        """Remove the secrets from the arguments and notes of an error, and from all attributes of ours."""
        args = tuple(map(self._clean_value, error.args))
        if args != error.args:
            error.args = args
        for name in list(
            vars(error) if isinstance(error, ImgkitError) else {"__notes__"} & vars(error).keys()
        ):
            value = getattr(error, name)
            cleaned = self._clean_value(value)
            if cleaned is not value:
                setattr(error, name, cleaned)

    def _clean_value(self, value: Any) -> Any:
        """Return a value of an error without the secrets, and the same object if it has none."""
        if isinstance(value, str):
            cleaned: Any = self.clean_text(value)
        elif isinstance(value, bytes):
            cleaned = self.clean_bytes(value)
        elif type(value) in (list, tuple):
            cleaned = type(value)(map(self._clean_value, value))
        elif type(value) is dict:
            cleaned = {name: self._clean_value(inner) for name, inner in value.items()}
        else:
            return value
        return value if cleaned == value else cleaned


NO_SECRETS = SecretFilter()


def _read_text(error: BaseException) -> str:
    """Return the class and the text of an error, which may be as broken as its library."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:
        return type(error).__name__


def _iterate_texts(value: Any) -> Iterator[str]:
    """Yield the texts in a JSON value, names of members included."""
    waiting = [value]
    while waiting:
        inner = waiting.pop()
        if isinstance(inner, str):
            yield inner
        elif isinstance(inner, Mapping):
            waiting += inner.keys()
            waiting += inner.values()
        elif type(inner) in (list, tuple):
            waiting += inner


def keep_json_valid(
    data: bytes, matches: Sequence[Match], *, start: int = 0, in_string: bool = False
) -> list[Match]:
    """Return the matches that JSON can lose: no part of a number or an escape, and no name such as "data".

    Args:
        data: a part of a JSON text, or of events.
        matches: secrets in it.
        start: the position from which on the matches count.
        in_string: that position is inside a string.
    """
    has_numbers = any(match.kind == "number" for match in matches)
    quotes = list_quotes(data, start) if has_numbers else []
    return [
        match
        for match in matches
        if not _ESCAPED.search(data, max(0, match.start - _ESCAPE_CONTEXT), match.start)
        and not (match.kind == "word" and _is_name(data, match))
        and not (match.kind == "number" and _is_number(data, match, quotes, in_string))
    ]


def _is_name(data: bytes, match: Match) -> bool:
    """Return whether a match is the whole name of a member."""
    end = match.end
    return data[match.start - 1 : match.start] == b'"' and _NAME_END.match(data, end) is not None


def _is_number(data: bytes, match: Match, quotes: Sequence[int], in_string: bool) -> bool:
    """Return whether a match is a part of a JSON number, or of a word such as true."""
    if (bisect_left(quotes, match.start) % 2 == 1) != in_string:
        return False
    before = data[max(0, match.start - _ESCAPE_CONTEXT) : match.start][::-1]
    return _NUMBER_START.match(before) is not None and _NUMBER_END.match(data, match.end) is not None


def is_like_json(data: bytes) -> bool:
    """Return whether a text begins like JSON, or like events."""
    return _JSON_START.match(data) is not None


def list_quotes(data: bytes, start: int = 0, end: int | None = None) -> list[int]:
    """Return the positions of the quotation marks that begin or end a JSON string."""
    found = _QUOTE.finditer(data, start, len(data) if end is None else end)
    return [match.start() for match in found if match[0] == b'"']
