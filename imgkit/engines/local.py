"""The engine of this process: threads under `ImageService`, tasks under `AsyncImageService`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from imgkit.plugins.engines import AskedTask, EngineHost, EngineTask, ReportFuture


class LocalEngine:
    """Carries out requests in this process."""

    is_remote = False
    _host: EngineHost

    def open(self, host: EngineHost) -> None:
        """Remember the run."""
        self._host = host

    def submit(self, task: EngineTask) -> ReportFuture:
        """Carry out a task under the service of the run."""
        return self._host.carry_out_here(task)

    def ask(self, tasks: Sequence[AskedTask]) -> None:
        """Return None: no other process has a task."""

    def close(self) -> None:
        """Do nothing: the run waits for its tasks."""
