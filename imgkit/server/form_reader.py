"""Forms of requests: the names of their parts, read without a warning for each odd head."""

from __future__ import annotations

import re
from typing import NamedTuple

from aiohttp import BodyPartReader, MultipartReader

_KIND = re.compile(r"\s*[\w-]+\s*", re.ASCII)
_PARAMETER = re.compile(
    r""";\s*(?:
        (?P<name>[!#$%&'*+.^`|~\w-]+) \s*=\s*
        # Some clients escape no quotes: only a quote at the end of a parameter ends its text.
        (?: "(?P<quoted>(?: [^"\\] | \\. | "(?!\s*(?:;|$)) )*)" | (?P<plain>[^\s";]+) )
        \s*
    )?(?=;|$)""",
    re.ASCII | re.VERBOSE,
)


class PartHead(NamedTuple):
    """The head of a part.

    Attributes:
        name: name of the field, None if the head has none or is malformed.
        is_file: the part has a file name.
    """

    name: str | None = None
    is_file: bool = False


class FormReader(MultipartReader):
    """Reads a form part by part.

    It reads the names of parts itself. aiohttp warns of a head that it cannot read, and only the filters of
    the whole process, which belong to all threads, could silence that.

    Attributes:
        part_head: the head of the last part.
    """

    part_head = PartHead()

    async def fetch_next_part(self) -> MultipartReader | BodyPartReader:
        """Return the next part, without the header that names it."""
        part = await super().fetch_next_part()
        self.part_head = PartHead()
        if isinstance(part, BodyPartReader):
            headers = part.headers.copy()
            self.part_head = read_part_head(headers.get("content-disposition", ""))
            headers.popall("content-disposition", None)
            part.headers = type(part.headers)(headers)
        return part


def read_part_head(disposition: str) -> PartHead:
    r"""Return the names in a Content-Disposition header.

    >>> read_part_head('form-data; name="image"; filename="a; \\"b\\".png"')
    PartHead(name='image', is_file=True)
    >>> read_part_head('form-data; name="image"; name="mask"')
    PartHead(name=None, is_file=False)

    Args:
        disposition: the value of the header.
    """
    kind = _KIND.match(disposition)
    position, found = (kind.end() if kind else 0), dict[str, str]()
    while position < len(disposition):
        match = _PARAMETER.match(disposition, position)
        name = match["name"].lower() if match and match["name"] else ""
        if match is None or name in found:
            return PartHead()
        position = match.end()
        if name:
            quoted = match["quoted"]
            found[name] = match["plain"] if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
    return PartHead(found.get("name"), any(name.partition("*")[0] == "filename" for name in found))
