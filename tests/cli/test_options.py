"""The options: as many as the library has parameters, and what they turn into."""

from __future__ import annotations

import inspect
import io
import json
import os
import sys
from dataclasses import fields, make_dataclass
from pathlib import Path

import click
import pytest

from imgkit.cli import app, options, values
from imgkit.cli.run import run
from imgkit.core.operations import ImageOperations
from imgkit.service import ImageService
from tests.cli.support import SMALL, clear

# How the arguments of a service are given that have no option of their own.
INSTEAD = {"self", "api_key", "plugins", "client_options", "max_in_flight", "unknown", "fixtures", "strict"}


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clear(monkeypatch, tmp_path)


@pytest.fixture
def prompts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the prompts that reach the library; nothing is drawn."""
    seen: list[str] = []

    def draw(operation: str, *, prompt: str, **more: object) -> int:
        seen.append(prompt)
        return 0

    monkeypatch.setattr("imgkit.cli.generate.draw", draw)
    return seen


def commands() -> dict[str, click.Command]:
    """Return the commands by name."""
    return app.build().commands


@pytest.mark.parametrize("drawing", app.DRAWINGS, ids=lambda drawing: drawing.name)
def test_every_parameter_of_an_operation_has_its_option(drawing: app.Drawing) -> None:
    """A parameter that the library gains is on the command line without a line of code there."""
    params = {param.name for param in commands()[drawing.name].params}
    plan = getattr(ImageOperations, drawing.request.operation)
    wanted = set(inspect.signature(plan).parameters) - {"core", "image", "prompt", "save_to"}
    assert wanted <= params
    assert {field.name for field in fields(drawing.request)} <= wanted | {"image", "prompt"}


def test_every_argument_of_the_service_has_its_option() -> None:
    """What a service can be told can be said on the command line, except what the list names."""
    wanted = set(inspect.signature(ImageService).parameters) - INSTEAD
    assert wanted - {"model"} == set(options.service_names())


def test_every_type_of_parameter_is_known() -> None:
    """No parameter is taken as text for want of knowing better."""
    for kind in options.REQUESTS:
        for field in fields(kind):
            if field.name not in options.POSITIONAL:
                assert str(field.type).removesuffix(" | None") in options._OF_TYPE, (kind, field.name)


def test_a_new_parameter_becomes_an_option_with_its_description() -> None:
    """The option, its type and its help come from the request class alone."""
    kind = make_dataclass("New", [("prompt", "str"), ("sharpness", "int | None", None)])
    kind.__doc__ = (
        "A request.\n\n    Attributes:\n        sharpness: how sharp,\n            in percent.\n    "
    )
    (option,) = options.request_options(kind)
    assert (option.opts, option.type, option.help) == (["--sharpness"], click.INT, "how sharp, in percent.")


@pytest.mark.parametrize("name", [None, *commands()])
def test_help_is_on_stdout_with_an_example(capfd: pytest.CaptureFixture[str], name: str | None) -> None:
    """-h and --help say the same everywhere, with an example and a text for each option."""
    texts = []
    for flag in ("-h", "--help"):
        assert run([name, flag] if name else [flag]) == 0
        out, err = capfd.readouterr()
        assert err == ""
        texts.append(out)
    assert texts[0] == texts[1]
    assert "Example" in out
    assert "--api-key " not in out
    for param in commands()[name].params if name else ():
        if isinstance(param, click.Option) and not param.hidden:
            assert param.help, param.name
            assert param.opts[0] in out


def test_all_options_reach_the_request(capfd: pytest.CaptureFixture[str]) -> None:
    """What stands on the command line is in the body and the headers, with its type, and nothing else is."""
    wanted = {
        "model": "m", "n": 2, "size": "64x64", "quality": "low", "background": "opaque",
        "output_format": "jpeg", "output_compression": 7, "moderation": "low", "response_format": "url",
        "style": "vivid", "complexity": "high", "frame_count": 3, "frame_duration_ms": 40,
        "safety_identifier": "s", "user": "u",
    }  # fmt: skip
    args = [f"--{name.replace('_', '-')}={value}" for name, value in wanted.items()]
    args += ["--svg", '{"a": [1]}', "--extra-body", '{"seed": 5}', "--extra-header", "X-One: a:b"]
    args += ["--extra-header", "Accept:"]
    assert run(["create", "fox", "--dry-run", "--json", *args]) == 0
    told = json.loads(capfd.readouterr().out)
    head, _, body = told["request"].partition("\n\n")
    assert (told["schema_version"], told["dry_run"]) == (1, True)
    assert json.loads(body) == {"prompt": "fox", "svg": {"a": [1]}, "seed": 5, **wanted}
    assert "x-one: a:b" in head.splitlines()
    assert not any(line.startswith("accept:") for line in head.splitlines())
    assert run(["create", "fox", "--dry-run"]) == 0
    assert json.loads(capfd.readouterr().out.partition("\n\n")[2]) == {"prompt": "fox"}


def test_options_of_the_service_reach_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Arguments of the service arrive under their own names; those not given are left to the library."""
    seen: dict[str, object] = {}

    class Spy(ImageService):
        def __init__(self, **settings: object) -> None:
            seen.update(settings)
            super().__init__(backend="offline")

    monkeypatch.setattr("imgkit.cli.generate.ImageService", Spy)
    Path("key").write_text(" the-key \r\n")
    args = ["--backend=requests", "--base-url=http://localhost/v1", "--organization=o", "--project=p",
            "--timeout=9", "--connect-timeout=2", "--read-timeout=3", "--proxy=http://p:1", "--ca=c.pem",
            "--use-env-proxy", "--reuse-connections", "--allow-insecure", "--provider=openai",
            "--api-key-file=key", "--max-reply-bytes=5", "--max-download-bytes=6",
            "--state-folder=/kept"]  # fmt: skip
    assert run(["create", "fox", "--dry-run", *args]) == 0
    seen.pop("plugins")
    assert seen == {
        "backend": "requests", "base_url": "http://localhost/v1", "organization": "o", "project": "p",
        "timeout_s": 9.0, "connect_timeout_s": 2.0, "read_timeout_s": 3.0, "proxy": "http://p:1",
        "ca": "c.pem", "use_env_proxy": True, "reuse_connections": True, "allow_insecure": True,
        "provider": "openai", "api_key": "the-key", "max_reply_bytes": 5, "max_download_bytes": 6,
        "client_options": {}, "state_folder": Path("/kept"),
    }  # fmt: skip
    seen.clear()
    assert run(["create", "fox", "--dry-run", "--seed", "7", "--latency", "0"]) == 0
    seen.pop("plugins")
    assert seen.pop("state_folder").name == "imgkit"
    assert seen == {"client_options": {"seed": "7", "latency_s": 0.0}}


