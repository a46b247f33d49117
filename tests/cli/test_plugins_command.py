"""The command `imgkit plugins`; installed plugins in `backends` and `doctor`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.cli.support import build_command, build_environment, run_imgkit
from tests.support.plugin_packages import BACKEND, install
from tests.support.processes import run_process

BLOCK = {"IMGKIT_BLOCK_PLUGINS": "zeta"}
OWN = ["cache", "logging", "recorder", "retry", "telemetry"]


def install_plugins(folder: Path) -> dict[str, str]:
    """Install a good plugin, one to block and one that exits; return their environment."""
    install(folder, "acme", BACKEND)
    install(folder, "exits", "import sys; sys.exit('bye')", version="3.0")
    install(folder, "zeta")
    return {"PYTHONPATH": str(folder), **BLOCK}


def list_plugins(*args: str, cwd: Path, env: dict[str, str]) -> dict[str, dict[str, Any]]:
    """Return the JSON entries by name."""
    done = run_imgkit("plugins", "--json", *args, cwd=cwd, env=env)
    assert (done.returncode, done.stderr) == (0, b"")
    output = json.loads(done.stdout)
    assert output["schema_version"] == 1
    return {entry["name"]: entry for entry in output["plugins"]}


def test_list_without_import(tmp_path: Path) -> None:
    """Prints each plugin without importing it."""
    env = install_plugins(tmp_path)
    done = run_imgkit("plugins", cwd=tmp_path, env=env)
    assert (done.returncode, done.stderr) == (0, b"")
    lines = [line.split(maxsplit=3) for line in done.stdout.decode().splitlines()]
    assert [line[0] for line in lines] == [*OWN, "acme", "exits", "zeta"]
    assert lines[0] == ["cache", "imgkit-service", "0.1.0", "built-in"]
    assert lines[len(OWN) :] == [
        ["acme", "imgkit-acme", "1.2", "installed"],
        ["exits", "imgkit-exits", "3.0", "installed"],
        ["zeta", "imgkit-zeta", "1.2", "blocked: by IMGKIT_BLOCK_PLUGINS"],
    ]
    program = build_command()[-1].replace(
        "sys.exit(main())",
        "sys.exit(main() or print([n for n in sys.modules if n.startswith('imgkit_') or n in "
        "('requests', 'aiohttp', 'opentelemetry')]))",
    )
    argv = [*build_command()[:-1], program, "plugins"]
    traced = run_process(
        argv, cwd=tmp_path, env=build_environment(**env), capture_output=True, timeout=50, text=True
    )
    assert traced.stdout.splitlines()[-1] == "[]"


def test_list_hooks(tmp_path: Path) -> None:
    """Prints hooks and failures with --load; does not import a blocked plugin."""
    found = list_plugins("--load", cwd=tmp_path, env=install_plugins(tmp_path))
    assert found["acme"] == {
        "name": "acme", "distribution": "imgkit-acme", "version": "1.2", "state": "loaded", "reason": None,
        "hooks": ["imgkit_backends", "imgkit_plugins"],
    }  # fmt: skip
    assert (found["exits"]["state"], found["exits"]["reason"]) == ("broken", "SystemExit: bye")
    assert (found["zeta"]["state"], found["zeta"]["hooks"]) == ("blocked", None)
    assert found["retry"]["state"] == "built-in"
    assert "imgkit_retry_wait" in found["retry"]["hooks"]


def test_a_plugin_that_lacks_its_extra(tmp_path: Path) -> None:
    """Says "not installed", and how to install it, for a part of imgkit whose package is missing."""
    folder = tmp_path / "opentelemetry"
    folder.mkdir()
    (folder / "__init__.py").write_text("raise ImportError('hidden')")
    found = list_plugins("--load", cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)})
    entry = found["telemetry"]
    assert (entry["state"], entry["reason"]) == ("not installed", "pip install 'imgkit-service[otel]'")


def test_empty_allow_list(tmp_path: Path) -> None:
    """Blocks all plugins if IMGKIT_PLUGINS is empty."""
    env = {**install_plugins(tmp_path), "IMGKIT_PLUGINS": ""}
    found = list_plugins("--load", cwd=tmp_path, env=env)
    assert {found[name]["state"] for name in ("acme", "exits", "zeta")} == {"blocked"}
    assert found["acme"]["reason"] == "it is not in IMGKIT_PLUGINS"


def test_backend_of_a_plugin(tmp_path: Path) -> None:
    """Lists the backend of an installed plugin, and uses it."""
    install(tmp_path, "acme", BACKEND)
    env = {"PYTHONPATH": str(tmp_path)}
    assert b"acme-memory  loads" in run_imgkit("backends", cwd=tmp_path, env=env).stdout
    args = ("create", "a fox", "--backend", "acme-memory", "-o", "fox.png", "--no-sidecar")
    done = run_imgkit(*args, cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "fox.png").read_bytes().startswith(b"\x89PNG")


def test_broken_plugin_in_doctor(tmp_path: Path) -> None:
    """Fails for the broken plugin, and notes the blocked one."""
    done = run_imgkit("doctor", cwd=tmp_path, env=install_plugins(tmp_path))
    lines = done.stdout.decode().splitlines()
    assert (done.returncode, lines[-1]) == (1, "1 problem found.")
    assert "ok     plugin 'acme' (imgkit-acme 1.2) loads" in lines
    assert "wrong  plugin 'exits' (imgkit-exits 3.0) is broken: SystemExit: bye" in lines
    assert "note   plugin 'zeta' (imgkit-zeta 1.2) is blocked: by IMGKIT_BLOCK_PLUGINS" in lines
