"""The cache as a plugin."""

from __future__ import annotations

import os
from pathlib import Path

from imgkit.cache.folder import MAX_AGE_S, MAX_BYTES, FolderStore
from imgkit.errors import ConfigurationError
from imgkit.plugins.hookspecs import ServiceSettings, hookimpl
from imgkit.plugins.protocols import CacheStore


class CachePlugin:
    """Answers equal requests from what was paid for before, and lets calls at once share one.

    ``plugins=["cache"]`` is a `CachePlugin` with its defaults: a folder of the user, for all processes.

    Args:
        store: a `imgkit.plugins.CacheStore`, such as `imgkit.cache.memory.MemoryStore`; a folder by default.
        folder: of the store; by default ``cache`` in the state folder of the service, and where it has none,
            the user's folder for caches.
        max_bytes: of all pictures together; those that were not used for the longest time go first.
        max_age_s: older replies are not used.
        verify: compute the digest of each picture that is read; without it only sizes are compared.

    Raises:
        ConfigurationError: a store and what a store is made of, or what is no store.
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
            raise ConfigurationError(f"a {type(store).__name__} is no CacheStore: see imgkit.plugins")
        if store is not None and folder is not None:
            raise ConfigurationError("give a store or a folder, not both")
        if type(max_bytes) is not int or max_bytes < 1:
            raise ConfigurationError(f"max_bytes must be a whole number from 1 on, not {max_bytes!r}")
        if isinstance(max_age_s, bool) or not isinstance(max_age_s, int | float) or not max_age_s > 0:
            raise ConfigurationError(f"max_age_s must be a positive number of seconds, not {max_age_s!r}")
        self._store = store
        self._folder = folder
        self._limits = {"max_bytes": max_bytes, "max_age_s": max_age_s}
        self._verify = verify

    @hookimpl
    def imgkit_cache(self, settings: ServiceSettings) -> CacheStore:
        """Return the store."""
        if self._store is not None:
            return self._store
        folder = Path(self._folder).expanduser() if self._folder else cache_folder(settings.state_folder)
        return FolderStore(folder, verify=self._verify, **self._limits)  # type: ignore[arg-type]  # checked above


def cache_folder(state_folder: Path | None) -> Path:
    """Return where replies are cached if nothing else is said."""
    if state_folder is not None:
        return state_folder / "cache"
    from platformdirs import user_cache_path

    return user_cache_path("imgkit", appauthor=False)