@pytest.mark.parametrize(("args", "prompt"), [
    (["--", "-5 degrees, --size"], "-5 degrees, --size"),
    (["-o", "x.png", "--", "--help"], "--help"),
    (["@file"], "@file"),
    (["--prompt-file", "p.txt"], "line one\nline two"),
    (["--prompt-file", "-"], "piped 🦊"),
])  # fmt: skip
def test_prompts_come_from_where_they_are(
    monkeypatch: pytest.MonkeyPatch, prompts: list[str], args: list[str], prompt: str
) -> None:
    """A prompt that looks like an option, one in a file and one in a pipe arrive as they are."""
    Path("p.txt").write_bytes(b"\xef\xbb\xbfline one\nline two\r\n")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("piped 🦊\n".encode())))
    assert run(["create", *args]) == 0
    assert prompts == [prompt]


def test_edit_takes_pictures_and_then_the_prompt() -> None:
    """The last word is the prompt, unless it comes from a file."""
    Path("p.txt").write_text("a hat")
    many = {"images": "many", "prompt": True}
    assert values.split_words(["a.png", "b.png", "a hat"], None, **many) == (["a.png", "b.png"], "a hat")
    assert values.split_words(["a.png", "b.png"], "p.txt", **many) == (["a.png", "b.png"], "a hat")
    with pytest.raises(click.UsageError, match="IMAGE is missing"):
        values.split_words([], "p.txt", **many)


@pytest.mark.parametrize(("content", "words"), [
    (b"\xff\xfe", "not UTF-8"), (b"x" * (values.MOST_PROMPT_BYTES + 1), "over 1000000 bytes"),
])  # fmt: skip
def test_a_prompt_file_that_is_none(capfd: pytest.CaptureFixture[str], content: bytes, words: str) -> None:
    """What cannot be a prompt is refused before anything is sent."""
    Path("p.txt").write_bytes(content)
    assert run(["create", "--prompt-file", "p.txt"]) == 2
    assert words in capfd.readouterr().err


def test_the_three_operations_in_a_row(capfd: pytest.CaptureFixture[str]) -> None:
    """A picture is created, edited with a mask of its own, and varied into a pattern."""
    assert run(["create", "fox", "-o", "fox.png", "--background", "transparent", *SMALL]) == 0
    assert run(["edit", "fox.png", "a hat", "--mask", "fox.png", "-o", "hat.png"]) == 0
    assert run(["variation", "hat.png", "--n", "2", "-o", "out/{operation}-{index}.{ext}"]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines == [
        "fox.png",
        "hat.png",
        "out/create-image-variation-1.png",
        "out/create-image-variation-2.png",
    ]
    assert all(Path(line).read_bytes().startswith(b"\x89PNG") for line in lines)
    assert json.loads(Path("hat.png.json").read_text())["inputs"]["mask"]["bytes"] == os.path.getsize(
        "fox.png"
    )
