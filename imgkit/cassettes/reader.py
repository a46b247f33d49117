"""Cassettes read without vcrpy: by a safe loader, pictures in place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imgkit.cassettes.side_files import SideFiles
from imgkit.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Recorded:
    """A request, and how it was answered.

    Attributes:
        path: of the cassette.
        method, url: of the request.
        content_type, body: of the request.
        status, headers, reply: of the answer; headers by lower-case name.
    """

    path: Path
    method: str
    url: str
    content_type: str
    body: bytes
    status: int
    headers: Mapping[str, str]
    reply: bytes


def read(place: Path) -> list[Recorded]:
    """Return what is on a cassette, or on all cassettes of a folder, in order.

    Raises:
        ConfigurationError: nothing is there, it is no cassette, or a picture is missing.
    """
    if not place.exists():
        raise ConfigurationError(f"there are no fixtures at {str(place)!r}: record them, or mend the path")
    return [one for path in paths(place) for one in _recorded(path)]


def paths(place: Path) -> Iterator[Path]:
    """Yield the cassette, or those of a folder by name."""
    if place.is_dir():
        yield from sorted(one for one in place.rglob("*.y*ml") if one.is_file())
    else:
        yield place


def interactions(path: Path) -> list[dict[str, Any]]:
    """Return the entries of a cassette as they are in the file.

    Raises:
        ConfigurationError: it cannot be read, or is no cassette.
    """
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        found = yaml.load(path.read_bytes(), loader)["interactions"]  # noqa: S506 - a safe loader
        for one in found:
            _ = one["request"]["method"], one["request"]["uri"], one["response"]["status"]["code"]
    except (OSError, yaml.YAMLError, KeyError, TypeError, UnicodeError) as error:
        raise ConfigurationError(f"{str(path)!r} is no cassette ({type(error).__name__})") from None
    return list(found)


def content_type(side: Mapping[str, Any]) -> str:
    """Return the type of a recorded request or reply, "" if it has none."""
    return _flat(side.get("headers") or {}).get("content-type", "")


def body_of(value: object) -> bytes:
    """Return a recorded body as bytes."""
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    return value if isinstance(value, bytes) else b""


def _recorded(path: Path) -> Iterator[Recorded]:
    files = SideFiles(path)
    for one in interactions(path):
        request, response = one["request"], one["response"]
        kind = content_type(request)
        reply = body_of((response.get("body") or {}).get("string"))
        yield Recorded(
            path=path,
            method=str(request["method"]),
            url=str(request["uri"]),
            content_type=kind,
            body=files.put_back(body_of(request.get("body")), kind),
            status=int(response["status"]["code"]),
            headers=_flat(response.get("headers") or {}),
            reply=files.put_back(reply, content_type(response)),
        )


def _flat(headers: Mapping[str, Any]) -> dict[str, str]:
    return {
        str(name).lower(): ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        for name, value in headers.items()
    }
