"""The root of all errors, and the parts that several of them share."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Protocol


class ReceivedImage(Protocol):
    """An image that arrived before an error; `imgkit.Image` implements it."""

    @property
    def index(self) -> int:
        """The position among the images of the response, from 0."""

    @property
    def data(self) -> bytes:
        """The bytes of the image file."""

    def save(
        self, target: str | PathLike[str] = "", *, overwrite: bool = False, sidecar: bool = True
    ) -> Path:
        """Write the file, as `imgkit.Image.save` does."""


class ReceivedResponse(Protocol):
    """A response that an error carries; `imgkit.ImagesResponse` implements it."""

    @property
    def images(self) -> Sequence[ReceivedImage]:
        """All images of the response."""


class PendingJob(Protocol):
    """A job that an error names; `imgkit.Job` implements it."""

    @property
    def id(self) -> str:
        """Imgkit's own id of the job."""

    def to_json(self) -> str:
        """Return the job as JSON, from which any process can collect it."""


class ReceivedReply:
    """The parts of a reply that an error carries. A mixin of the errors that follow a reply.

    Attributes:
        request_id: the API's id of the call, None if it sent none. The provider's support asks for it.
        spool_path: folder in which the spool keeps the reply, None without a state folder.
        images: images that arrived before the error. The last image of a stream may be partial.
        body: the received bytes of the reply.
        idempotency_key: the key under which the API runs the request once, None for an API without such keys.
            A repetition with the same key collects its images.
    """

    request_id: str | None = None
    idempotency_key: str | None = None
    spool_path: str | None = None
    images: tuple[ReceivedImage, ...] = ()
    body: bytes = b""


class PluginWarning(UserWarning):
    """A plugin failed to load, or an observer raised; it was skipped. A warning, not an error."""


class ImgkitError(Exception):
    """The root: ``except ImgkitError`` catches every error that imgkit raises on purpose.

    Example::

        >>> import imgkit
        >>> try:
        ...     imgkit.ImageService(backend="offlin")
        ... except imgkit.ImgkitError as error:
        ...     print(type(error).__name__)
        UnknownBackendError
        >>> error = ImgkitError("The budget is spent.", hint="Pass a larger Budget(…).")
        >>> str(error)
        'The budget is spent. Pass a larger Budget(…).'
        >>> error.problem
        'The budget is spent.'

    Attributes:
        maybe_billed: the provider may charge for the call although it failed.
        hint: the remedy in terms of the Python API, None if the message needs none; ``str(error)`` ends
            with it. The command line shows its own remedy in place of it.
        field: the argument that the error is about, such as ``timeout_s``; None if there is none.
    """

    maybe_billed: bool = False
    hint: str | None = None
    field: str | None = None

    def __init__(self, *args: object, hint: str | None = None, field: str | None = None) -> None:
        if hint is not None:
            self.hint = hint
            args = (" ".join([*map(str, args), hint]),)
        if field is not None:
            self.field = field
        super().__init__(*args)

    @property
    def problem(self) -> str:
        """The message without its hint."""
        return str(self).removesuffix(self.hint or "").rstrip()

    def __reduce__(self) -> Any:
        # Exceptions are pickled by their positional arguments; ours have keywords too.
        return _unpickle, (type(self), self.args, self.__dict__)


def _unpickle(kind: type[ImgkitError], args: tuple[Any, ...], attributes: dict[str, Any]) -> ImgkitError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(attributes)
    return error
