"""`imgkit doctor` and `imgkit backends`: what they find, and that they find what is wrong."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path

import pytest

import imgkit as package
from imgkit.cli import clash, doctor
from imgkit.cli.run import run
from imgkit.hookspecs import BackendSpec, hookimpl
from imgkit.plugins import build_table
from tests.test_cli_support import CANARY, clear, imgkit


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clear(monkeypatch, tmp_path)


class Broken:
    """A plugin whose backend is not there."""

    @hookimpl
    def imgkit_backends(self) -> list[BackendSpec]:
        return [BackendSpec(name="broken", target="no_such_module:It", face="sync", install="pip install x")]


def examined(capfd: pytest.CaptureFixture[str]) -> tuple[int, list[str]]:
    """Return exit code and lines of the doctor."""
    code = run(["doctor"])
    return code, capfd.readouterr().out.splitlines()


def test_a_good_installation_is_called_one(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Versions, parts, backends and the key's last characters are told; the key is not."""
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://user:CANARY@localhost/v1?key=CANARY")
    code, lines = examined(capfd)
    text = "\n".join(lines)
    assert (code, lines[-1]) == (0, "nothing is wrong")
    assert f"ok     API key: OPENAI_API_KEY is set (…{CANARY[-4:]})" in lines
    assert "CANARY" not in text
    assert f"imgkit {package.__version__} in " in text
    assert "ok     backend requests loads" in lines
    for name in ("pluggy", "marshmallow", "requests", "aiohttp", "pillow"):
        assert f"ok     {name} {metadata.version(name)} (>=" in text


def test_what_is_too_old_or_missing_is_wrong(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A requirement that is not met fails the command; an optional part that is missing does not."""
    monkeypatch.setattr(metadata, "requires", lambda name: [
        "pluggy>=999", "no-such-thing>=1", 'other-missing==2; extra == "painter"', 'click>=8; extra == "cli"',
        'imgkit-service[cli]; extra == "all"', 'unheard-of; python_version < "3"',
    ])  # fmt: skip
    code, lines = examined(capfd)
    assert (code, lines[-1]) == (1, "2 to mend")
    mend = "pip install --upgrade imgkit-service"
    assert f"wrong  pluggy {metadata.version('pluggy')} does not fit >=999: {mend}" in lines
    assert f"wrong  no-such-thing is not installed: {mend}" in lines
    part = "other-missing is not installed; pip install 'imgkit-service[painter]'"
    assert f"note   optional part painter: {part}" in lines
    assert "ok     optional part cli is installed" in lines


@pytest.mark.parametrize(("version", "specifier", "fits"), [
    ("1.10", ">=1.9", True), ("1.9", ">=1.10", False), ("2.0", "==2", True), ("2.0.1", "==2.0", False),
    ("3.11.7", ">=3.11", True), ("2026.9.26.post1", "==2026.9.26.post1", True), ("4", ">=2,<4", False),
])  # fmt: skip
def test_versions_are_compared_by_their_numbers(version: str, specifier: str, fits: bool) -> None:
    """1.10 is newer than 1.9."""
    assert doctor.satisfies(version, specifier) is fits


def test_a_stranger_with_our_import_name_is_found(tmp_path: Path) -> None:
    """The unrelated distribution `imgkit` beside ours fails the command, which says how to mend it."""
    for name in ("imgkit-1.2.3", "imgkit_service-9"):
        folder = tmp_path / f"{name}.dist-info"
        folder.mkdir()
        title, _, version = name.partition("-")
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {title}\nVersion: {version}\n")
        (folder / "top_level.txt").write_text("imgkit\n")
        (folder / "RECORD").write_text("imgkit/__init__.py,,\n")
    done = imgkit("doctor", cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)})
    assert done.returncode == 1
    assert b"wrong  the import name imgkit belongs to imgkit too: pip uninstall imgkit, then" in done.stdout
    assert b"imgkit-service" in done.stdout


def test_files_of_a_stranger_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A foreign module in our folder, and a package without our names, are both told."""
    (tmp_path / "imgkit.py").touch()
    monkeypatch.setattr(package, "__path__", [str(tmp_path)])
    monkeypatch.setattr(package, "__all__", ["from_url", "from_file"])
    first, second = clash.clashes()
    assert str(tmp_path / "imgkit.py") in first
    assert "__init__.py" in second


def test_settings_that_cannot_work_are_wrong(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backend or provider that does not exist, and one that does not load, fail the command."""
    for module in ("imgkit.cli.backends", "imgkit.cli.doctor"):
        monkeypatch.setattr(f"{module}.build_table", lambda: build_table([Broken()]))
    monkeypatch.setenv("IMGKIT_BACKEND", "requsts")
    monkeypatch.setenv("IMGKIT_PROVIDER", "nobody")
    code, lines = examined(capfd)
    assert (code, lines[-1]) == (1, "3 to mend")
    wrong = [line for line in lines if line.startswith("wrong")]
    assert wrong[0].startswith("wrong  backend broken does not load: ModuleNotFoundError")
    assert wrong[0].endswith("; pip install x")
    assert wrong[1:] == [
        "wrong  IMGKIT_BACKEND is requsts; there are aiohttp, broken, offline, requests: change or unset it",
        "wrong  IMGKIT_PROVIDER names no provider that loads: change or unset it",
    ]
    assert run(["backends", "--json"]) == 0
    entries = json.loads(capfd.readouterr().out)["backends"]
    assert [entry["name"] for entry in entries if not entry["loads"]] == ["broken"]


def test_backends_are_listed(capfd: pytest.CaptureFixture[str]) -> None:
    """Both forms name all three, what each is, and that it loads."""
    assert run(["backends"]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [
        [name, "loads"] for name in ("aiohttp", "offline", "requests")
    ]
    assert run(["backends", "--json"]) == 0
    told = json.loads(capfd.readouterr().out)
    assert told["schema_version"] == 1
    by_name = {entry["name"]: entry for entry in told["backends"]}
    assert by_name["offline"]["reaches_network"] is False
    assert by_name["requests"]["problem"] is None
    assert "no key" in by_name["offline"]["summary"]
