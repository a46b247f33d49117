"""`imgkit plugins`, and what `backends` and `doctor` say of installed plugins."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.cli.support import command, environment, imgkit
from tests.support.plugin_packages import BACKEND, install
from tests.support.processes import run_process

BLOCK = {"IMGKIT_BLOCK_PLUGINS": "zeta"}
OWN = ["cache", "logging", "recorder", "retry", "telemetry"]


def installed(folder: Path) -> dict[str, str]:
    """Install one good plugin, one to block and one that exits; return the environment for them."""
    install(folder, "acme", BACKEND)
    install(folder, "exits", "import sys; sys.exit('bye')", version="3.0")
    install(folder, "zeta")
    return {"PYTHONPATH": str(folder), **BLOCK}


def listing(*args: str, cwd: Path, env: dict[str, str]) -> dict[str, dict[str, Any]]:
    """Return the JSON listing by name."""
    done = imgkit("plugins", "--json", *args, cwd=cwd, env=env)
    assert (done.returncode, done.stderr) == (0, b"")
    told = json.loads(done.stdout)
    assert told["schema_version"] == 1
    return {entry["name"]: entry for entry in told["plugins"]}


def test_listed_without_being_imported(tmp_path: Path) -> None:
    """Without --load each plugin has its line, and no module of a stranger is imported."""
    env = installed(tmp_path)
    done = imgkit("plugins", cwd=tmp_path, env=env)
    assert (done.returncode, done.stderr) == (0, b"")
    lines = [line.split(maxsplit=3) for line in done.stdout.decode().splitlines()]
    assert [line[0] for line in lines] == [*OWN, "acme", "exits", "zeta"]
    assert lines[0] == ["cache", "imgkit-service", "0.1.0", "built-in"]
    assert lines[len(OWN) :] == [
        ["acme", "imgkit-acme", "1.2", "installed"],
        ["exits", "imgkit-exits", "3.0", "installed"],
        ["zeta", "imgkit-zeta", "1.2", "blocked: by IMGKIT_BLOCK_PLUGINS"],
    ]
    program = command()[-1].replace("sys.exit(main())", "sys.exit(main() or print([n for n in sys.modules "
        "if n.startswith('imgkit_') or n in ('requests', 'aiohttp', 'opentelemetry')]))")  # fmt: skip
    argv = [*command()[:-1], program, "plugins"]
    traced = run_process(
        argv, cwd=tmp_path, env=environment(**env), capture_output=True, timeout=50, text=True
    )
    assert traced.stdout.splitlines()[-1] == "[]"


def test_listed_with_their_hooks(tmp_path: Path) -> None:
    """With --load hooks are told, and why a plugin is broken; a blocked one stays unimported."""
    found = listing("--load", cwd=tmp_path, env=installed(tmp_path))
    assert found["acme"] == {
        "name": "acme", "distribution": "imgkit-acme", "version": "1.2", "state": "loaded", "reason": None,
        "hooks": ["imgkit_backends", "imgkit_plugins"],
    }  # fmt: skip
    assert (found["exits"]["state"], found["exits"]["reason"]) == ("broken", "SystemExit: bye")
    assert (found["zeta"]["state"], found["zeta"]["hooks"]) == ("blocked", None)
    assert found["retry"]["state"] == "built-in"
    assert "imgkit_retry_wait" in found["retry"]["hooks"]


def test_nothing_is_loaded_with_an_empty_list(tmp_path: Path) -> None:
    """An empty IMGKIT_PLUGINS blocks all, also with --load."""
    env = {**installed(tmp_path), "IMGKIT_PLUGINS": ""}
    found = listing("--load", cwd=tmp_path, env=env)
    assert {found[name]["state"] for name in ("acme", "exits", "zeta")} == {"blocked"}
    assert found["acme"]["reason"] == "it is not in IMGKIT_PLUGINS"


def test_backends_of_plugins_are_listed(tmp_path: Path) -> None:
    """`imgkit backends` has those of installed plugins; `create` answers with one."""
    install(tmp_path, "acme", BACKEND)
    env = {"PYTHONPATH": str(tmp_path)}
    assert b"acme-memory  loads" in imgkit("backends", cwd=tmp_path, env=env).stdout
    args = ("create", "a fox", "--backend", "acme-memory", "-o", "fox.png", "--no-sidecar")
    done = imgkit(*args, cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "fox.png").read_bytes().startswith(b"\x89PNG")


def test_a_broken_plugin_fails_the_doctor(tmp_path: Path) -> None:
    """`imgkit doctor` names the broken plugin, notes the blocked one, and ends with 1."""
    done = imgkit("doctor", cwd=tmp_path, env=installed(tmp_path))
    lines = done.stdout.decode().splitlines()
    assert (done.returncode, lines[-1]) == (1, "1 to mend")
    assert "ok     plugin 'acme' (imgkit-acme 1.2) loads" in lines
    assert "wrong  plugin 'exits' (imgkit-exits 3.0) is broken: SystemExit: bye" in lines
    assert "note   plugin 'zeta' (imgkit-zeta 1.2) is blocked: by IMGKIT_BLOCK_PLUGINS" in lines
