"""The backend that needs no network: it answers as the Images API would, with pictures of its own."""

from imgkit.backends.offline.backend import OfflineBackend

__all__ = ["OfflineBackend"]
