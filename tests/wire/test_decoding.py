"""Content-Encoding: compressed replies, cut anywhere, broken, and unknown encodings."""

from __future__ import annotations

import gzip
import zlib

import pytest

from imgkit.backends import ContentDecoder, Head

TEXT = b'{"data": []}' * 300
ENCODED = {"gzip": gzip.compress(TEXT), "x-gzip": gzip.compress(TEXT), "deflate": zlib.compress(TEXT)}


def decode(encoding: str, body: bytes, chunk_bytes: int) -> bytes:
    """Return a decoded body that arrives in chunks."""
    decoder = ContentDecoder(Head(200, {"content-encoding": encoding} if encoding else {}))
    chunks = [body[start : start + chunk_bytes] for start in range(0, len(body), chunk_bytes)]
    decoded = b"".join(map(decoder.decode, chunks))
    decoder.finish()
    return decoded


@pytest.mark.parametrize("encoding", ENCODED)
@pytest.mark.parametrize("chunk_bytes", [1, 7, 65536])
def test_decodes_chunks(encoding: str, chunk_bytes: int) -> None:
    """The result does not depend on where the body is cut into chunks."""
    assert decode(encoding.upper(), ENCODED[encoding], chunk_bytes) == TEXT


@pytest.mark.parametrize("encoding", ["", "identity", "br", "zstd, gzip"])
def test_passes_other_encodings(encoding: str) -> None:
    """Bodies in an unknown encoding stay as they are, so that nothing is lost."""
    assert decode(encoding, ENCODED["gzip"], 100) == ENCODED["gzip"]


def test_an_empty_body_is_whole() -> None:
    """Some servers name an encoding for an empty body."""
    assert decode("gzip", b"", 1) == b""


@pytest.mark.parametrize("cut", [3, 12, len(ENCODED["gzip"]) - 1])
def test_a_cut_body_is_an_error(cut: int) -> None:
    """A body that ends within its encoding is not taken for the whole."""
    with pytest.raises(OSError, match="ends within its gzip encoding"):
        decode("gzip", ENCODED["gzip"][:cut], 100)


def test_a_body_in_no_encoding_is_an_error() -> None:
    """A body that is not compressed, although the head says so, is an error."""
    with pytest.raises(OSError, match="is not gzip"):
        decode("gzip", TEXT, 100)


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_several_members_and_raw_deflate(size: int) -> None:
    """Reads gzip of several members, and deflate without its header, as browsers do."""
    raw = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    bodies = {
        "gzip": gzip.compress(b"a red ") + gzip.compress(b"fox"),
        "deflate": raw.compress(b"a red fox") + raw.flush(),
    }
    for encoding, body in bodies.items():
        decoder = ContentDecoder(Head(200, {"content-encoding": encoding}))
        pieces = [decoder.decode(body[at : at + size]) for at in range(0, len(body), size)]
        decoder.finish()
        assert b"".join(pieces) == b"a red fox"
