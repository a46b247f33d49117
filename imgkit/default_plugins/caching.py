"""The cache plugin."""

from __future__ import annotations

import os
from pathlib import Path

from imgkit.cache.folder import MAX_AGE_S, MAX_BYTES, FolderStore
from imgkit.errors import ConfigurationError
from imgkit.plugins.hookspecs import ServiceSettings, hookimpl
from imgkit.plugins.protocols import CacheStore


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
        if store is not None and not isinstance(store, CacheStore):
            raise ConfigurationError(
                f"A {type(store).__name__} is not a CacheStore. See imgkit.plugins.CacheStore."
            )
        if store is not None and folder is not None:
            raise ConfigurationError("Give a store or a folder, not both.")
        if type(max_bytes) is not int or max_bytes < 1:
            raise ConfigurationError(f"max_bytes must be a whole number, at least 1, not {max_bytes!r}.")
        if isinstance(max_age_s, bool) or not isinstance(max_age_s, int | float) or not max_age_s > 0:
            raise ConfigurationError(f"max_age_s must be a positive number of seconds, not {max_age_s!r}.")
        self._store = store
        self._folder = folder
        self._limits = {"max_bytes": max_bytes, "max_age_s": max_age_s}
        self._verify = verify

    @hookimpl
    def imgkit_cache(self, settings: ServiceSettings) -> CacheStore:
        """Return the store of a service."""
        if self._store is not None:
            return self._store
        folder = Path(self._folder).expanduser() if self._folder else cache_folder(settings.state_folder)
        return FolderStore(folder, verify=self._verify, **self._limits)  # type: ignore[arg-type]  # checked above


def cache_folder(state_folder: Path | None) -> Path:
    """Return the default folder of the cache: in the state folder, else the user's cache folder."""
    if state_folder is not None:
        return state_folder / "cache"
    from platformdirs import user_cache_path

    return user_cache_path("imgkit", appauthor=False)
