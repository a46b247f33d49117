"""What the command says in place of Python arguments."""

from __future__ import annotations

from imgkit.cli.wording import message
from imgkit.errors import EndpointRetiredError


def test_a_retired_operation_names_the_option() -> None:
    """Nothing was sent, so the words are our own; those of a server stay as they are."""
    text = 'it is gone: strategy="auto" stands in'
    ours = EndpointRetiredError(text, status=0)
    theirs = EndpointRetiredError(text, status=404)
    assert message(ours) == str(ours).replace('strategy="auto"', "--strategy auto")
    assert message(ours) != str(ours)
    assert message(theirs) == str(theirs)
