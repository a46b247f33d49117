"""The commands `imgkit doctor` and `imgkit backends`."""

from __future__ import annotations

import json
import sys
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

import imgkit as package
from imgkit.cli import doctor, doctor_checks
from imgkit.cli.run import run
from imgkit.plugins.hookspecs import BackendSpec, hookimpl
from imgkit.plugins.registry import load_hook_table
from imgkit.testing.wire_server import Script, WireServer, drop, reply
from tests.cli.support import CANARY, clear_environment, run_imgkit


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clear_environment(monkeypatch, tmp_path)


class BrokenBackendPlugin:
    """A plugin whose backend does not exist."""

    @hookimpl
    def imgkit_backends(self) -> list[BackendSpec]:
        return [
            BackendSpec(name="broken", target="no_such_module:It", flavor="sync", install="pip install x")
        ]


def run_doctor(capfd: pytest.CaptureFixture[str]) -> tuple[int, list[str]]:
    """Return exit code and lines of the doctor."""
    code = run(["doctor"])
    return code, capfd.readouterr().out.splitlines()


def test_good_installation(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports versions, extras and backends, and the last characters of the key only."""
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://user:CANARY@localhost/v1?key=CANARY")
    code, lines = run_doctor(capfd)
    text = "\n".join(lines)
    assert (code, lines[-1]) == (0, "No problem found.")
    assert f"ok     API key: OPENAI_API_KEY is set (…{CANARY[-4:]})" in lines
    assert "CANARY" not in text
    assert f"imgkit {package.__version__} in " in text
    assert "ok     backend requests loads" in lines
    assert "is imported from" not in text
    for name in ("pluggy", "marshmallow", "requests", "aiohttp", "pillow"):
        assert f"ok     {name} {metadata.version(name)} (>=" in text


def test_requirements(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails for an old or missing requirement, and notes a missing extra."""
    monkeypatch.setattr(metadata, "requires", lambda name: [
        "pluggy>=999", "no-such-thing>=1", 'other-missing==2; extra == "painter"', 'click>=8; extra == "cli"',
        'imgkit-service[cli]; extra == "all"', 'unheard-of; python_version < "3"',
    ])  # fmt: skip
    code, lines = run_doctor(capfd)
    assert (code, lines[-1]) == (1, "2 problems found.")
    remedy = "Run: pip install --upgrade imgkit-service"
    assert f"wrong  pluggy {metadata.version('pluggy')} does not fit >=999. {remedy}" in lines
    assert f"wrong  no-such-thing is not installed. {remedy}" in lines
    problem = "other-missing is not installed. Run: pip install 'imgkit-service[painter]'"
    assert f"note   Extra painter: {problem}" in lines
    assert "ok     Extra cli is installed." in lines


def install_fake(folder: Path, name: str, version: str, module: str) -> None:
    """Install the metadata of a distribution that claims a module."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "RECORD").write_text(f"{module}/__init__.py,,\n")


def test_replaced_module(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Notes that a distribution has replaced the module of another, as urllib3-future does."""
    install_fake(tmp_path, "urllib3-future", "2.25.904", "urllib3")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("urllib3.__version__", "2.25.904")
    code, lines = run_doctor(capfd)
    (note,) = (line for line in lines if line.startswith("note   urllib3 "))
    assert note.startswith("note   urllib3 2.25.904 is imported from ")
    assert f", but urllib3 {metadata.version('urllib3')} is installed in " in note
    assert note.endswith(
        ". urllib3-future has installed the same module. Remove the other copy, then run: pip install "
        "--force-reinstall urllib3"
    )
    assert code == 0


@pytest.mark.parametrize(
    ("source", "verdict"),
    [
        (
            "__version__ = '1.0'",
            "note   acme_lib 1.0 is imported from {folder}/acme_lib.py, but acme-lib ",
        ),
        ("1 / 0", "wrong  acme_lib cannot be imported: ZeroDivisionError"),
    ],
)
def test_shadowed_module(
    source: str,
    verdict: str,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Notes that a file of the same name hides the module of a distribution, or fails if it is broken."""
    installed, local = tmp_path / "installed", tmp_path / "local"
    installed.mkdir()
    local.mkdir()
    install_fake(installed, "acme-lib", "1.0", "acme_lib")
    (local / "acme_lib.py").write_text(source)
    monkeypatch.syspath_prepend(installed)
    monkeypatch.syspath_prepend(local)
    monkeypatch.setattr(metadata, "requires", lambda name: ["acme-lib>=1"])
    _, lines = run_doctor(capfd)
    assert [line for line in lines if verdict.format(folder=local.resolve()) in line], lines
    sys.modules.pop("acme_lib", None)


@pytest.mark.parametrize(("version", "specifier", "fits"), [
    ("1.10", ">=1.9", True), ("1.9", ">=1.10", False), ("2.0", "==2", True), ("2.0.1", "==2.0", False),
    ("3.11.7", ">=3.11", True), ("2026.9.26.post1", "==2026.9.26.post1", True), ("4", ">=2,<4", False),
])  # fmt: skip
def test_version_comparison(version: str, specifier: str, fits: bool) -> None:
    """Compares numbers: 1.10 is newer than 1.9."""
    assert doctor.is_version_in(version, specifier) is fits


def test_other_distribution_with_our_import_name(tmp_path: Path) -> None:
    """Fails beside the unrelated distribution `imgkit`, and says how to repair it."""
    for name in ("imgkit-1.2.3", "imgkit_service-9"):
        folder = tmp_path / f"{name}.dist-info"
        folder.mkdir()
        title, _, version = name.partition("-")
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {title}\nVersion: {version}\n")
        (folder / "top_level.txt").write_text("imgkit\n")
        (folder / "RECORD").write_text("imgkit/__init__.py,,\n")
    done = run_imgkit("doctor", cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)})
    assert done.returncode == 1
    assert (
        b"wrong  The import name imgkit belongs to imgkit too. Run: pip uninstall imgkit, then" in done.stdout
    )
    assert b"imgkit-service" in done.stdout


def test_files_of_another_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports a foreign module in our folder, and a package without our names."""
    (tmp_path / "imgkit.py").touch()
    monkeypatch.setattr(package, "__path__", [str(tmp_path)])
    monkeypatch.setattr(package, "__all__", ["from_url", "from_file"])
    first, second = doctor_checks.find_clashes()
    assert str(tmp_path / "imgkit.py") in first
    assert "__init__.py" in second


def test_unknown_settings(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails for an unknown backend or provider, and for a backend that does not load."""
    for module in ("imgkit.cli.plugins", "imgkit.cli.doctor_checks"):
        monkeypatch.setattr(f"{module}.load_hook_table", lambda: load_hook_table([BrokenBackendPlugin()]))
    monkeypatch.setenv("IMGKIT_BACKEND", "requsts")
    monkeypatch.setenv("IMGKIT_PROVIDER", "nobody")
    code, lines = run_doctor(capfd)
    assert (code, lines[-1]) == (1, "3 problems found.")
    wrong = [line for line in lines if line.startswith("wrong")]
    assert wrong[0].startswith("wrong  backend broken does not load: ModuleNotFoundError")
    assert wrong[0].endswith("; pip install x")
    assert wrong[1:] == [
        "wrong  Unknown backend 'requsts' in IMGKIT_BACKEND. Available: aiohttp, broken, offline, requests. "
        "Change or unset it.",
        f"wrong  Unknown provider 'nobody'. Available: {', '.join(load_hook_table().provider_specs())}. "
        "Change or unset IMGKIT_PROVIDER.",
    ]
    assert run(["backends", "--json"]) == 0
    entries = json.loads(capfd.readouterr().out)["backends"]
    assert [entry["name"] for entry in entries if not entry["loads"]] == ["broken"]


def test_list_backends(capfd: pytest.CaptureFixture[str]) -> None:
    """Lists three backends with their summaries, as text and as JSON."""
    assert run(["backends"]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [
        [name, "loads"] for name in ("aiohttp", "offline", "requests")
    ]
    assert run(["backends", "--json"]) == 0
    output = json.loads(capfd.readouterr().out)
    assert output["schema_version"] == 1
    by_name = {entry["name"]: entry for entry in output["backends"]}
    assert by_name["offline"]["reaches_network"] is False
    assert by_name["requests"]["problem"] is None
    assert "no key" in by_name["offline"]["summary"]


def test_environment(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Reports proxies without passwords, unused certificates, and the state folder."""
    monkeypatch.setenv("HTTPS_PROXY", "http://user:CANARY@proxy.example:3128")
    monkeypatch.setenv("SSL_CERT_FILE", "/evil.pem")
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    monkeypatch.setenv("IMGKIT_HOME", str(tmp_path / "not" / "yet"))
    code, lines = run_doctor(capfd)
    assert code == 0
    assert "CANARY" not in "".join(lines)
    assert (
        "note   HTTPS_PROXY is http://proxy.example:3128; imgkit uses it with --use-env-proxy only" in lines
    )
    assert "note   SSL_CERT_FILE is set, but imgkit does not read it. Use --ca instead." in lines
    assert any(line.startswith("note   SSLKEYLOGFILE is set") for line in lines)
    assert f"ok     state folder: {tmp_path / 'not' / 'yet'} (created on first use)" in lines
    assert any(line.startswith("ok     certificates: certifi 20") for line in lines)
    assert any(line.startswith("ok     clock: 20") for line in lines)
    assert not (tmp_path / "not").exists()
    (tmp_path / "file").touch()
    monkeypatch.setenv("IMGKIT_HOME", str(tmp_path / "file" / "below"))
    code, lines = run_doctor(capfd)
    assert code == 1
    assert any(line.startswith("wrong  state folder: ") and "IMGKIT_HOME" in line for line in lines)


def test_invalid_key(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails for a key that no HTTP header can carry, without showing it."""
    monkeypatch.setenv("OPENAI_API_KEY", f"{CANARY} and more")
    code, lines = run_doctor(capfd)
    assert code == 1
    assert any(line.startswith("wrong  API key: Invalid key from OPENAI_API_KEY.") for line in lines)
    assert "CANARY" not in "".join(lines)


def test_clock_before_the_installation() -> None:
    """Allows a clock that lags by a time zone, and not by years."""
    now = 1_790_000_000.0
    assert doctor_checks.check_clock(now, now + 3600).verdict == "ok"
    assert doctor_checks.check_clock(now, 0).verdict == "ok"
    found = doctor_checks.check_clock(0.0, now)
    assert found.verdict == "wrong"
    assert "1970-01-01 00:00 UTC" in found.text


# With --live


def run_live(
    capfd: pytest.CaptureFixture[str], script: Script, *more: str, path: str = "/v1"
) -> tuple[int, list[str], list[Any]]:
    """Return exit code, the lines about the request, and the requests that arrived."""
    with WireServer(script) as server:
        code = run(["doctor", "--live", "--base-url", server.origin + path, *more])
        lines = capfd.readouterr().out.splitlines()
        assert CANARY not in "".join(lines)
        assert len(server.lines) <= (2 if script is drop else 1)  # aiohttp repeats a GET that was cut
        found = [line.replace(server.origin, "http://host") for line in lines if "  live: " in line]
        return code, found, server.lines


def list_models_script(**more: str) -> Script:
    """Return a server script that lists models."""
    today = datetime.now(UTC).date()
    listed = [
        {"id": "gpt-5"},
        {"id": "gpt-image-2", "shutdown_date": None},
        {"id": "gpt-image-1.5", "shutdown_date": str(today + timedelta(days=9))},
        {"id": "dall-e-2", "shutdown_date": "2026-05-12"},
        {"id": 5}, "odd",
    ]  # fmt: skip
    return reply(200, {"data": listed}, date=format_datetime(datetime.now(UTC), usegmt=True), **more)


@pytest.mark.parametrize("backend", [(), ("--backend", "aiohttp")])
def test_valid_key(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, backend: tuple[str, ...]
) -> None:
    """Sends one GET with the key; reports organization, models and the clock."""
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    monkeypatch.setenv("IMGKIT_MODEL", "gpt-image-1.5")
    code, lines, (request,) = run_live(
        capfd, list_models_script(openai_organization="org-CANARY-99887766"), *backend
    )
    assert code == 0
    assert request.request_line == "GET /v1/models HTTP/1.1"
    assert request.headers["authorization"] == f"Bearer {CANARY}"
    soon = datetime.now(UTC).date() + timedelta(days=9)
    assert lines[0].startswith("ok     live: GET http://host/v1/models: the key works (")
    assert "request id req_test" in lines[0]
    assert lines[1:4] == [
        "ok     live: organization …7766",
        "ok     live: 4 models; for images: gpt-image-2, "
        f"gpt-image-1.5 (until {soon}), dall-e-2 (until 2026-05-12)",
        f"note   live: gpt-image-1.5 will be shut down on {soon}.",
    ]
    assert lines[4].startswith("ok     live: the clock is within ")


def test_shut_down_and_unlisted_models(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails for a model that was shut down, and notes one that is not listed."""
    monkeypatch.setenv("IMGKIT_MODEL", "dall-e-2")
    code, lines, _ = run_live(capfd, list_models_script())
    assert code == 1
    assert "wrong  live: dall-e-2 was shut down on 2026-05-12. Use another model." in lines
    assert "the server needs no key" in lines[0]
    monkeypatch.setenv("IMGKIT_MODEL", "gpt-image-3")
    code, lines, _ = run_live(capfd, list_models_script())
    assert code == 0
    assert any(line.startswith("note   live: gpt-image-3 is not listed.") for line in lines)
    run(["doctor"])
    assert "IMGKIT_MODEL is set without IMGKIT_BACKEND, so calls" in capfd.readouterr().out


FAILURES: list[tuple[Script, int, str]] = [
    (reply(401, {"error": {"message": f"Incorrect: {CANARY}", "code": "invalid_api_key"}}), 1,
     "HTTP 401 Unauthorized, code invalid_api_key"),
    (reply(403, {"error": {"message": "no"}}), 1, "HTTP 403"),
    (reply(404, b""), 0, "HTTP 404"),
    (reply(429, {"error": {"message": "slow"}}, retry_after="9"), 0, "HTTP 429"),
    (reply(429, {"error": {"message": "no", "code": "insufficient_quota"}}), 1, "HTTP 429"),
    (reply(502, b"<html>"), 1, "HTTP 502, request id req_test. No list of models arrived. The request was"),
    (drop, 1, "No complete list of models arrived."),
    (reply(200, b"<html>"), 1, "HTTP 200, but the reply is no list of models"),
    (reply(200, {"data": None}), 1, "HTTP 200, but the reply is no list of models: it has no data"),
    (reply(200, [1]), 1, "HTTP 200, but the reply is no list of models: it has no data"),
    (reply(307, b"", location="https://evil.example/"), 1, "HTTP 307"),
]  # fmt: skip


@pytest.mark.parametrize(("script", "code", "message"), FAILURES)
@pytest.mark.parametrize("backend", ["requests", "aiohttp"])
def test_failures(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    script: Script, code: int, message: str, backend: str,
) -> None:  # fmt: skip
    """Explains each failure in one finding that does not mention billing."""
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    ended, lines, requests = run_live(capfd, script, "--backend", backend)
    assert ended == code
    assert all(one.request_line.startswith("GET ") for one in requests)
    assert lines[0].startswith(f"{'wrong' if code else 'note '}  live: GET http://host/v1/models: {message}")
    assert "billed" not in lines[0]


def test_no_server(capfd: pytest.CaptureFixture[str]) -> None:
    """Fails if no server listens."""
    with WireServer(drop) as server:
        base_url = server.base_url
    assert run(["doctor", "--live", "--base-url", base_url]) == 1
    assert "wrong  live: GET http://127.0.0.1:" in capfd.readouterr().out


@pytest.mark.parametrize("hours", [-1, 1])
def test_clock_skew(capfd: pytest.CaptureFixture[str], hours: int) -> None:
    """Compares the clock with the server's Date, and ignores an invalid one."""
    there = format_datetime(datetime.now(UTC) + timedelta(hours=hours), usegmt=True)
    code, lines, _ = run_live(capfd, reply(200, {"data": []}, date=there))
    assert code == 1
    side = "behind" if hours > 0 else "ahead of"
    assert lines[-1].startswith("wrong  live: The clock is 3")
    assert f" s {side} the server's. Set it." in lines[-1]
    code, lines, _ = run_live(capfd, reply(200, {"data": []}, date="soon"))
    assert code == 0
    assert not any("clock" in line for line in lines)


def test_missing_settings(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Sends nothing without a key, an Azure address or an api-version."""
    began = time.monotonic()
    assert run(["doctor", "--live"]) == 1
    out = capfd.readouterr().out
    assert (
        "wrong  live: Nothing was sent. https://api.openai.com/v1 needs an API key, and OPENAI_API_KEY is "
        "not set. https://platform.openai.com/api-keys has your keys. Set it, pass --api-key-file" in out
    )
    assert run(["doctor", "--live", "--provider", "azure"]) == 1
    assert "Pass --base-url, or set AZURE_OPENAI_ENDPOINT." in capfd.readouterr().out
    monkeypatch.setenv("OPENAI_API_VERSION", "what is this")
    assert run(["doctor", "--provider", "azure"]) == 1
    assert "wrong  provider azure: Invalid api_version (OPENAI_API_VERSION)." in capfd.readouterr().out
    assert run(["doctor", "--live", "--api-key-file", "no-such-file"]) == 2
    assert "Cannot read 'no-such-file'" in capfd.readouterr().err
    assert time.monotonic() - began < 20


def test_live_azure(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Uses the path, the header and the variables of Azure."""
    monkeypatch.setenv("OPENAI_API_VERSION", "2025-04-01-preview")
    (tmp_path / "key").write_text(f"{CANARY}\n")
    (tmp_path / "key").chmod(0o600)
    code, lines, (request,) = run_live(
        capfd, list_models_script(), "--provider", "azure", "--api-key-file", str(tmp_path / "key"), path=""
    )
    assert code == 0
    assert request.request_line == "GET /openai/models?api-version=2025-04-01-preview HTTP/1.1"
    assert request.headers["api-key"] == CANARY
    assert lines[0].startswith("ok     live: GET http://host/openai/models?…: the key works")


# With --provider

CREDITS = reply(200, {"credits": 1000.0})
DOORS: dict[str, tuple[dict[str, str], str, str, str, Script]] = {
    "openai": (
        {"OPENAI_API_KEY": CANARY, "OPENAI_BASE_URL": "{origin}/v1"},
        "/v1/models", "authorization", f"Bearer {CANARY}", reply(200, {"data": []}),
    ),
    "azure": (
        {"AZURE_OPENAI_API_KEY": CANARY, "AZURE_OPENAI_ENDPOINT": "{origin}",
         "OPENAI_API_VERSION": "2025-04-01-preview"},
        "/openai/models?api-version=2025-04-01-preview", "api-key", CANARY, reply(200, {"data": []}),
    ),
    "gemini": (
        {"GEMINI_API_KEY": CANARY, "GOOGLE_GEMINI_BASE_URL": "{origin}"},
        "/v1/models?pageSize=1000", "x-goog-api-key", CANARY, reply(200, {"models": []}),
    ),
    "bfl": (
        {"BFL_API_KEY": CANARY, "BFL_BASE_URL": "{origin}"}, "/v1/credits", "x-key", CANARY, CREDITS,
    ),
    "comfyui": (
        {"COMFYUI_API_KEY": CANARY, "COMFYUI_BASE_URL": "{origin}"},
        "/system_stats", "authorization", f"Bearer {CANARY}", reply(200, {"system": {}}),
    ),
    "a1111": (
        {"A1111_AUTH": f"user:{CANARY}", "A1111_BASE_URL": "{origin}"},
        "/sdapi/v1/sd-models", "authorization", "Basic ", reply(200, []),
    ),
    "stability": (
        {"STABILITY_API_KEY": CANARY, "STABILITY_BASE_URL": "{origin}"},
        "/v1/user/balance", "authorization", f"Bearer {CANARY}", reply(200, {"credits": 3.5}),
    ),
    "fal": ({"FAL_KEY": CANARY, "FAL_BASE_URL": "{origin}"}, "/", "authorization", "", reply(404, b"")),
}  # fmt: skip


@pytest.mark.parametrize("provider", DOORS)
def test_named_provider(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, provider: str
) -> None:
    """Sends one free GET: to the list of models, to another that tries the key, or without the key."""
    variables, path, header, value, script = DOORS[provider]
    with WireServer(script) as server:
        for name, text in variables.items():
            monkeypatch.setenv(name, text.format(origin=server.origin))
        assert run(["doctor", "--provider", provider]) == 0
        lines = capfd.readouterr().out.splitlines()
        (request,) = server.lines
    assert request.request_line == f"GET {path} HTTP/1.1"
    assert CANARY not in "".join(lines)
    variable = next(iter(variables))
    assert any(line.startswith(f"ok     API key: {variable} is set (…") for line in lines)
    (live, *_) = [line for line in lines if "  live: " in line]
    if value:
        assert request.headers[header].startswith(value)
        assert ": the key works (" in live
    else:
        assert header not in request.headers
        assert "the host answers (HTTP 404, " in live
        assert live.endswith("The key was not sent: fal has no free request that tries it.")


def test_named_provider_refuses_the_key(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names the page of the provider that has the keys, for a refused key and for a missing one."""
    monkeypatch.setenv("BFL_API_KEY", CANARY)
    with WireServer(reply(401, {"detail": "Not authenticated"})) as server:
        assert run(["doctor", "--provider", "bfl", "--base-url", server.origin]) == 1
    (live,) = [line for line in capfd.readouterr().out.splitlines() if "  live: " in line]
    assert live.endswith(" https://dashboard.bfl.ai has your keys.")
    monkeypatch.delenv("BFL_API_KEY")
    assert run(["doctor", "--provider", "bfl"]) == 1
    out = capfd.readouterr().out
    assert "note   API key: BFL_API_KEY is not set. Set it, or pass --api-key-file FILE to a call. " in out
    assert "wrong  live: Nothing was sent. https://api.bfl.ai needs an API key, and BFL_API_KEY is not" in out
    assert out.count("https://dashboard.bfl.ai has your keys.") == 2


def test_named_provider_answers_with_a_page(capfd: pytest.CaptureFixture[str]) -> None:
    """Fails for a web page in place of the API; a gateway that fails is a note where no key is tried."""
    with WireServer(reply(200, b"<html>"), reply(502, b"<html>")) as server:
        assert run(["doctor", "--provider", "comfyui", "--base-url", server.origin]) == 1
        assert "but the reply is no reply of the API: " in capfd.readouterr().out
        assert run(["doctor", "--provider", "fal", "--base-url", server.origin]) == 0
        assert "note   live: GET http://127.0.0.1" in capfd.readouterr().out
        assert server.posts == 0


def test_named_provider_stays_offline(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sends nothing with the offline backend; notes a key that has the form of another."""
    monkeypatch.setenv("OPENAI_API_KEY", "fal-0123456789abcdef")
    assert run(["doctor", "--provider", "openai", "--backend", "offline"]) == 0
    assert "live:" not in capfd.readouterr().out
    monkeypatch.setenv("IMGKIT_BACKEND", "requests")
    assert run(["doctor"]) == 0
    out = capfd.readouterr().out
    assert "note   API key: OPENAI_API_KEY does not look like sk-…. Check that it is whole." in out
