"""Damaged files of every kind: facts, cache, spool. Each gives an error of imgkit's tree, or a miss.

The damages are random, from fixed seeds, so a failure shows again.
"""

from __future__ import annotations

import json
import os
import random
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import imgkit
from imgkit import CachePlugin
from imgkit.cli.run import run
from imgkit.core.recovery import recover
from imgkit.default_plugins.spool import open_spool
from tests.support.pictures import answer, encoded, noise, picture
from tests.support.wire_server import WireServer, head, raw, reply

ROUNDS = 25
CODES = (0, 2, 3, 9)
"""Exit codes of the command; 1 stands for a bug of imgkit."""

MOST_CHARACTERS = 2000
VALUES: tuple[object, ...] = (
    None, True, -1, 0, 1e308, 1 << 80, 0.5, "", "x", "\ud800", "9" * 50, [], [[]], {}, {"a": None}, [None, 1],
)  # fmt: skip
"""Values that stand in place of others. JSON escapes the lone surrogate."""

FACTS = (Path(imgkit.__file__).parent / "providers" / "openai.toml").read_text()


def cut(data: bytes, chance: random.Random) -> bytes:
    return data[: chance.randrange(len(data) + 1)]


def overwrite(data: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(data) + 1)
    return data[:at] + chance.randbytes(chance.randrange(1, 9)) + data[at + chance.randrange(9) :]


def zero(data: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(data) + 1)
    return data[:at] + bytes(len(data) - at)


def repeat(data: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(data) + 1)
    return data[:at] + data[: chance.randrange(len(data) + 1)] + data[at:]


def change_value(data: bytes, chance: random.Random) -> bytes:
    """Put another value in place of a random value of the first line of JSON."""
    line, newline, rest = data.partition(b"\n")
    try:
        document = json.loads(line)
    except ValueError:
        return overwrite(data, chance)
    places = list(_list_places(document))
    if places:
        container, key = chance.choice(places)
        container[key] = chance.choice(VALUES)
    return json.dumps(document).encode() + newline + rest


def _list_places(value: Any) -> Iterator[tuple[Any, Any]]:
    children = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for key, child in children:
        yield value, key
        yield from _list_places(child)


DAMAGES: tuple[Callable[[bytes, random.Random], bytes], ...] = (cut, overwrite, zero, repeat, change_value)


def replace_file(path: Path, chance: random.Random) -> None:
    """Put something else in place of a file: nothing, a folder, a link, a FIFO, a huge file."""
    kind = chance.choice(["gone", "folder", "dead link", "loop", "FIFO", "huge"])
    if kind == "huge":
        os.truncate(path, 1 << 40)  # sparse: reading it would end the process
        return
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "dead link":
        path.symlink_to(path.with_name("nowhere"))
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "FIFO":
        os.mkfifo(path)


def damage(folder: Path, chance: random.Random) -> Path:
    """Damage one file in a folder; return it."""
    path = chance.choice(sorted(path for path in folder.rglob("*") if path.is_file()))
    if chance.random() < 0.2:
        replace_file(path, chance)
    else:
        path.write_bytes(chance.choice(DAMAGES)(path.read_bytes(), chance))
    return path


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_damaged_cache(tmp_path: Path, seed: int) -> None:
    """A call through a damaged cache returns its image: from the cache, or paid once."""
    chance, folder = random.Random(seed), tmp_path / "cache"
    with WireServer(reply(200, answer(2))) as server:
        settings: dict[str, Any] = {"base_url": server.base_url, "plugins": [CachePlugin(folder=folder)]}
        with imgkit.ImageService("requests", **settings) as service:
            for prompt in ("a fox", "a cat"):
                service.create_image(prompt)
            damage(folder, chance)
            response = service.create_image("a fox")
            assert [image.data for image in response] == [picture(), picture()]
            assert server.posts == 2 + (not response.meta.cached)
    for command in ("ls", "stats", "verify", "clear"):
        assert run(["cache", command, "--folder", str(folder)]) in CODES


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_damaged_spool(tmp_path: Path, seed: int) -> None:
    """A damaged spool can be listed and recovered, costs no other reply, and stops no call."""
    chance = random.Random(seed)
    body = json.dumps({"data": [{"b64_json": encoded(noise(number))} for number in (1, 2)]}).encode()
    head_of_body = head(200, {"content-length": str(len(body))})
    scripts = [raw(head_of_body + body[: chance.randrange(len(body))]) for _ in range(2)]
    with WireServer(*scripts, reply(200, answer())) as server:
        settings: dict[str, Any] = {"base_url": server.base_url, "state_folder": tmp_path, "retry": False}
        with imgkit.ImageService("requests", **settings) as service:
            for _ in scripts:
                with pytest.raises(imgkit.OutcomeUnknownError):
                    service.create_image("a fox")
            before = list_images(tmp_path)
            damaged = damage(tmp_path, chance)
            after = list_images(tmp_path)
            for folder in before.keys() - {damaged.parent}:
                assert after[folder] == before[folder]
            assert service.create_image("a fox")[0].data == picture()
    for command in (["--list"], ["--list", "--json"], ["-o", f"{tmp_path}/out/"], ["--list"]):
        assert run(["recover", *command, "--state-folder", str(tmp_path)]) in CODES


def list_images(state_folder: Path) -> dict[Path, list[bytes]]:
    """Return the images of each record of a spool, by its folder."""
    records = open_spool(state_folder).list_replies()
    return {record.folder: [image.data for image in recover(record).images] for record in records}


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_damaged_facts(tmp_path: Path, seed: int) -> None:
    """Damaged facts of models are refused by a configuration error, or are facts of another kind."""
    chance = random.Random(seed)
    path = tmp_path / "models.toml"
    path.write_text(FACTS)
    damage(tmp_path, chance)
    mapping = tomllib.loads(FACTS)
    container, key = chance.choice(list(_list_places(mapping)))
    container[key] = chance.choice(VALUES)
    for facts in (path, mapping):
        problem = ""
        try:
            imgkit.ImageService(models=facts).close()
        except imgkit.ConfigurationError as error:
            problem = str(error)
        assert len(problem) < MOST_CHARACTERS
