"""Reading the pictures of a request as a server does: files of a form, or ``data:`` URLs in JSON."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from imgkit.wire.json_values import decode_data_url, is_data_url


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


def named_pictures(members: dict[str, Any]) -> tuple[dict[str, Any], dict[str, list[FormFile]]]:
    """Return a JSON edit's members without its pictures, and these as the files of a form would be.

    Raises:
        ValueError: a picture that only a server with a network could get.
    """
    listed = {"image": members.get("images"), "mask": [members["mask"]] if members.get("mask") else None}
    files = {
        role: [_data_url(one) for one in many] for role, many in listed.items() if isinstance(many, list)
    }
    return {name: value for name, value in members.items() if name not in ("images", "mask")}, files


def _data_url(named: Any) -> FormFile:
    url = named.get("image_url") if isinstance(named, dict) else None
    if not isinstance(url, str) or not is_data_url(url):
        raise ValueError("nothing is fetched and no file is kept here: give a data: URL")
    kind = url[5:].partition(",")[0].partition(";")[0]
    return FormFile("picture", kind, decode_data_url(url))
