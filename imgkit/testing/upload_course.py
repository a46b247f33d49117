"""The uploads of a request at a provider's fake, without I/O."""

from __future__ import annotations

import json
from dataclasses import replace
from types import MappingProxyType

from imgkit.images.inputs import OpenedInputs
from imgkit.models import ImageRequest
from imgkit.providers.base import Target
from imgkit.providers.fakes import FakeApi
from imgkit.providers.job_base import UploadingProvider
from imgkit.redact import Secret
from imgkit.testing import canary
from imgkit.wire.json_body import JsonReply
from imgkit.wire.messages import Head, HttpRequest
from imgkit.wire.urls import origin

MAX_UPLOADS = 20
"""Uploads after which the API must have all inputs."""


def play_uploads(
    provider: UploadingProvider, request: ImageRequest, inputs: OpenedInputs, target: Target, fake: FakeApi
) -> OpenedInputs:
    """Upload the inputs of a request to a fake; return the inputs with their handles.

    Args:
        provider: the provider under test.
        request: the request.
        inputs: its opened images.
        target: the server.
        fake: the API.
    """
    done: dict[str, object] = {}
    secrets = (Secret(canary.KEY), Secret(canary.PLAIN_KEY))
    for _ in range(MAX_UPLOADS):
        upload = provider.next_upload(request, inputs, MappingProxyType(dict(done)), target)
        if upload is None:
            return replace(inputs, uploads=MappingProxyType(done))
        assert upload.name not in done, (
            f"next_upload() asks for {upload.name!r} again. Return None once all handles are in `done`."
        )
        url = upload.request.url
        assert origin(url) == origin(target.base_url), (
            f"An upload goes to {url}, and the API is at {target.base_url}. Uploads carry the key and the "
            "user's image: send them to target.base_url."
        )
        reply = fake.answer_parts(*split_request(upload.request))
        assert 200 <= reply.status < 300, f"The fake refuses the upload to {url} with HTTP {reply.status}."
        body = JsonReply(frozenset())
        body.feed(reply.body)
        body.close()
        handle = provider.decode_upload(upload, Head(reply.status, reply.headers), body, target, secrets)
        assert json.loads(json.dumps(handle)) == handle, (
            f"The handle of an upload does not survive JSON: {handle!r:.200}. Return texts, numbers, lists "
            "and mappings with texts as keys."
        )
        done[upload.name] = handle
    raise AssertionError(f"After {MAX_UPLOADS} uploads, next_upload() still asks for another.")


def split_request(request: HttpRequest) -> tuple[str, str, dict[str, str], bytes]:
    """Return the parts of a request that a fake reads."""
    headers = {name.lower(): value for name, value in request.headers.items()}
    if request.body.content_type:
        headers["content-type"] = request.body.content_type
    return request.method, request.url, headers, b"".join(request.body.blocks())
