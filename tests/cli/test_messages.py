"""Messages of the command: option names instead of Python arguments, and remedies of its own."""

from __future__ import annotations

import ast
import copy
import pickle
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import imgkit
from imgkit import errors
from imgkit.cli.exit_codes import exit_code
from imgkit.cli.messages import REMEDIES, describe_error, format_error, to_options
from imgkit.cli.run import run
from imgkit.core.cache_entries import from_failure, to_failure
from imgkit.errors import ConfigurationError, EndpointRetiredError, InvalidRequestError, SaveError
from imgkit.providers.error_codes import load_meanings
from imgkit.providers.error_replies import NEXT_STEP, PAGE_STEPS
from imgkit.testing.samples import png

PACKAGE = Path(imgkit.__file__).parent


PYTHON_WORDS = re.compile(r"\w=|\w\(|\b(?:service|image|error|ssl)\.\w|\binstance\b")


def list_hints() -> Iterator[tuple[str, str, str | None, str]]:
    """Yield place, class, field and the constant part of the hint of each error raised with a hint."""
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            keywords = {keyword.arg: keyword.value for keyword in node.keywords}
            if "hint" not in keywords or not name.endswith("Error") or not hasattr(errors, name):
                continue
            field = keywords.get("field")
            value = field.value if isinstance(field, ast.Constant) else None
            parts = [part.value for part in ast.walk(keywords["hint"]) if isinstance(part, ast.Constant)]
            hint = "".join(map(str, parts))
            yield f"{path.relative_to(PACKAGE)}:{node.lineno}", name, str(value) if value else None, hint


def test_every_hint_has_a_remedy_of_the_command() -> None:
    """No remedy in Python's words reaches a user of the command."""
    hints = list(list_hints())
    assert len(hints) > 15
    # A computed field or hint, and a call that only Python can make.
    modules = (
        "core/core",
        "core/dry_run",
        "core/config",
        "wire/base_urls",
        "wire/transfer",
        "providers/error_replies",
    )
    allowed = {(f"{module}.py", None) for module in modules}
    hints = [
        hint
        for hint in hints
        if not hint[3] or PYTHON_WORDS.search(to_options(hint[3].replace('=""', '="x"')))
    ]
    missing = [
        (place, name, field)
        for place, name, field, _ in hints
        if not any(
            key in REMEDIES for kind in getattr(errors, name).__mro__ for key in ((kind, field), (kind, None))
        )
        and (place.partition(":")[0], field) not in allowed
    ]
    assert missing == []


@pytest.mark.parametrize(
    ("hint", "field", "shown"),
    [
        ("Is the server running? Check base_url.", "base_url", "Is the server running? Check --base-url."),
        (
            "If you trust its authority, pass ca=… with the authority's certificate.",
            "ca",
            "If you trust its authority, pass the authority's certificate with --ca FILE.",
        ),
        ("Is the proxy running? Check its address.", "proxy", "Is the proxy running? Check its address."),
    ],
)
def test_failures_to_connect_name_options(hint: str, field: str, shown: str) -> None:
    """Names options in the remedies for a failed connection."""
    error = errors.NotSentError("Could not connect.", hint=hint, field=field)
    assert format_error(error) == f"Could not connect. {shown}"


def test_a_hint_ends_the_message_of_the_library() -> None:
    """Users of the library read problem and remedy; the command replaces the remedy."""
    error = ConfigurationError("ca: Not readable.", hint="Pass an ssl.SSLContext.", field="ca")
    assert str(error) == "ca: Not readable. Pass an ssl.SSLContext."
    assert (error.problem, error.hint, error.field) == ("ca: Not readable.", "Pass an ssl.SSLContext.", "ca")
    assert (
        format_error(error) == "--ca: Not readable. Pass a PEM file or a folder prepared by openssl rehash."
    )


def test_arguments_within_a_sentence_become_options() -> None:
    """A message of an API or a plugin names options, and keeps paths and quoted words."""
    error = errors.SaveError("'base_url' a/base_url.png: Check base_url, or raise timeout_s.")
    assert format_error(error) == "'base_url' a/base_url.png: Check --base-url, or raise --timeout."
    refused = errors.NotFoundError("No such base_url.", status=404, hint="Check base_url.")
    assert format_error(refused) == "No such base_url. Check --base-url."


