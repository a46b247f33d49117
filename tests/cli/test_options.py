"""Options: one for each parameter of the library, and their effect."""

from __future__ import annotations

import inspect
import io
import json
import os
import sys
from dataclasses import fields, make_dataclass
from functools import partial
from pathlib import Path

import click
import pytest

from imgkit.cli import app, options, values
from imgkit.cli.run import run
from imgkit.core.operations import ImageOperations
from imgkit.service import ImageService
from tests.cli.support import SMALL, clear_environment

# How the arguments of a service are given that have no option of their own.
INSTEAD = {"self", "api_key", "plugins", "client_options", "max_in_flight", "unknown", "fixtures", "strict"}


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clear_environment(monkeypatch, tmp_path)


@pytest.fixture
def prompts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the prompts that reach the library; no image is made."""
    seen: list[str] = []

    def run_operation(operation: str, *, prompt: str, **more: object) -> int:
        seen.append(prompt)
        return 0

    monkeypatch.setattr("imgkit.cli.generate.run_operation", run_operation)
    return seen


def list_commands() -> dict[str, click.Command]:
    """Return the commands by name."""
    return dict(app.build_cli().commands)


@pytest.mark.parametrize("command", app.IMAGE_COMMANDS, ids=lambda command: command.name)
def test_options_of_operations(command: app.ImageCommand) -> None:
    """Has an option for every parameter of an operation."""
    params = {param.name for param in list_commands()[command.name].params}
    plan = getattr(ImageOperations, command.request.operation)
    wanted = set(inspect.signature(plan).parameters) - {"self", "image", "prompt", "save_to"}
    assert wanted <= params
    assert {field.name for field in fields(command.request)} <= wanted | {"image", "prompt"}


def test_options_of_the_service() -> None:
    """Has an option for every argument of the service, with few exceptions."""
    wanted = set(inspect.signature(ImageService).parameters) - INSTEAD
    assert wanted - {"model"} == set(options.service_arguments())


def test_types_of_parameters() -> None:
    """Knows the type of every parameter."""
    for kind in options.REQUESTS:
        for field in fields(kind):
            if field.name not in options.POSITIONAL:
                assert str(field.type).removesuffix(" | None") in options.PARAMETERS_BY_TYPE, (
                    kind,
                    field.name,
                )


def test_new_parameter() -> None:
    """Takes option, type and help from the request class alone."""
    kind = make_dataclass("New", [("prompt", "str"), ("sharpness", "int | None", None)])
    kind.__doc__ = (
        "A request.\n\n    Attributes:\n        sharpness: how sharp,\n            in percent.\n    "
    )
    (option,) = options.request_options(kind)
    assert (option.opts, option.type, option.help) == (["--sharpness"], click.INT, "How sharp, in percent.")


@pytest.mark.parametrize("name", [None, *list_commands()])
def test_help(capfd: pytest.CaptureFixture[str], name: str | None) -> None:
    """Prints the same help for -h and --help, with an example and a text for each option."""
    texts = []
    for flag in ("-h", "--help"):
        assert run([name, flag] if name else [flag]) == 0
        out, err = capfd.readouterr()
        assert err == ""
        texts.append(out)
    assert texts[0] == texts[1]
    assert "Example" in out
    assert "--api-key " not in out
    for param in list_commands()[name].params if name else ():
        if isinstance(param, click.Option) and not param.hidden:
            assert param.help, param.name
            assert param.opts[0] in out


def test_options_reach_the_request(capfd: pytest.CaptureFixture[str]) -> None:
    """Puts every option into the body or the headers, with its type."""
    wanted = {
        "model": "m", "n": 2, "size": "64x64", "quality": "low", "background": "opaque",
        "output_format": "jpeg", "output_compression": 7, "moderation": "low", "response_format": "url",
        "style": "vivid", "complexity": "high", "frame_count": 3, "frame_duration_ms": 40,
        "safety_identifier": "s", "user": "u", "seed": 5, "negative_prompt": "rain",
    }  # fmt: skip
    args = [f"--{name.replace('_', '-')}={value}" for name, value in wanted.items()]
    args += ["--svg", '{"a": [1]}', "--extra-body", '{"strength": 5}', "--extra-header", "X-One: a:b"]
    args += ["--extra-header", "Accept:"]
    assert run(["create", "fox", "--backend", "offline", "--dry-run", "--json", *args]) == 0
    output = json.loads(capfd.readouterr().out)
    head, _, body = output["request"].partition("\n\n")
    assert (output["schema_version"], output["dry_run"]) == (1, True)
    assert json.loads(body) == {"prompt": "fox", "svg": {"a": [1]}, "strength": 5, **wanted}
    assert "x-one: a:b" in head.splitlines()
    assert not any(line.startswith("accept:") for line in head.splitlines())
    assert run(["create", "fox", "--dry-run"]) == 0
    assert json.loads(capfd.readouterr().out.partition("\n\n")[2]) == {"prompt": "fox"}


def test_options_reach_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    """Passes only the given options on, under the names of their arguments."""
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
            "--download-origin=http://h:1", "--download-origin=https://i",
            "--state-folder=/kept"]  # fmt: skip
    assert run(["create", "fox", "--dry-run", *args]) == 0
    seen.pop("plugins")
    assert seen == {
        "backend": "requests", "base_url": "http://localhost/v1", "organization": "o", "project": "p",
        "timeout_s": 9.0, "connect_timeout_s": 2.0, "read_timeout_s": 3.0, "proxy": "http://p:1",
        "ca": "c.pem", "use_env_proxy": True, "reuse_connections": True, "allow_insecure": True,
        "provider": "openai", "api_key": "the-key", "max_reply_bytes": 5, "max_download_bytes": 6,
        "download_origins": ("http://h:1", "https://i"),
        "client_options": {}, "state_folder": Path("/kept"),
    }  # fmt: skip
    seen.clear()
    assert run(["create", "fox", "--dry-run", "--latency", "0"]) == 0
    seen.pop("plugins")
    assert Path(str(seen.pop("state_folder"))).name == "imgkit"
    assert seen == {"client_options": {"latency_s": 0.0}}


@pytest.mark.parametrize(("args", "prompt"), [
    (["--", "-5 degrees, --size"], "-5 degrees, --size"),
    (["-o", "x.png", "--", "--help"], "--help"),
    (["@file"], "@file"),
    (["--prompt-file", "p.txt"], "line one\nline two"),
    (["--prompt-file", "-"], "piped 🦊"),
])  # fmt: skip
def test_prompt_sources(
    monkeypatch: pytest.MonkeyPatch, prompts: list[str], args: list[str], prompt: str
) -> None:
    """Passes prompts from arguments, files and pipes on unchanged."""
    Path("p.txt").write_bytes(b"\xef\xbb\xbfline one\nline two\r\n")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("piped 🦊\n".encode())))
    assert run(["create", *args]) == 0
    assert prompts == [prompt]


def test_arguments_of_edit() -> None:
    """Takes the last word as the prompt, unless a file has it."""
    Path("p.txt").write_text("a hat")
    split = partial(values.split_arguments, images="many", prompt=True)
    assert split(["a.png", "b.png", "a hat"], None) == (["a.png", "b.png"], "a hat")
    assert split(["a.png", "b.png"], "p.txt") == (["a.png", "b.png"], "a hat")
    with pytest.raises(click.UsageError, match="IMAGE is missing"):
        split([], "p.txt")


@pytest.mark.parametrize(("content", "words"), [
    (b"\xff\xfe", "not UTF-8"), (b"x" * (values.MAX_PROMPT_BYTES + 1), "over 1000000 bytes"),
])  # fmt: skip
def test_invalid_prompt_file(capfd: pytest.CaptureFixture[str], content: bytes, words: str) -> None:
    """Rejects a prompt file that is too long or not UTF-8."""
    Path("p.txt").write_bytes(content)
    assert run(["create", "--prompt-file", "p.txt"]) == 2
    assert words in capfd.readouterr().err


def test_three_operations(capfd: pytest.CaptureFixture[str]) -> None:
    """Creates, edits and varies an image."""
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
