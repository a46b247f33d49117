"""The polls of FLUX at Black Forest Labs, and at services that pass its replies on."""

from __future__ import annotations

from collections.abc import Mapping

from imgkit.errors import JobFailedError
from imgkit.models import Cost
from imgkit.providers.base import DecodedImage, DecodedImages, ReplyBody
from imgkit.providers.error_replies import refused
from imgkit.providers.job_replies import unknown_job_error
from imgkit.providers.job_values import JobUpdate
from imgkit.providers.reply_images import readable
from imgkit.redact import Secret
from imgkit.wire.messages import Head

MODERATED = {"Request Moderated": "input", "Content Moderated": "output"}
"""The stage of a refusal by the word for the state."""

_FAILED = frozenset({"Error", "Failed"})


def decode_flux_poll(
    head: Head,
    body: ReplyBody,
    state: Mapping[str, object],
    secrets: tuple[Secret, ...] = (),
    cost: Cost | None = None,
) -> DecodedImages | JobUpdate:
    """Return the image, or that the job goes on: also for a word that is not known.

    Args:
        head, body: a reply under status 200.
        state: the state of a job that goes on.
        secrets: strings that must not appear in a message.
        cost: the cost of the images.

    Raises:
        ImgkitError: the job has failed, or was refused.
    """
    with readable(head, body, secrets):
        reply = body.json()
        status, result = str(reply["status"]), reply.get("result")
    if status in MODERATED:
        details = reply.get("details")
        raise refused(
            head,
            f"{status}. {details if isinstance(details, str) else ''}".strip(),
            stage=MODERATED[status],
            secrets=secrets,
        )
    if status in _FAILED:
        raise JobFailedError(f"The job has failed: {status}.", status=head.status, code=status)
    if status == "Task not found":
        raise unknown_job_error(Head(404, head.headers), status)
    if status != "Ready":
        progress = reply.get("progress")
        fraction = float(progress) if type(progress) in (int, float) else None
        return JobUpdate(state=state, progress=fraction, note=status)
    with readable(head, body, secrets):
        image = DecodedImage(url=str(result["sample"]), revised_prompt=result.get("prompt"))
    extra = {"seed": result["seed"]} if "seed" in result else {}
    return DecodedImages(pictures=(image,), cost=cost, extra=extra)
