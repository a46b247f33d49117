"""The backend and the provider that the pages build are held to the contracts, as the pages say."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

from imgkit.testing import BackendContract, ProviderContract, StreamingProviderContract
from imgkit.testing.samples import png


def classes_of(page: str, *blocks: int) -> dict[str, Any]:
    """Return what Python blocks of a page define, the first one if no others are named."""
    text = (Path(__file__).parents[1] / "docs" / page).read_text()
    found = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names: dict[str, Any] = {"__name__": page}
    for number in blocks or (0,):
        exec(found[number], names)
    return names


BACKEND = classes_of("write-a-backend.md")["StdlibBackend"]
PROVIDER = classes_of("write-a-provider.md")["AcmeProvider"]
STREAMING = classes_of("write-a-provider.md", 0, 2)["StreamingAcme"]


class TestStdlib(BackendContract):
    capabilities = frozenset({"unsent", "connect timeout"})
    test_a_proxy = None  # type: ignore[assignment]  # not among what the page's backend can do
    test_an_early_refusal = None  # type: ignore[assignment]

    def backend(self, options: Any) -> Any:
        return BACKEND(options)


class TestAcme(ProviderContract):
    def provider(self) -> Any:
        return PROVIDER()

    def reply(self, pictures: list[bytes]) -> bytes:
        return json.dumps({"pictures": [base64.b64encode(one).decode() for one in pictures]}).encode()


class TestStreamingAcme(StreamingProviderContract):
    reply = TestAcme.reply

    def provider(self) -> Any:
        return STREAMING()

    def partial_event(self, picture: bytes, index: int) -> bytes:
        return json.dumps({"sketch": base64.b64encode(picture).decode()}).encode()

    def complete_event(self, picture: bytes) -> bytes:
        return self.reply([picture])


def test_arrays_are_decoded_as_they_arrive() -> None:
    assert [one.data for one in TestAcme().decode(TestAcme().reply([png(1, 64)])).pictures] == [png(1, 64)]
