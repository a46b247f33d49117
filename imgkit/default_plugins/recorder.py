"""Cassettes from any backend: what goes over the wire is written down, without vcrpy."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from imgkit.errors import ConfigurationError
from imgkit.plugins.hookspecs import ServiceSettings, hookimpl
from imgkit.plugins.protocols import Exchanged, Recorder

VARIABLE = "IMGKIT_CASSETTE"
LONGEST_WAIT_S = 10.0


class RecorderPlugin:
    """Writes requests and their answers to a cassette, whatever the backend: errors and fetched URLs too.

    The cassette is that of `imgkit.testing.cassette`: scrubbed, its pictures in files beside it, refused if
    something like a key is left. It is whole after each answer. What cannot be written is put aside, and
    costs a line in ``reply.warnings``.

    Args:
        cassette: path of the file; what is there stays, and is added to. By default, as for
            ``plugins=["recorder"]``, ``IMGKIT_CASSETTE``.
        rewrite: begin anew: what is there goes with the first answer.

    Raises:
        ConfigurationError: there is no path.
    """

    def __init__(self, cassette: str | os.PathLike[str] | None = None, *, rewrite: bool = False) -> None:
        given = os.environ.get(VARIABLE) if cassette is None else cassette
        if not isinstance(given, str | os.PathLike) or not os.fspath(given):
            raise ConfigurationError(
                f"the recorder needs a cassette: RecorderPlugin('tests/cassettes/fox.yaml'), or {VARIABLE}"
            )
        if not isinstance(rewrite, bool):
            raise ConfigurationError(f"rewrite must be True or False, not {rewrite!r}")
        self._recorder = CassetteRecorder(Path(given), rewrite=rewrite)

    @hookimpl
    def imgkit_recorder(self, settings: ServiceSettings) -> Recorder:
        """Return what writes the cassette."""
        return self._recorder


class CassetteRecorder:
    """A `imgkit.plugins.protocols.Recorder` that adds to a cassette, in the order in which answers arrive.

    Args:
        path: of the cassette. Other processes may add to it at the same time.
        rewrite: what is there goes with the first answer.
    """

    def __init__(self, path: Path, *, rewrite: bool = False) -> None:
        self._path = path
        self._rewrite = rewrite
        self._lock = threading.Lock()

    def record(self, exchanged: Exchanged) -> None:
        """Add an answer.

        Raises:
            ConfigurationError: something like a key is in it, or the file is no cassette.
            SaveError: it cannot be written.
        """
        from imgkit.cassettes.alone import alone
        from imgkit.cassettes.reader import interactions
        from imgkit.cassettes.side_files import SideFiles
        from imgkit.cassettes.writer import commit, dump, entry

        request, head = exchanged.request, exchanged.head
        files = SideFiles(self._path)
        new = entry(
            files,
            method=request.method,
            url=request.url,
            headers=request.wire_headers(),
            body=b"".join(request.body.blocks()),
            status=head.status,
            reply_headers=head.headers,
            reply=exchanged.reply,
        )
        with self._lock, alone(self._path, LONGEST_WAIT_S):
            old = interactions(self._path) if self._path.exists() and not self._rewrite else []
            commit(self._path, dump([*old, new]), files)
            self._rewrite = False
