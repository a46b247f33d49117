"""Helpers that open image inputs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from imgkit.errors import InvalidRequestError
from imgkit.images.inputs import open_input


@pytest.fixture
def cleanup() -> Iterator[ExitStack]:
    """An exit stack that closes opened inputs."""
    with ExitStack() as stack:
        yield stack


def refusal(value: Any, cleanup: ExitStack) -> str:
    """Return the reason why an input is rejected; the reason names the field and is short."""
    with pytest.raises(InvalidRequestError) as caught:
        open_input(value, "image.3", cleanup)
    assert list(caught.value.fields) == ["image.3"]
    assert caught.value.__cause__ is None
    problem = caught.value.fields["image.3"]
    assert len(problem) < 1024
    return problem
