"""Read cassettes with a safe YAML loader, without vcrpy, and restore their images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imgkit.cassettes.damage import find_damage
from imgkit.cassettes.side_files import SideFiles
from imgkit.errors import ConfigurationError
from imgkit.files import read_regular_file

MAX_CASSETTE_BYTES = 256 * 1024 * 1024
"""Size of the largest cassette. Images are in files of their own, so real cassettes are far smaller."""


@dataclass(frozen=True, slots=True)
class RecordedExchange:
    """A recorded request and its reply.

    Attributes:
        path: Path of the cassette.
        method, url: Method and URL of the request.
        content_type, body: Content type and body of the request.
        status, headers, reply: Status, headers by lower-case name, and body of the reply.
    """

    path: Path
    method: str
    url: str
    content_type: str
    body: bytes
    status: int
    headers: Mapping[str, str]
    reply: bytes


def read_exchanges(place: Path) -> list[RecordedExchange]:
    """Return the exchanges of a cassette, or of all cassettes in a folder, in order.

    Raises:
        ConfigurationError: Nothing is there, a file is not a cassette, or an image is missing.
    """
    if not place.exists():
        raise ConfigurationError(f"There is no cassette at {str(place)!r}. Record it or correct the path.")
    return [item for path in list_cassettes(place) for item in _read_cassette(path)]


def list_cassettes(place: Path) -> Iterator[Path]:
    """Yield the path of a cassette, or the cassettes below a folder sorted by name."""
    if place.is_dir():
        yield from sorted(item for item in place.rglob("*.y*ml") if item.is_file())
    else:
        yield place


def load_interactions(path: Path) -> list[dict[str, Any]]:
    """Return the entries of a cassette as the file holds them, without images.

    Raises:
        ConfigurationError: The file cannot be read, or is not a cassette.
    """
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    interactions: list[dict[str, Any]] = parse_cassette(
        path,
        lambda text: yaml.load(text, loader),  # noqa: S506 - a safe loader
    )["interactions"]
    return interactions


def parse_cassette(path: Path, parse: Callable[[str], Any]) -> dict[str, Any]:
    """Return the content of a cassette after a check of its form.

    Args:
        path: Path of the cassette.
        parse: Parses its text.

    Raises:
        ConfigurationError: The file cannot be read, is empty, or is not a cassette.
    """
    import yaml

    try:
        text = read_regular_file(path, MAX_CASSETTE_BYTES).decode("utf-8")
    except OSError as error:
        raise _refuse(path, f"It cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise _refuse(path, "It is not UTF-8 text.") from None
    if not text.strip():
        raise _refuse(path, "It is empty.")
    try:
        content = parse(text)
    except (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise _refuse(path, f"It cannot be parsed ({type(error).__name__}).") from None
    problem = find_damage(content)
    if problem is not None:
        raise _refuse(path, problem)
    return dict(content)


def _refuse(path: Path, problem: str) -> ConfigurationError:
    return ConfigurationError(
        f"{str(path)!r} is not a cassette. {problem} Correct the path, restore the file, or delete it and "
        "record again."
    )


def get_content_type(message: Mapping[str, Any]) -> str:
    """Return the content type of a recorded request or reply; return "" if it has none.

    >>> get_content_type({"headers": {"Content-Type": ["image/png"]}})
    'image/png'
    """
    return _flatten_headers(message.get("headers") or {}).get("content-type", "")


def to_bytes(value: object) -> bytes:
    """Return a recorded body as bytes; a missing body is empty.

    >>> to_bytes("a fox"), to_bytes(None)
    (b'a fox', b'')
    """
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    return value if isinstance(value, bytes) else b""


def _read_cassette(path: Path) -> Iterator[RecordedExchange]:
    files = SideFiles(path)
    for item in load_interactions(path):
        request, response = item["request"], item["response"]
        request_type = get_content_type(request)
        reply = to_bytes((response.get("body") or {}).get("string"))
        yield RecordedExchange(
            path=path,
            method=str(request["method"]),
            url=str(request["uri"]),
            content_type=request_type,
            body=files.restore_images(to_bytes(request.get("body")), request_type),
            status=int(response["status"]["code"]),
            headers=_flatten_headers(response.get("headers") or {}),
            reply=files.restore_images(reply, get_content_type(response)),
        )


def _flatten_headers(headers: Mapping[str, Any]) -> dict[str, str]:
    return {
        str(name).lower(): ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        for name, value in headers.items()
    }
