"""Errors of connections, replies, jobs, downloads and files: images may be paid for."""

from __future__ import annotations

from imgkit.errors.root import ImgkitError, PendingJob, ReceivedImage, ReceivedReply, ReceivedResponse


class TransportError(ImgkitError):
    """The connection failed before the reply was complete; ``reason`` is the cause alone, in a sentence."""

    reason: str = ""


class NotSentError(TransportError):
    """The request provably did not reach the API: nothing can have been billed.

    Attributes:
        permanent: a retry will fail too: an untrusted certificate, or a host name that does not exist.
    """

    def __init__(
        self, message: str, *, permanent: bool = False, hint: str | None = None, field: str | None = None
    ) -> None:
        super().__init__(message, hint=hint, field=field)
        self.permanent = permanent


class OutcomeUnknownError(TransportError, ReceivedReply):
    """The API may have received the request, and made and billed an image; no complete reply arrived.

    Example::

        try:
            response = service.create_image("a fox")
        except OutcomeUnknownError as error:
            print("Ask the provider about request", error.request_id)

    Attributes:
        maybe_billed: always True.
        request_id, spool_path, images, body: see `ReceivedReply`. ``request_id`` needs a reply's head.
        status: the HTTP status of a reply that does not prove that nothing was billed.
        retry_after_s: seconds to wait as the server asked, None where it did not ask.
        should_retry: the server's ``x-should-retry`` header, None without that header.
    """

    maybe_billed = True
    retry_after_s: float | None = None
    should_retry: bool | None = None

    def __init__(
        self,
        message: str,
        *,
        request_id: str | None = None,
        spool_path: str | None = None,
        status: int | None = None,
    ) -> None:
        super().__init__(message)
        self.request_id = request_id
        self.spool_path = spool_path
        self.status = status


class UnreadableReplyError(ImgkitError, ReceivedReply):
    """A success reply without a readable image; it may have been billed.

    Attributes:
        maybe_billed: True, except after a request that is free, such as one for the list of models.
        request_id, spool_path, images: see `ReceivedReply`.
        body: the received bytes, which may contain a paid image.
    """

    maybe_billed = True

    def __init__(
        self,
        message: str,
        *,
        request_id: str | None = None,
        body: bytes = b"",
        hint: str | None = None,
        field: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint, field=field)
        self.request_id = request_id
        self.body = body


class EmptyResultError(ImgkitError, ReceivedReply):
    """The API answered with success but without images; it may have been billed.

    Attributes:
        maybe_billed: always True.
        request_id, spool_path: see `ReceivedReply`.
        body: the received bytes. The message quotes their start.
        job_id: the server's id of a job that it accepted in place of images, None if it named none.
        job_url: the address of that job as the server gave it. It may grant access.
    """

    maybe_billed = True
    job_id: str | None = None
    job_url: str | None = None

    def __init__(
        self,
        message: str,
        *,
        request_id: str | None = None,
        body: bytes = b"",
        job_id: str | None = None,
        job_url: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.request_id = request_id
        self.body = body
        self.job_id = job_id
        self.job_url = job_url


class StreamError(ImgkitError, ReceivedReply):
    """A stream ended before its image was complete, or the caller misused it.

    Example::

        try:
            for event in service.stream_image("a fox"):
                show(event)
        except StreamError as error:
            for image in error.images:
                image.save()

    Attributes:
        maybe_billed: the call sent a request that may have been billed.
        request_id, spool_path, images: see `ReceivedReply`.
    """

    def __init__(
        self,
        message: str,
        *,
        maybe_billed: bool = False,
        images: tuple[ReceivedImage, ...] = (),
        request_id: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.maybe_billed = maybe_billed
        self.images = images
        self.request_id = request_id


class JobPendingError(ImgkitError):
    """The call ended before the work that the provider has accepted. Nothing is lost: collect it later.

    Attributes:
        maybe_billed: always True.
        jobs: the `imgkit.Job` of each pending request; `imgkit.ImageService.resume` takes the error itself.
    """

    maybe_billed = True

    def __init__(self, message: str, *, jobs: tuple[PendingJob, ...] = (), hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.jobs = jobs


class DownloadError(ImgkitError):
    """A result URL could not be fetched. The image exists; its URL is in ``image.url``.

    Attributes:
        body: the received bytes of an image that was cut off, else b"".
    """

    body: bytes = b""


class DownloadBlockedError(DownloadError):
    """imgkit does not fetch this result URL; it sent no byte to the server.

    Attributes:
        origin: the origin of the URL, as ``download_origins=`` takes it; None for a URL that has none.
    """

    origin: str | None = None


class LinkExpiredError(DownloadError):
    """The server no longer serves the result URL: it says so, or answers 404, 410, or 403 without a reason.

    imgkit never generates the image again.
    """


class NotDownloadedError(ImgkitError):
    """The bytes of the image are still at its URL, and this process cannot fetch them."""


class SaveError(ImgkitError, ReceivedReply):
    """An image could not be written. Its bytes are still in memory.

    Attributes:
        images: the images that the call was saving.
        response: the whole response where ``save_to=`` failed, else None.
        spool_path: folder of the spooled reply, if a state folder is set and ``save_to=`` failed.
    """

    def __init__(
        self,
        message: str,
        *,
        images: tuple[ReceivedImage, ...] = (),
        response: ReceivedResponse | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.images = images
        self.response = response
