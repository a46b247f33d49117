"""Where the command keeps what must outlive it."""

from __future__ import annotations

from pathlib import Path

from imgkit.core.config import resolve_state_folder
from imgkit.errors import ConfigurationError


def folder(given: str | None = None) -> Path:
    """Return the state folder of the command: what is given, else ``IMGKIT_HOME``, else the user's.

    Args:
        given: what ``--state-folder`` says.

    Raises:
        ConfigurationError: not a path.
    """
    found = resolve_state_folder(given)
    if found is not None:
        return found
    from platformdirs import user_state_path

    return user_state_path("imgkit", appauthor=False)


def unusable(where: Path, error: OSError) -> ConfigurationError:
    """Return the error for a state folder that cannot be read or written."""
    return ConfigurationError(
        f"{str(where)!r} cannot be used ({error.strerror or error}): give another --state-folder, or set "
        "IMGKIT_HOME"
    )
