"""The start of `imgkit serve`: the refusals with exit code 2 before it answers anybody."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

from imgkit import Budget
from imgkit.cli import exit_codes
from imgkit.cli.run import run
from imgkit.errors import ConfigurationError
from imgkit.server.image_server import ImageServer
from imgkit.server.served_service import ServedService
from imgkit.server.server_files import open_work_folder
from imgkit.server.settings import choose_work_folder, parse_routes
from tests.cli.support import clear_environment
from tests.server.test_modes import PRICED
from tests.support.pictures import answer
from tests.support.processes import start_process
from tests.support.served import GENERATIONS, SETTINGS, send, serve_before, serve_offline
from tests.support.wire_server import Line, WireServer, head


def test_refuses_to_start_with_options_that_cannot_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Says which option is wrong, with exit code 2, no address and no traceback."""
    clear_environment(monkeypatch, tmp_path)
    monkeypatch.setenv("IMGKIT_HOME", str(tmp_path / "state"))
    damaged, file, empty = tmp_path / "damaged.yaml", tmp_path / "file", tmp_path / "empty"
    empty.mkdir()
    damaged.write_text("interactions: [}{")
    file.write_text("")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for options, words in (
            (["--port", str(port)], "is in use"),
            (["--host", "203.0.113.9", "--token", "t"], "Cannot listen on 203.0.113.9"),
            (["--host", "a..b", "--token", "t"], "Cannot listen on a..b"),
            (["--host", "0.0.0.0"], "--token"),
            (["--host", "0.0.0.0", "--token", "a\nb"], "The token"),
            (["--ready-file", str(tmp_path / "none" / "ready")], "--ready-file"),
            (["--ready-file", str(tmp_path)], "--ready-file"),
            (["--state-folder", str(file / "state")], "--state-folder"),
            (["--record", str(file / "cassette.yaml")], "--record"),
            (["--record", str(tmp_path)], "--record"),
            (["--replay", str(tmp_path / "none.yaml")], "There is no cassette"),
            (["--replay", str(tmp_path / "none")], "another path to --replay"),
            (["--replay", str(empty)], "has no cassette"),
            (["--replay", str(damaged)], "is not a cassette"),
            (["--replay", str(damaged), "--record", "x"], "exclude each other"),
            (["--map", "small=opneai:x"], "did you mean 'openai'"),
            (["--map", "small"], "is not a model map"),
            (["--backend", "aiohttp", "--simulate", "429"], "for the offline backend"),
            (["--allow-host", "http://a.example"], "is not a host name"),
            (["--allow-origin", "localhost:3000"], "is not an origin"),
        ):
            code = run(["serve", "--port", "0", *options])
            read = capsys.readouterr()
            assert (code, read.out) == (exit_codes.USAGE, ""), (options, read)
            assert words in read.err, options
            assert "Traceback" not in read.err
            assert "bug" not in read.err


