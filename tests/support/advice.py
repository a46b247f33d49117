"""The most common failures: the call that fails, the advice of its message, and the call that follows it.

``python -m tests.support.advice`` (``make messages``) writes the messages to ``tests/messages.txt`` anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from imgkit.errors import ImgkitError
from tests.support.scenes import CASSETTE, KEY, Scene, open_scene

MESSAGES = Path(__file__).parents[1] / "messages.txt"

WITH_KEY = {"OPENAI_API_KEY": KEY}
VERSION = "2025-04-01-preview"
MAKE_MASK = "`imgkit mask --from-mask mask.png --like photo.png -o fitting.png`"
DRAW_MASK = "`imgkit mask --box 10,20,30,20 --like photo.png -o mask.png`"
INVERT_MASK = "`imgkit mask --from-mask mask.png --invert -o inverted.png`"
RECORDED = {"prompt": "a red fox in the snow", "size": "256x256", "model": "offline-painter"}
HTTP = {"backend": "requests", "model": "gpt-image-2", "env": WITH_KEY, "prompt": "a fox"}
OFFLINE = {"backend": "offline", "prompt": "a fox", "size": "64x64"}
EDIT = {"operation": "create_image_edit", "backend": "offline", "prompt": "a hat", "size": "64x64"}


class Case(NamedTuple):
    """A failure and the way out of it.

    Attributes:
        name: a short name, unique among the cases.
        wrong: the arguments of a call that fails.
        advice: the words of the advice in the library's message; "" if the library has no such failure.
        command_advice: the same for the command.
        change: the arguments that differ in the call that follows the advice; None removes an argument.
    """

    name: str
    wrong: Mapping[str, Any]
    advice: str
    command_advice: str
    change: Mapping[str, Any]

    @property
    def right(self) -> dict[str, Any]:
        """The arguments of the call that follows the advice."""
        return {name: value for name, value in {**self.wrong, **self.change}.items() if value is not None}


def _answer(name: str, **more: Any) -> dict[str, Any]:
    """Return the arguments of a call that the server answers with a named reply."""
    return {**HTTP, "base_url": f"{{origin}}/{name}/v1", **more}


def _same(name: str, wrong: Mapping[str, Any], advice: str, change: Mapping[str, Any]) -> Case:
    """Return a case whose advice has the same words in the library and in the command."""
    return Case(name, wrong, advice, advice, change)


CASES: tuple[Case, ...] = (
    # Keys and models
    _same("missing-key", {**HTTP, "env": {}}, "Set it", {"env": WITH_KEY}),
    _same(
        "wrong-key",
        _answer("wrong-key", env={"OPENAI_API_KEY": "sk-wrong-0123456789"}),
        "Check the API key",
        {"env": WITH_KEY},
    ),
    Case(
        "key-without-tls",
        {**HTTP, "base_url": "http://192.0.2.1/v1", "dry_run": True},
        "pass allow_insecure=True",
        "pass --allow-insecure",
        {"allow_insecure": True},
    ),
    Case("missing-model", {**HTTP, "model": None}, "Pass model=", "Pass --model", {"model": "gpt-image-2"}),
    _same(
        "unknown-model",
        _answer("unknown-model", model="gpt-image-9"),
        "Name a model",
        {"model": "gpt-image-2"},
    ),
    Case(
        "retired-operation",
        {
            **HTTP,
            "prompt": None,
            "operation": "create_image_variation",
            "image": "fox.png",
            "strategy": "native",
        },
        'strategy="auto"',
        "Pass --strategy auto",
        {"strategy": "auto"},
    ),
    _same("unverified", _answer("unverified"), "Verify the organi", {}),
    # Backends, providers, plugins
    Case(
        "model-without-backend",
        {**HTTP, "backend": None},
        'Pass backend="requests"',
        "Pass --backend requests",
        {"backend": "requests"},
    ),
    _same(
        "misspelt-backend",
        {**OFFLINE, "backend": "ofline"},
        "did you mean 'offline'?",
        {"backend": "offline"},
    ),
    Case(
        "provider-as-backend",
        {**HTTP, "backend": "openai"},
        'Pass backend="requests"',
        "Pass --backend requests",
        {"backend": "requests", "provider": "openai"},
    ),
    _same(
        "misspelt-provider", {**HTTP, "provider": "opnai"}, "did you mean 'openai'?", {"provider": "openai"}
    ),
    Case(
        "misspelt-plugin",
        {**OFFLINE, "plugins": ["loging"]},
        "did you mean 'logging'?",
        "",
        {"plugins": ["logging"]},
    ),
    Case(
        "misspelt-argument",
        {**OFFLINE, "sise": "64x64", "size": None},
        "did you mean 'size'?",
        "'--size'",
        {"sise": None, "size": "64x64"},
    ),
    # Addresses
    Case(
        "url-without-scheme",
        {**HTTP, "base_url": "{host}/v1"},
        'Pass base_url="http://127',
        "Pass --base-url http://127",
        {"base_url": "http://{host}/v1"},
    ),
    Case(
        "url-without-path",
        {**HTTP, "base_url": "{origin}"},
        'Pass base_url="',
        "Pass --base-url ",
        {"base_url": "{origin}/v1"},
    ),
    Case(
        "url-of-operation",
        {**HTTP, "base_url": "{origin}/v1/images/generations"},
        'Pass base_url="',
        "Pass --base-url ",
        {"base_url": "{origin}/v1"},
    ),
    Case(
        "url-of-azure",
        {
            **HTTP,
            "base_url": f"{{origin}}/openai/deployments/my-dep/images/generations?api-version={VERSION}",
        },
        'provider="azure" and model="my-dep"',
        "--provider azure and --model my-dep",
        {
            "base_url": "{origin}",
            "provider": "azure",
            "model": "my-dep",
            "env": {"OPENAI_API_VERSION": VERSION, "AZURE_OPENAI_API_KEY": KEY},
        },
    ),
    Case("wrong-path", _answer("no-path"), "base_url", "--base-url", {"base_url": "{origin}/v1"}),
    # The network
    _same("missing-ca", {**HTTP, "ca": "ca.pem"}, "Pass a PEM file", {"ca": "{ca}"}),
    _same(
        "untrusted-tls", {**HTTP, "base_url": "{secure}"}, "If you trust its authority, pass", {"ca": "{ca}"}
    ),
    _same("wrong-proxy", {**HTTP, "proxy": "{host}"}, "Give the URL of an HTTP proxy", {"proxy": "{origin}"}),
    _same("dead-proxy", {**HTTP, "proxy": "{closed}"}, "Is the proxy running?", {"proxy": None}),
    _same(
        "refused", {**HTTP, "base_url": "{closed}/v1"}, "Is the server running?", {"base_url": "{origin}/v1"}
    ),
    _same(
        "unknown-host",
        {**HTTP, "base_url": "https://nowhere.invalid/v1"},
        "The host name nowhere.invalid is unknown. Check",
        {"base_url": "{origin}/v1"},
    ),
    _same("silence", _answer("silent", read_timeout_s=0.05), "billed", {}),
    _same("cut-connection", _answer("cut"), "billed", {}),
    # Values of a request
    _same("wrong-size", {**OFFLINE, "size": "big"}, "Pass width x height", {"size": "64x64"}),
    _same("size-of-model", {**HTTP, "size": "100x100"}, "the nearest is 96x96", {"size": "1024x1024"}),
    _same("wrong-count", {**OFFLINE, "n": 0}, "a whole number from 1", {"n": 1}),
    _same(
        "wrong-quality",
        {**OFFLINE, "quality": "ultra"},
        "is not one of low, medium, high",
        {"quality": "high"},
    ),
    _same("empty-prompt", {**OFFLINE, "prompt": " "}, "Describe the image", {"prompt": "a fox"}),
    Case(
        "prompt-without-quotes",
        {"words": ["edit", "fox.png", "a", "red", "hat"]},
        "",
        "Put it in quotes: fox.png 'a red hat'",
        {"words": ["edit", "fox.png", "a red hat"]},
    ),
    _same(
        "unknown-parameter",
        _answer("parameter", extra_body={"speed": "fast"}),
        "Leave the parameter out",
        {"extra_body": None},
    ),
    # Input images
    _same("missing-file", {**EDIT, "image": "fx.png"}, "did you mean 'fox.png'?", {"image": "fox.png"}),
    _same("not-an-image", {**EDIT, "image": "notes.txt"}, "PNG, JPEG, WebP or GIF", {"image": "fox.png"}),
    _same("cut-image", {**EDIT, "image": "cut.png"}, "Get the complete file", {"image": "fox.png"}),
    _same(
        "base64-as-path",
        {**EDIT, "image": "{base64}"},
        "Put 'data:image/png;base64,' before it",
        {"image": "data:image/png;base64,{base64}"},
    ),
    _same(
        "url-as-image",
        {**EDIT, "image": "https://host.invalid/fox.png"},
        "Download it and pass the file",
        {"image": "fox.png"},
    ),
    _same(
        "mask-of-other-size",
        {**EDIT, "image": "fox.png", "mask": "small-mask.png"},
        MAKE_MASK,
        {"mask": "fitting.png"},
    ),
    _same(
        "mask-of-other-shape",
        {**EDIT, "image": "fox.png", "mask": "wide-mask.png"},
        DRAW_MASK,
        {"mask": "mask.png"},
    ),
    _same(
        "mask-without-effect",
        {**EDIT, "image": "fox.png", "mask": "opaque-mask.png"},
        INVERT_MASK,
        {"mask": "inverted.png"},
    ),
    # Replies
    _same("moderation", _answer("moderation"), "Rephrase the prompt", {"prompt": "a kind fox"}),
    _same("rate-limit", _answer("rate-limit"), "try again", {}),
    _same("quota", _answer("quota"), "Add credit", {}),
    _same("billing-limit", _answer("billing"), "Raise the spending cap", {}),
    _same("api-failure", _answer("failure"), "Try again later", {}),
    _same("gateway", _answer("gateway"), "Check your usage before you repeat", {}),
    _same("html-page", _answer("page"), "may have been billed", {"base_url": "{origin}/v1"}),
    _same("no-images", _answer("empty"), "Ask the provider", {}),
    Case("closed-service", {**OFFLINE, "closed": True}, "closed", "", {"closed": None}),
    # Files and folders
    Case("other-recording", {**OFFLINE, "fixtures": CASSETTE}, "pass strict=False", "", {"strict": False}),
    Case(
        "missing-recording",
        {**OFFLINE, "fixtures": Path("no.yaml"), **RECORDED},
        "correct the path",
        "",
        {"fixtures": CASSETTE},
    ),
    Case("full-budget", {**HTTP, "usd": "0.000001"}, "raise the budget", "raise the budget", {"usd": "5"}),
    Case(
        "cache-miss",
        {**OFFLINE, "cache": "only"},
        "Call without cache=",
        "without --cache only",
        {"cache": None},
    ),
    Case("existing-file", {**OFFLINE, "save_to": "fox.png"}, "", "Pass --force", {"force": True}),
    _same(
        "missing-folder",
        {**OFFLINE, "save_to": "out/fox.png"},
        "write 'out/fox.{ext}'",
        {"save_to": "out/fox.{ext}"},
    ),
    _same(
        "file-as-folder",
        {**OFFLINE, "save_to": "notes.txt/fox.png"},
        "Choose another folder",
        {"save_to": "fine/"},
    ),
    _same(
        "damaged-facts",
        {**HTTP, "models": "facts.toml"},
        "models.0.name: Unknown field",
        {"models": "own.toml"},
    ),
)


def read_messages(scene: Scene, case: Case) -> str:
    """Return the two messages of a failure as the lines of ``tests/messages.txt``.

    Raises:
        AssertionError: a call that should fail has succeeded.
    """
    lines = [f"## {case.name}"]
    if case.advice:
        scene.enter_anew()
        error = fail(scene, case.wrong)
        notes = getattr(error, "__notes__", [])
        lines += [f"  {line}" for line in [f"{type(error).__name__}: {error}", *notes]]
    if case.command_advice:
        scene.enter_anew()
        code, text = scene.run(case.wrong)
        assert code != 0, f"The command succeeds: {case.name}"
        lines += [f"  ({code}) {line}" for line in text.rstrip().splitlines()]
    return "\n".join(scene.mask(line) for line in lines)


@cache
def read_reviewed_messages() -> dict[str, str]:
    """Return the reviewed messages by the name of their case, as `read_messages` returns them."""
    blocks = MESSAGES.read_text("utf-8").rstrip().split("\n\n")
    return {block.partition("\n")[0].removeprefix("## "): block for block in blocks}


def fail(scene: Scene, arguments: Mapping[str, Any]) -> ImgkitError:
    """Return the error of a call."""
    try:
        result = scene.call(arguments)
    except ImgkitError as error:
        return error
    raise AssertionError(f"The call succeeds: {result!r}")


def main() -> None:
    """Write the messages of all cases anew."""
    with open_scene() as scene:
        text = "\n\n".join(read_messages(scene, case) for case in CASES)
    MESSAGES.write_text(f"{text}\n", "utf-8")


if __name__ == "__main__":
    main()
