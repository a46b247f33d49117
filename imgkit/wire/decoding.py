"""Content-Encoding of replies: imgkit asks for none, and some servers compress nevertheless."""

from __future__ import annotations

import zlib

from imgkit.wire.messages import Head

_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS
"""Tells zlib to recognise either format by its header."""

_GZIP_START = b"\x1f"
"""The first byte of each member. A gzip body may have several."""

_ZLIB_METHOD = 8
"""The lower half of the first byte of a zlib header. Some servers send deflate without a header."""


class ContentDecoder:
    """Decodes the body of a reply chunk by chunk, for backends whose HTTP library does not.

    Encodings other than gzip and deflate pass unchanged.

    Example, the ``read`` method of a reply::

        def read(self):
            while chunk := self.connection.recv(65536):
                if data := self.decoder.decode(chunk):
                    return data
            self.decoder.finish()
            return b""

    Args:
        head: the head of the reply.
    """

    def __init__(self, head: Head) -> None:
        self._encoding = head.headers.get("content-encoding", "").strip().lower()
        is_known = self._encoding in ("gzip", "x-gzip", "deflate")
        self._zlib = zlib.decompressobj(_GZIP_OR_ZLIB) if is_known else None
        self._has_data = False

    def decode(self, chunk: bytes) -> bytes:
        """Return the decoded bytes of a chunk. b"" means that more is needed, not the end.

        Raises:
            OSError: the body is not in its encoding.
        """
        if self._zlib is None:
            return chunk
        pieces = []
        try:
            while chunk:
                if self._zlib.eof:
                    if chunk[:1] != _GZIP_START:
                        break  # padding
                    self._zlib = zlib.decompressobj(_GZIP_OR_ZLIB)
                elif not self._has_data and self._encoding == "deflate" and chunk[0] & 15 != _ZLIB_METHOD:
                    self._zlib = zlib.decompressobj(-zlib.MAX_WBITS)
                self._has_data = True
                pieces.append(self._zlib.decompress(chunk))
                chunk = self._zlib.unused_data
        except zlib.error as error:
            raise OSError(f"The body of the reply is not {self._encoding} ({error}).") from error
        return b"".join(pieces)

    def finish(self) -> None:
        """Check the end of the body.

        Raises:
            OSError: the body ends within its encoding.
        """
        if self._zlib is not None and self._has_data and not self._zlib.eof:
            raise OSError(f"The body of the reply ends within its {self._encoding} encoding.")
