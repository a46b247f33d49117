"""Tests of the helpers for authors of providers: `accepts`, `readable` and `refused`."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import pytest

import imgkit
from imgkit import CreateImageEditRequest, CreateImageRequest
from imgkit.providers import BaseProvider, Head, Secret, Target, decode_base64, readable, refused
from imgkit.testing import canary, png
from imgkit.wire.json_body import JsonReply

HEAD = Head(200, {"x-request-id": "req_7"})
SECRETS = (Secret(canary.PLAIN_KEY),)


class Acme(BaseProvider):
    base_url = "https://api.acme.example/v1"
    env = {"api_key": "ACME_API_KEY"}
    accepts = {"create_image": {"prompt", "n"}}


class AcmeWithModels(Acme):
    accepts = {"create_image": {"prompt", "n", "model"}}


def target(**values: Any) -> Target:
    return Target(**{"base_url": "https://api.acme.example/v1", "host_class": "compatible", **values})


def reply(text: bytes) -> JsonReply:
    body = JsonReply(frozenset())
    body.feed(text)
    body.close()
    return body


# --- accepts -----------------------------------------------------------------------------------


def test_accepted_fields_pass() -> None:
    """Takes a request that sets accepted fields only."""
    Acme().check(CreateImageRequest(prompt="a fox", n=2), target())
    AcmeWithModels().check(CreateImageRequest(prompt="a fox", model="a"), target(model="b"))


def test_other_fields_are_refused_together() -> None:
    """Names every field that the dialect lacks, in the order of the request."""
    request = CreateImageRequest(prompt="a fox", style="vivid", size="64x64", extra_body={"seed": 1})
    with pytest.raises(imgkit.InvalidRequestError) as caught:
        Acme().check(request, target())
    assert list(caught.value.fields) == ["size", "style", "extra_body"]
    assert caught.value.fields["size"] == "This provider takes no size for create_image. Leave it out."


def test_other_operations_are_refused() -> None:
    """Names the operations that the dialect has."""
    request = CreateImageEditRequest(image=png(1), prompt="a hat")
    with pytest.raises(imgkit.InvalidRequestError, match="no create_image_edit") as caught:
        Acme().check(request, target())
    assert list(caught.value.fields) == ["operation"]
    assert str(caught.value).endswith("Use one of: create_image.")


def test_the_model_of_the_service_counts_as_a_field() -> None:
    """Refuses a service's model that the dialect would ignore; the offline backend ignores it anyway."""
    request = CreateImageRequest(prompt="a fox")
    with pytest.raises(imgkit.InvalidRequestError, match="takes no model"):
        Acme().check(request, target(model="a"))
    Acme().check(request, target(model="a", host_class="offline"))


def test_without_a_declaration_everything_passes() -> None:
    """Leaves the check to the provider."""

    class Silent(BaseProvider):
        env = Acme.env

    Silent().check(CreateImageEditRequest(image=png(1), prompt="a hat", size="64x64"), target(model="a"))


def test_a_refused_field_costs_nothing() -> None:
    """Refuses a field of a real call before anything is sent."""

    class Picky(imgkit.providers.OpenAIProvider):
        accepts = {"create_image": {"prompt"}}

        def check(self, request: Any, target: Target) -> None:
            BaseProvider.check(self, request, target)

    options: dict[str, Any] = {"provider": Picky(), "base_url": "http://127.0.0.1:1/v1", "api_key": "k" * 20}
    with imgkit.ImageService("requests", **options) as images:
        with pytest.raises(imgkit.InvalidRequestError, match="size: Provider Picky takes no size"):
            images.create_image("a fox", size="64x64")


# --- readable ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "read", "problem"),
    [
        (b"<html>", lambda value: value, "JsonSyntaxError: Expecting value"),
        (b"{}", lambda value: value["images"], "KeyError: 'images'"),
        (b"[]", lambda value: value[0], "IndexError"),
        (b"[]", lambda value: value["images"], "TypeError"),
        (b"3", lambda value: value.get("images"), "AttributeError: 'int' object"),
        (b'"%%"', decode_base64, "ValueError: broken base64"),
        (b"0", lambda value: 1 / value, "ZeroDivisionError"),
    ],
)
def test_readable_turns_builtin_errors_into_unreadable_replies(
    text: bytes, read: Callable[[Any], Any], problem: str
) -> None:
    """Names the problem, and keeps the reply and its request id."""
    body = reply(text)
    with pytest.raises(imgkit.UnreadableReplyError, match=problem) as caught, readable(HEAD, body):
        read(body.json())
    assert caught.value.body == text
    assert ("Check base_url." in str(caught.value)) == (text == b"<html>")
    assert caught.value.request_id == "req_7"
    assert caught.value.maybe_billed


def test_readable_hides_the_key() -> None:
    """Hides a key in the message of the builtin error, and in the chain of causes."""
    body = reply(b'{"size": "' + canary.PLAIN_KEY.encode() + b'"}')
    with pytest.raises(imgkit.UnreadableReplyError) as caught, readable(HEAD, body, SECRETS):
        int(body.json()["size"])
    assert "invalid literal for int()" in str(caught.value)
    assert canary.PLAIN_KEY not in f"{caught.value}{caught.value.__cause__}"
    assert caught.value.__suppress_context__


def test_readable_lets_other_errors_pass() -> None:
    """Passes on results, errors of imgkit, and the bugs of the provider itself."""
    with readable(HEAD, reply(b"{}")):
        pass
    for error in (imgkit.EmptyResultError("There is nothing."), NameError("bodi"), KeyboardInterrupt()):
        with pytest.raises(type(error)) as caught, readable(HEAD, reply(b"{}")):
            raise error
        assert caught.value is error


# --- refused -----------------------------------------------------------------------------------


def test_refused_is_a_moderation_error_under_any_status() -> None:
    """Has the status and the request id of the reply, and says what to do."""
    error = refused(HEAD, "The image is unsafe.", stage="output", categories=["violence"], code="SAFETY")
    assert isinstance(error, imgkit.ModerationBlockedError)
    assert (error.status, error.request_id, error.code) == (200, "req_7", "SAFETY")
    assert (error.stage, error.categories, error.maybe_billed) == ("output", ("violence",), False)
    assert str(error) == (
        "HTTP 200 OK, code SAFETY, request id req_7: the provider refused the content: The image is unsafe. "
        "Rephrase the prompt or change the input; imgkit does not retry it."
    )


def test_refused_needs_no_words_of_the_api() -> None:
    """Is a whole sentence without a message, and says that it may be billed."""
    error = refused(Head(400, {}), maybe_billed=True)
    assert str(error).startswith(
        "HTTP 400 Bad Request: the provider refused the content. The call may have been billed. Rephrase"
    )
    assert error.maybe_billed
    assert (error.stage, error.categories, error.code, error.request_id) == (None, (), None, None)


def test_refused_hides_keys_and_is_bounded() -> None:
    """Cuts long texts of the server, and hides the key in all its parts."""
    key = canary.PLAIN_KEY
    names = [key, *["y" * 500] * 50]
    error = refused(HEAD, f"{key} " + "x " * 5000, code=key, categories=names, secrets=SECRETS)
    assert key not in f"{error}{vars(error)}"
    assert len(str(error)) < 1000
    assert len(error.categories) == 20
    assert max(map(len, error.categories)) <= 60


def test_refused_can_be_pickled() -> None:
    """Crosses a border between processes with its facts."""
    error = pickle.loads(pickle.dumps(refused(HEAD, "no", stage="input")))
    assert (type(error).__name__, error.stage, error.status) == ("ModerationBlockedError", "input", 200)