@pytest.mark.parametrize("host", ["999.1.1.1", "nosuch.invalid", "203.0.113.9", "a..b"])
def test_says_that_a_host_is_not_of_this_machine(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Does not ask for a token if no machine could reach the server anyway."""
    ask_system = socket.getaddrinfo

    def find_addresses(name: str | None, *rest: Any, **named: Any) -> list[tuple[Any, ...]]:
        if name in ("999.1.1.1", "nosuch.invalid"):  # the system would ask a name server
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return ask_system(name, *rest, **named)

    monkeypatch.setattr(socket, "getaddrinfo", find_addresses)
    with pytest.raises(ConfigurationError, match=f"^'{host}' is not an address of this machine. "):
        SETTINGS._replace(host=host).check()
    for reachable in ("0.0.0.0", ""):
        with pytest.raises(ConfigurationError, match="^Other machines can reach .* --token"):
            SETTINGS._replace(host=reachable).check()


@pytest.mark.parametrize("word", ["", "=", "a=", "=b", "a=:", "a=:b", "a"])
def test_refuses_a_map_of_another_form(word: str) -> None:
    """Refuses a map without a name or without a target."""
    with pytest.raises(ConfigurationError, match="is not a model map"):
        parse_routes([word])


def test_says_which_keys_are_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists providers without a key at the start, and answers their models with 401; nothing is sent."""
    clear_environment(monkeypatch, tmp_path)
    settings = SETTINGS._replace(routes=parse_routes(["flux=bfl:flux-2-pro"]))

    async def list_errors(backend: str) -> list[str]:
        service = ServedService(
            backend, api_key="sk-x" if backend != "offline" else None, state_folder=tmp_path
        )
        server = ImageServer(service, settings)
        await server.start()
        errors = server.list_key_errors()
        await server.stop(0)
        return [str(error) for error in errors]

    (text,) = asyncio.run(list_errors("aiohttp"))
    assert "BFL_API_KEY" in text
    assert asyncio.run(list_errors("offline")) == []
    with serve_before(tmp_path, settings=settings) as (thread, api):
        got = send(thread, GENERATIONS, {"prompt": "a fox", "model": "flux"})
        assert api.posts == 0
    assert (got.status, got.error["code"], got.headers["x-should-retry"]) == (401, "missing_key", "false")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"model": "flux-dev"}, "The price of 'flux-dev' is not known, so --max-cost refuses its requests."),
        ({}, "No price of a listed model is known, so --max-cost refuses their requests."),
        ({"model": "priced", "models": PRICED}, None),
        ({"models": PRICED}, None),
        ({"model": "flux-dev", "backend": "offline"}, None),
        ({"model": "flux-dev", "routes": parse_routes(["*=priced"]), "models": PRICED}, None),
        ({"routes": parse_routes(["*=flux-dev"]), "models": PRICED}, "The price of 'flux-dev' is not known"),
    ],
)
def test_says_that_a_budget_would_refuse_each_request(
    options: dict[str, Any], words: str | None, tmp_path: Path
) -> None:
    """Warns of the model of requests that name none, or of all models, unless a price is known."""
    settings = SETTINGS._replace(routes=options.pop("routes", {}))

    async def find_doubt(budget: Budget | None) -> str | None:
        given = {"base_url": "http://127.0.0.1:9/v1", "api_key": "sk-x", "backend": "aiohttp", **options}
        if given["backend"] == "offline":
            given = {"backend": "offline"}
        plugins = [] if budget is None else [budget]
        server = ImageServer(ServedService(**given, plugins=plugins, state_folder=tmp_path), settings)
        await server.start()
        doubt = server.find_price_doubt()
        await server.stop(0)
        return doubt

    doubt = asyncio.run(find_doubt(Budget(5)))
    assert (doubt is None) is (words is None)
    if doubt is not None:
        assert doubt.startswith(words or "")
        assert all(name in doubt for name in ("--price-per-image", "--allow-unknown-price", "--models"))
    for budget in (None, Budget(5, allow_unknown=True), Budget(5, price_per_image="0.04")):
        assert asyncio.run(find_doubt(budget)) is None


