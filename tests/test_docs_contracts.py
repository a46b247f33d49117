"""The backend and the provider that the pages build are held to the contracts, as the pages say."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from imgkit.testing import BackendContract, ProviderContract
from imgkit.testing.samples import png


def classes_of(page: str) -> dict[str, Any]:
    """Return what the first Python block of a page defines."""
    text = (Path(__file__).parents[1] / "docs" / page).read_text()
    block = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert block is not None
    names: dict[str, Any] = {"__name__": page}
    exec(block.group(1), names)
    return names


BACKEND = classes_of("write-a-backend.md")["StdlibBackend"]
PROVIDER = classes_of("write-a-provider.md")["AcmeProvider"]


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
        import base64

        return json.dumps({"pictures": [base64.b64encode(one).decode() for one in pictures]}).encode()


def test_arrays_are_decoded_as_they_arrive() -> None:
    assert [one.data for one in TestAcme().decode(TestAcme().reply([png(1, 64)])).pictures] == [png(1, 64)]
