"""The offline backend: an Images API inside the process, without network, key or cost.

It speaks the backend protocol only; the painting itself lives in `imgkit.painter`.
"""

from imgkit.backends.offline.backend import OfflineBackend

__all__ = ["OfflineBackend"]