def test_the_command_warns_of_an_unknown_price(tmp_path: Path) -> None:
    """Warns at the start, in the words of the command line."""
    command = [sys.executable, "-m", "imgkit", "serve", "--port", "0", "--backend", "aiohttp"]
    command += ["--base-url", "http://127.0.0.1:9/v1", "--model", "flux-dev", "--max-cost", "5"]
    child = start_process(
        command,
        env={**os.environ, "IMGKIT_HOME": str(tmp_path), "OPENAI_API_KEY": "sk-x"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert child.stdout is not None
    assert child.stdout.readline()
    child.terminate()
    _, shown = child.communicate(timeout=20)
    assert b"imgkit: warning: The price of 'flux-dev' is not known, so --max-cost refuses" in shown


def test_refuses_a_base_url_of_its_own(tmp_path: Path) -> None:
    """Refuses to send requests to itself, whatever name its base URL has for it; offline sends nothing."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]

    async def start(host: str) -> None:
        service = ServedService(
            "aiohttp", base_url=f"http://{host}:{port}/v1", api_key="sk-x", state_folder=tmp_path
        )
        await ImageServer(service, SETTINGS._replace(port=port)).start()

    for host in ("127.0.0.1", "localhost", "127.0.0.2", "[::1]"):
        with pytest.raises(ConfigurationError, match="is this server itself"):
            asyncio.run(start(host))


def test_the_command_reuses_connections_to_the_api(tmp_path: Path) -> None:
    """Sends calls over one connection, unless an option says otherwise; names the API at the start."""
    body = json.dumps(answer()).encode()

    def serve_until_closed(line: Line) -> None:
        line.send(head(200, {"content-length": str(len(body))}) + body)
        while line.read_request():
            line.send(head(200, {"content-length": str(len(body))}) + body)

    command = [sys.executable, "-m", "imgkit", "serve", "--port", "0", "--backend", "aiohttp"]
    command += ["--model", "gpt-image-2"]
    variables = {"IMGKIT_HOME": str(tmp_path), "OPENAI_API_KEY": "sk-upstream-0123456789abcdef"}
    for options, least, most in (((), 1, 3), (("--new-connections",), 4, 4)):
        with WireServer(serve_until_closed) as api:
            child = start_process(
                [*command, "--base-url", api.base_url, *options],
                env={**os.environ, **variables},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            assert child.stdout is not None
            address = child.stdout.readline().decode().strip()
            for _ in range(4):  # a busy machine may pause for longer than a connection is kept
                request = Request(address + GENERATIONS, b'{"prompt": "a fox"}')
                request.add_header("content-type", "application/json")
                assert len(json.load(urlopen(request, timeout=20))["data"]) == 1
            child.terminate()
            _, shown = child.communicate(timeout=20)
            assert least <= api.accepted <= most
            assert f"imgkit: Requests go to {api.base_url} and may cost money." in shown.decode()


def find_second_address() -> str:
    """Return an address of this machine beside 127.0.0.1: that of IPv6 if the machine has one."""
    with suppress(OSError), socket.create_server(("::1", 0), family=socket.AF_INET6):
        return "::1"
    return "127.0.0.2"


def test_listens_on_all_addresses_of_a_name_with_one_port(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers at each address of a host under the port that it tells, also if the system chooses it."""
    ask_system, addresses = socket.getaddrinfo, ("127.0.0.1", find_second_address())

    def list_addresses(host: str | None, port: int, *rest: Any, **named: Any) -> list[tuple[Any, ...]]:
        names = addresses if host == "localhost" else (host,)
        return [each for name in names for each in ask_system(name, port, *rest, **named)]

    monkeypatch.setattr(socket, "getaddrinfo", list_addresses)
    with serve_offline(tmp_path, SETTINGS._replace(host="localhost")) as server:
        host, _, port = server.address.rpartition(":")
        assert host == "http://localhost"
        for address in addresses:
            with socket.create_connection((address, int(port)), timeout=10):
                pass
        assert send(server, "/healthz").status == 200


def test_servers_that_start_at_the_same_time_leave_each_other_alone(tmp_path: Path) -> None:
    """Gives each its folder, though each removes the folders of servers that have died."""
    for number in range(5):
        with ThreadPoolExecutor(8) as threads:
            opened = list(threads.map(open_work_folder, [tmp_path / str(number)] * 8))
        assert all(folder.is_dir() for folder, _ in opened)
        assert len({folder for folder, _ in opened}) == 8


def find_shared_folder(monkeypatch: pytest.MonkeyPatch, system: Path) -> Path:
    """Return the folder of servers without a state folder, in another folder for temporary files."""
    system.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(system))
    return choose_work_folder(None)


def test_its_folder_in_that_of_the_system_is_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets nobody else enter the folder for temporary files, whether it makes the folder or finds it."""
    shared = find_shared_folder(monkeypatch, tmp_path / "tmp")
    for _ in range(2):
        folder, lock = open_work_folder(None)
        assert folder.parent == shared
        assert [stat.S_IMODE(path.stat().st_mode) for path in (shared, folder)] == [0o700, 0o700]
        lock.release()
        shared.chmod(0o777)


@pytest.mark.parametrize("made", ["folder", "link", "file"])
def test_refuses_a_folder_that_another_user_has_made(
    made: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writes nothing to a folder of somebody else, and deletes nothing behind a link."""
    if made == "folder":
        number = os.getuid() + 1
        monkeypatch.setattr(os, "getuid", lambda: number)
    shared, other = find_shared_folder(monkeypatch, tmp_path / "tmp"), tmp_path / "other"
    (other / "photos").mkdir(parents=True)
    (other / "photos.lock").touch()
    if made == "link":
        shared.symlink_to(other)
    elif made == "folder":
        other.rename(shared)
        other = shared
    else:
        shared.touch()
    with pytest.raises(ConfigurationError, match="is not a folder of this user"):
        open_work_folder(None)
    assert sorted(path.name for path in other.iterdir()) == ["photos", "photos.lock"]


def test_tells_what_routes_mean(tmp_path: Path) -> None:
    """Names the model and the provider of each route, and doubts a model that it does not know."""
    routes = parse_routes(["a=bfl:flux-2-pro", "b=bfl:flux-2-proo", "*=gpt-image-2"])

    async def list_routes() -> list[tuple[str, str | None]]:
        service = ServedService("offline", state_folder=tmp_path)
        server = ImageServer(service, SETTINGS._replace(routes=routes))
        await server.start()
        try:
            return server.list_routes()
        finally:
            await server.stop()

    good, doubtful, other = asyncio.run(list_routes())
    assert good == ("Requests for a go to flux-2-pro of bfl.", None)
    assert "did you mean 'flux-2-pro'" in str(doubtful[1])
    assert other == ("Requests for other models go to gpt-image-2 of openai.", None)
