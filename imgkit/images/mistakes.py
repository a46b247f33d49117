"""Likely mistakes behind a path that cannot be opened or written, each with its remedy."""

from __future__ import annotations

import base64
import errno
import os
import re
from itertools import islice
from urllib.parse import unquote, urlsplit

from imgkit.images.sniff import sniff
from imgkit.redact import format_suggestion
from imgkit.wire.base64_stream import URL_SAFE
from imgkit.wire.json_values import is_data_url
from imgkit.wire.plain_values import has_type, type_name

_MIN_BASE64_CHARACTERS = 16
_LOOKED_AT = 4096
_MAX_LISTED_NAMES = 1000


def find_base64_format(text: str) -> str | None:
    """Return the format of the image that a text holds in base64, None for any other text.

    Example::

        >>> find_base64_format("R0lGODlhAQABAAAAACwAAAAAAQABAAACAgQBADs=")
        'gif'
    """
    start = text[: 2 * _LOOKED_AT].strip().strip("\"'`")
    if is_data_url(start):
        start = start.partition(",")[2]
    start = "".join(start.split())[:_LOOKED_AT].rstrip("=").translate(URL_SAFE)
    if len(start) < _MIN_BASE64_CHARACTERS or not re.fullmatch(r"[A-Za-z0-9+/]+", start):
        return None
    kind = sniff(base64.b64decode(start[: len(start) // 4 * 4]))
    return kind.format if kind else None


def explain_text(head: bytes) -> str:
    """Return the problem of text in place of an image, with its remedy.

    Args:
        head: the first bytes of the text.
    """
    text = head[:_LOOKED_AT].decode("latin-1")
    if (found := find_base64_format(text)) is not None:
        return f"The data is base64 text of a {found} image. Decode it first."
    if re.fullmatch(r"[^\n]{1,1000}\.(png|jpe?g|webp|gif)", text.strip(), re.IGNORECASE):
        return "The data is text that looks like a path. Give a path as text, not as bytes."
    return "The file is text, not a PNG, JPEG, WebP or GIF image. Convert it."


def explain_missing_input(path: str) -> str | None:
    """Return the likely mistake in an input that is no path of a file, None if there is none.

    Example::

        >>> explain_missing_input("file:///pictures/a%20fox.png")
        "The value is a file: URL. Pass the path '/pictures/a fox.png'."
    """
    if is_data_url(path.strip().strip("\"'`")):
        return "The value is a data: URL in quotes. Remove the quotes."
    if (found := find_base64_format(path)) is not None:
        return (
            f"The value is base64 text of a {found} image, not a path. Put 'data:image/{found};base64,' "
            "before it."
        )
    if re.match(r"file://.", path, re.IGNORECASE):
        return f"The value is a file: URL. Pass the path {unquote(urlsplit(path).path)[:200]!r}."
    if path.startswith("~") and (expanded := os.path.expanduser(path)) != path:
        return f"imgkit does not expand '~'. Pass the path {expanded[:200]!r}."
    return None


def suggest_name(path: str) -> str:
    """Return " (did you mean '…'?)" with the file of the same folder whose name is closest, else ""."""
    folder, name = os.path.split(path)
    try:
        with os.scandir(folder or ".") as entries:
            names = [entry.name for entry in islice(entries, _MAX_LISTED_NAMES)]
    except (OSError, ValueError):
        return ""
    return format_suggestion(name, names)


def explain_unwritable(error: OSError, folder: str, name: str, *, is_folder_made: bool = False) -> str:
    """Return the remedy for a file that cannot be written, by the reason of the system.

    Example::

        >>> explain_unwritable(FileNotFoundError(2, "No such file or directory"), "out", "fox.png")
        "Make the folder 'out' first, or write 'out/fox.{ext}' to have it made."

    Args:
        error: the failure of the system.
        folder: the folder of the file.
        name: the name of the file.
        is_folder_made: imgkit has tried to make the folder.
    """
    if folder.startswith("~") and (expanded := os.path.expanduser(folder)) != folder:
        return f"imgkit does not expand '~'. Pass {os.path.join(expanded, name)!r}."
    if error.errno == errno.ENOENT and not is_folder_made and not os.path.isdir(folder):
        pattern = os.path.join(folder, f"{os.path.splitext(name)[0] or 'image'}.{{ext}}")
        return f"Make the folder {folder!r} first, or write {pattern!r} to have it made."
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "Free some space, or choose another place."
    if error.errno == errno.ENAMETOOLONG:
        return "Choose a shorter name."
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "Choose a folder that you may write to."
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        return f"{folder!r} is a file or lies below one. Choose another folder."
    if error.errno == errno.EISDIR:
        return "A folder has this name. End it with a slash to write into the folder."
    return "Choose another place."


def explain_target(target: object) -> str:
    """Return why an object is no place to save to, with the remedy."""
    if has_type(target, bytes) or has_type(target, bytearray):
        return "The path is of type bytes. Pass it as text, for example with os.fsdecode."
    if hasattr(type(target), "write"):
        return (
            f"A file object ({type_name(target)}) is no path. Pass a path, or write the bytes yourself: "
            "file.write(image.data)."
        )
    if has_type(target, str):
        return "The path contains a NUL character. Remove it."
    return f"A value of type {type_name(target)} is no path. Pass a path as str or os.PathLike."
