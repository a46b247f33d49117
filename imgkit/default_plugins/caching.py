"""The cache plugin."""

from __future__ import annotations

import math
import os
from pathlib import Path

from imgkit.cache.folder import MAX_AGE_S, MAX_BYTES, FolderStore
from imgkit.errors import ConfigurationError
from imgkit.plugins.hookspecs import ServiceSettings, hookimpl
from imgkit.plugins.protocols import CacheStore
from imgkit.wire.plain_values import show_value, to_flag, to_integer, to_number, to_path, type_name


class CachePlugin:
    """Answers repeated requests from a store, and lets concurrent equal calls share one request.

    ``plugins=["cache"]`` is a `CachePlugin` with its defaults: a folder of the user, for all processes.

    Args:
        store: an `imgkit.plugins.CacheStore`, such as `imgkit.cache.memory.MemoryStore`; a folder by default.
        folder: the folder of the store. Default: ``cache`` in the service's state folder, or the user's
            cache folder if the service has none.
        max_bytes: maximum size of all images together; the least recently used images go first.
        max_age_s: maximum age of a reply in seconds.
        verify: check the digest of each image that is read; False compares only sizes.

    Raises:
        ConfigurationError: An argument is invalid, or both `store` and `folder` are given.

    Example:
        >>> from imgkit import ImageService
        >>> from imgkit.cache.memory import MemoryStore
        >>> with ImageService(plugins=[CachePlugin(MemoryStore())]) as service:
        ...     first, second = [service.create_image("a fox", size="64x64") for _ in range(2)]
        >>> second.meta.cached
        True
    """

    def __init__(
        self,
        store: CacheStore | None = None,
        *,
        folder: str | os.PathLike[str] | None = None,
        max_bytes: int = MAX_BYTES,
        max_age_s: float = MAX_AGE_S,
        verify: bool = True,
    ) -> None:
        if store is not None and not _is_store(store):
            raise ConfigurationError(
                f"A {type_name(store)} is not a CacheStore. See imgkit.plugins.CacheStore."
            )
        if store is not None and folder is not None:
            raise ConfigurationError("Give a store or a folder, not both.")
        limit_bytes, is_verified = to_integer(max_bytes), to_flag(verify)
        limit_s = math.inf if type(max_age_s) is float and max_age_s == math.inf else to_number(max_age_s)
        if limit_bytes is None or limit_bytes < 1:
            problem = f"must be a whole number, at least 1, not {show_value(max_bytes)}"
            raise ConfigurationError(f"max_bytes {problem}.", field="max_bytes")
        if limit_s is None or limit_s <= 0:
            problem = f"must be a positive number of seconds, not {show_value(max_age_s)}"
            raise ConfigurationError(f"max_age_s {problem}.", field="max_age_s")
        if is_verified is None:
            raise ConfigurationError(
                f"verify must be True or False, not {show_value(verify)}.", field="verify"
            )
        self._store = store
        self._folder = _parse_folder(folder)
        self._limits = {"max_bytes": limit_bytes, "max_age_s": limit_s}
        self._verify = is_verified

    @hookimpl
    def imgkit_cache(self, settings: ServiceSettings) -> CacheStore:
        """Return the store of a service."""
        if self._store is not None:
            return self._store
        folder = self._folder if self._folder else cache_folder(settings.state_folder)
        return FolderStore(folder, verify=self._verify, **self._limits)  # type: ignore[arg-type]  # checked above


def _is_store(store: object) -> bool:
    """Return whether an object has the methods of a store. It is the caller's: it may raise anything."""
    try:
        return isinstance(store, CacheStore)
    except Exception:
        return False


def _parse_folder(folder: object) -> Path | None:
    if folder is None:
        return None
    try:
        text = to_path(folder)
        return Path(text).expanduser() if text else None
    except (ValueError, RuntimeError, OSError) as error:
        raise ConfigurationError(f"folder is no path of a folder: {error}.", field="folder") from None


def cache_folder(state_folder: Path | None) -> Path:
    """Return the default folder of the cache: in the state folder, else the user's cache folder."""
    if state_folder is not None:
        return state_folder / "cache"
    from platformdirs import user_cache_path

    return user_cache_path("imgkit", appauthor=False)
