"""The contracts of imgkit.testing, run against the backend and the providers of the documentation."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from imgkit.backends import CAPABILITIES, BackendOptions
from imgkit.testing import (
    BackendContract,
    JobProviderContract,
    ProviderContract,
    StreamingProviderContract,
    png,
)


def load_blocks(page: str, *blocks: int) -> dict[str, Any]:
    """Return the names that the Python blocks of a page define.

    Args:
        page: file name below docs/.
        blocks: numbers of the blocks, from 0; the first block if none is given.
    """
    text = (Path(__file__).parents[1] / "docs" / page).read_text()
    python_blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names: dict[str, Any] = {"__name__": page}
    for number in blocks or (0,):
        exec(python_blocks[number], names)
    return names


BACKEND = load_blocks("write-a-backend.md")["StdlibBackend"]
PROVIDER = load_blocks("write-a-provider.md")["AcmeProvider"]
STREAMING = load_blocks("write-a-provider.md", 0, 3)["StreamingAcme"]
KILN = load_blocks("write-a-provider.md", 7)["KilnProvider"]


class TestStdlib(BackendContract):
    # The backend of the page has no capability for these.
    test_close_disconnects = None  # type: ignore[assignment]
    test_sends_once_on_reused_connection = None  # type: ignore[assignment]
    test_refuses_private_peers = None  # type: ignore[assignment]
    test_uses_https_proxy = None  # type: ignore[assignment]
    test_verifies_https_proxy = None  # type: ignore[assignment]

    def backend(self, options: Any) -> Any:
        return BACKEND(options)


class AcmeReplies:
    def reply(self, pictures: list[bytes]) -> bytes:
        return json.dumps({"pictures": [base64.b64encode(image).decode() for image in pictures]}).encode()


class TestAcme(AcmeReplies, ProviderContract):
    def provider(self) -> Any:
        return PROVIDER()


class TestStreamingAcme(AcmeReplies, StreamingProviderContract):
    def provider(self) -> Any:
        return STREAMING()

    def partial_event(self, image: bytes, index: int) -> bytes:
        return json.dumps({"sketch": base64.b64encode(image).decode()}).encode()

    def complete_event(self, image: bytes) -> bytes:
        return self.reply([image])


class TestKiln(JobProviderContract):
    images_per_reply = 1
    state_member = "state"

    def provider(self) -> Any:
        return KILN()

    def reply(self, pictures: list[bytes]) -> bytes | None:
        return None

    def url_reply(self, urls: list[str]) -> bytes:
        return json.dumps({"state": "fired", "link": urls[0] if urls else None}).encode()


@pytest.mark.parametrize(
    ("page", "contract"),
    [("write-a-provider.md", StreamingProviderContract), ("write-a-backend.md", BackendContract)],
)
def test_the_page_names_every_test_of_the_contract(page: str, contract: type[object]) -> None:
    """Explains each test of the contract in a table of the page, and no other test."""
    text = (Path(__file__).parents[1] / "docs" / page).read_text("utf-8")
    rows = "\n".join(line for line in text.splitlines() if line.startswith("| `test_"))
    tests = [name for name in dir(contract) if name.startswith("test_")]
    assert sorted(re.findall(r"`(test_\w+)`", rows)) == tests


def test_the_page_explains_every_option_and_capability() -> None:
    """Names each option of a backend, and has a row for each capability and no other."""
    text = (Path(__file__).parents[1] / "docs" / "write-a-backend.md").read_text("utf-8")
    assert set(re.findall(r'(?m)^\| `"(.+?)"` \|', text)) == set(CAPABILITIES)
    assert set(re.findall(r"options\.(\w+)", text)) >= {field.name for field in fields(BackendOptions)}


def test_arrays_are_decoded_as_they_arrive() -> None:
    """Decodes the images of a JSON array to their bytes."""
    decoded = TestAcme().decode(TestAcme().reply([png(1, 64)]))
    assert [image.data for image in decoded.pictures] == [png(1, 64)]
