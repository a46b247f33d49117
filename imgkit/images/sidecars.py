"""Sidecars: JSON files beside saved images that record prompt, parameters, model and digest."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from imgkit.errors import ReceivedImage
from imgkit.images.sniff import Format
from imgkit.images.sources import Source
from imgkit.wire.json_values import dump_json

SIDECAR_MARK = "imgkit_sidecar"
SIDECAR_VERSION = 1

_MAX_SIDECAR_BYTES = 64 * 1024 * 1024


class SavableImage(ReceivedImage, Protocol):
    """The parts of an `imgkit.Image` that saving reads."""

    @property
    def source(self) -> Source:
        """Access to the bytes."""

    @property
    def about(self) -> Mapping[str, Any]:
        """Values for the name and the sidecar."""

    @property
    def revised_prompt(self) -> str | None:
        """The prompt as the model rewrote it."""

    @property
    def format(self) -> Format | None:
        """The file format of the bytes."""

    @property
    def width(self) -> int | None:
        """Width in pixels."""

    @property
    def height(self) -> int | None:
        """Height in pixels."""

    @property
    def sha256(self) -> str:
        """Hexadecimal SHA-256 of the bytes."""


def sidecar_path(path: Path) -> Path:
    """Return the path of an image's sidecar.

    >>> sidecar_path(Path("fox.png")).name
    'fox.png.json'
    """
    return path.with_name(path.name + ".json")


def sidecar_json(image: SavableImage, digest: str) -> bytes:
    """Return the content of an image's sidecar as ASCII JSON."""
    sidecar: Mapping[str, object] = {
        SIDECAR_MARK: SIDECAR_VERSION,
        **image.about,
        "index": image.index,
        "revised_prompt": image.revised_prompt,
        "format": image.format,
        "width_px": image.width,
        "height_px": image.height,
        "sha256": digest,
    }
    # ASCII keeps lone surrogates and control characters of a server's prompt as JSON escapes.
    return (dump_json(sidecar, indent=2) + "\n").encode("ascii")


def can_replace(path: Path) -> bool:
    """Return whether `path` is free or holds a sidecar of imgkit."""
    if not os.path.lexists(path):
        return True
    try:
        if not path.is_file() or path.stat().st_size > _MAX_SIDECAR_BYTES:
            return False
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and SIDECAR_MARK in content
