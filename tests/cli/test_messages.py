"""What the command says in place of Python arguments."""

from __future__ import annotations

from pathlib import Path

import pytest

from imgkit.cli.exit_codes import exit_code
from imgkit.cli.messages import message
from imgkit.cli.run import run
from imgkit.errors import EndpointRetiredError
from imgkit.testing.samples import png


def test_a_retired_operation_names_the_option() -> None:
    """Nothing was sent, so the words are our own; those of a server stay as they are."""
    text = 'it is gone: strategy="auto" stands in'
    ours = EndpointRetiredError(text, status=0)
    theirs = EndpointRetiredError(text, status=404)
    assert message(ours) == str(ours).replace('strategy="auto"', "--strategy auto")
    assert message(ours) != str(ours)
    assert message(theirs) == str(theirs)
    assert (exit_code(ours), exit_code(theirs)) == (2, 6)


def test_what_the_official_host_has_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing was sent: that is a matter of usage, told in the command's own words."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-0123456789")
    picture = tmp_path / "fox.png"
    picture.write_bytes(png(1))
    assert run(["variation", str(picture), "--strategy", "native", "--backend", "requests"]) == 2
    said = capsys.readouterr().err
    assert (
        "nothing was sent. An edit with a prompt stands in for it: --strategy auto or --strategy emulate."
        in said
    )
