"""Reading multipart/form-data, as a server does."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote


@dataclass(frozen=True, slots=True)
class FormFile:
    """A file of a form."""

    filename: str
    media_type: str
    data: bytes


def read_form(content_type: str, body: bytes) -> tuple[dict[str, str], dict[str, list[FormFile]]]:
    """Return the scalar fields and the files of a form, by name.

    Args:
        content_type: with the boundary.
        body: the whole form.
    """
    boundary = content_type.partition("boundary=")[2].strip('"').encode()
    values: dict[str, str] = {}
    files: dict[str, list[FormFile]] = {}
    for part in (b"\r\n" + body).split(b"\r\n--" + boundary)[1:]:
        head, found, content = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        text = head.decode("utf-8", "replace")
        name = _parameter(text, "name")
        if not found or name is None:
            continue
        filename = _parameter(text, "filename")
        if filename is None:
            values[name] = content.decode("utf-8", "replace")
        else:
            media_type = re.search(r"(?im)^content-type:\s*([^\s;]+)", text)
            kind = media_type[1] if media_type else "application/octet-stream"
            files.setdefault(name, []).append(FormFile(filename, kind, content))
    return values, files


def _parameter(head: str, name: str) -> str | None:
    found = re.search(rf'[ ;]{name}="([^"]*)"', head)
    return unquote(found[1]) if found else None