def test_an_unknown_hint_is_printed_as_it_is() -> None:
    """A plugin's hint is better than none."""
    error = ConfigurationError("The vault is locked.", hint="Set VAULT_TOKEN.")
    assert format_error(error) == str(error) == "The vault is locked. Set VAULT_TOKEN."
    plain = ConfigurationError("The vault is locked.")
    assert (plain.hint, plain.field, plain.problem) == (None, None, str(plain))


def test_an_invalid_request_has_a_line_for_each_field_and_remedy() -> None:
    """Fields and hints of several arguments are translated one by one."""
    error = InvalidRequestError(
        {"image.1": "is a GIF.", "size": "is odd.", "extra_body.x": "is wrong."},
        hints={"prepare": 'Or pass prepare="fit".', "vault": "Open the vault."},
    )
    assert error.fields == {"image.1": "is a GIF.", "size": "is odd.", "extra_body.x": "is wrong."}
    assert str(error).endswith('extra_body.x: is wrong. Or pass prepare="fit". Open the vault.')
    assert format_error(error).splitlines() == [
        "IMAGE 2: is a GIF.",
        "--size: is odd.",
        "--extra-body x: is wrong.",
        "Or pass --prepare fit to have it converted (of an animation, the first frame).",
        "Open the vault.",
    ]


def test_a_save_error_has_the_remedy_of_its_cause() -> None:
    """The cause says why an image was not saved; the command salvages the image by itself."""
    cause = errors.DownloadError("Over 5 bytes.", hint="Raise it.", field="max_download_bytes")
    error = SaveError("1 of 1 images could not be saved. Over 5 bytes.", hint="See error.response.")
    assert format_error(error) == error.problem
    error.__cause__ = cause
    assert format_error(error) == f"{error.problem} Pass a larger --max-download-bytes to fetch it."


@pytest.mark.parametrize(
    "error",
    [
        ConfigurationError("Wrong.", hint="Pass x=…", field="x"),
        InvalidRequestError({"n": "is odd."}, hints={"n": "Pass n=2."}),
        errors.UnreadableReplyError("Odd.", hint="See error.body.", field="max_reply_bytes"),
        EndpointRetiredError("Gone.", status=0, hint='Pass strategy="auto".'),
        errors.StreamError("Cut."),
    ],
    ids=lambda error: type(error).__name__,
)
def test_copies_keep_hint_and_field(error: errors.ImgkitError) -> None:
    """Pickled errors, copies and those of waiting calls say the same."""
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error), from_failure(to_failure(error))):
        assert type(other) is type(error)
        assert (str(other), other.hint, other.field) == (str(error), error.hint, error.field)
        assert other.problem == error.problem
        assert format_error(other) == format_error(error)
        assert getattr(other, "hints", {}) == getattr(error, "hints", {})


def test_remedies_for_replies_name_options() -> None:
    """The remedies for error replies have no words of Python, and the command names its options in them."""
    steps = {*NEXT_STEP.values(), *PAGE_STEPS.values(), *(meaning.next for meaning in load_meanings())}
    for step in steps - {""}:
        error = errors.NotFoundError("HTTP 404.", status=404, hint=step)
        assert describe_error(error)["hint"]
        assert format_error(error) == f"HTTP 404. {describe_error(error)['hint']}"
        assert not PYTHON_WORDS.search(format_error(error))
        assert "base_url" not in format_error(error)
    gone = EndpointRetiredError("Gone.", status=410, hint="The provider has switched it off.")
    assert format_error(gone) == str(gone)


def test_a_retired_operation_names_the_option() -> None:
    """An error that imgkit raises itself is a usage error; one of a server is not."""
    own = EndpointRetiredError("It is gone.", status=0, hint='Pass strategy="auto".')
    foreign = EndpointRetiredError('It is gone: strategy="auto".', status=404)
    assert format_error(own).startswith("It is gone. Pass --strategy auto or")
    assert format_error(foreign) == str(foreign)
    assert (exit_code(own), exit_code(foreign)) == (2, 6)


def test_a_retired_operation_of_the_official_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing was sent, and the message names the strategies that work."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-0123456789")
    image = tmp_path / "fox.png"
    image.write_bytes(png(1))
    assert run(["variation", str(image), "--strategy", "native", "--backend", "requests"]) == 2
    message = capsys.readouterr().err
    assert (
        "Nothing was sent. Pass --strategy auto or --strategy emulate to edit the image with a prompt "
        "instead." in message
    )
