"""The command `imgkit serve`: a server with OpenAI's Images API."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import signal
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from imgkit.cassettes.reader import list_cassettes
from imgkit.cli import console, exit_codes, values
from imgkit.cli.messages import to_options
from imgkit.errors import ConfigurationError
from imgkit.files import write_atomically
from imgkit.server.image_server import ImageServer, StopReport
from imgkit.server.served_service import ServedService
from imgkit.server.settings import TOKEN_VARIABLE, ServerSettings, parse_routes
from imgkit.server.silent_clients import raise_file_limit

COLLECT_AFTER = 5_000
"""New objects after which the garbage collector looks for cycles. A call leaves almost none."""


def run_server(
    *,
    host: str,
    port: int,
    ready_file: str | None,
    routes: tuple[str, ...],
    model: str | None,
    cache: str | None,
    record: str | None,
    replay: str | None,
    token: str | None,
    hosts: tuple[str, ...],
    origins: tuple[str, ...],
    max_body_bytes: int,
    no_prompts: bool,
    per_minute: float | None,
    in_flight: int,
    stop_s: float,
    max_cost_usd: str | None,
    price_per_image: str | None,
    allow_unknown_price: bool,
    api_key_file: str | None,
    state: values.RunState,
    **given: Any,
) -> int:
    """Serve until a signal comes.

    Returns:
        0 if all requests ended, 9 if some did not.

    Raises:
        ConfigurationError: an option is wrong, or the port is in use.
    """
    token = token if token is not None else os.environ.get(TOKEN_VARIABLE) or None
    if token is not None:
        state.secrets.append(token)
    settings = ServerSettings(
        host=host,
        port=port,
        token=token,
        hosts=hosts,
        origins=origins,
        routes=parse_routes(routes),
        in_flight=in_flight,
        per_minute=per_minute,
        cache=cache,
        has_prompts=not no_prompts,
        max_body_bytes=max_body_bytes,
        stop_s=stop_s,
    )
    settings.check()
    arguments = {name: value for name, value in given.items() if value is not None}
    offline = values.take_offline_options(arguments, arguments.get("backend"))
    if offline:
        arguments["client_options"] = offline
    arguments["state_folder"] = values.find_state_folder(arguments.get("state_folder"))
    if replay is not None:
        _check_replay(Path(replay), record, arguments.get("backend"))
        arguments |= {"backend": "offline", "fixtures": replay}
    if (arguments.get("backend") or os.environ.get("IMGKIT_BACKEND", "").strip()) == "aiohttp":
        # Calls follow each other quickly here, so a connection is hardly ever idle.
        arguments.setdefault("reuse_connections", True)
    if model is not None:
        arguments["model"] = model
    if api_key_file is not None:
        arguments["api_key"] = values.read_key(api_key_file)
        state.secrets.append(arguments["api_key"])
    budget = values.build_budget(max_cost_usd, price_per_image, allow_unknown_price)
    plugins: list[object] = [budget] if budget is not None else []
    if cache is not None:
        plugins.append("cache")
    if record is not None:
        from imgkit.default_plugins.recorder import RecorderPlugin

        _check_cassette(Path(record))
        plugins.append(RecorderPlugin(record))
    raise_file_limit()

    async def serve() -> int:
        service = ServedService(**arguments, plugins=plugins)
        mode = "replay" if replay is not None else "live" if service.may_cost else "offline"
        modes = {"mode": mode, "cache": cache is not None, "record": record is not None}
        server = ImageServer(service, settings, budget=budget, modes=modes, warn=_print_warning)
        try:
            address = await server.start()
        except BaseException:
            await service.close()
            raise
        _spare_garbage_collector()
        try:
            about = _describe_mode(mode, service.base_url)
            return await _serve_until_signal(server, address, ready_file, about)
        except BaseException:  # also Ctrl-C where the loop takes no signals (Windows)
            await server.stop(0)
            raise

    return asyncio.run(serve())


def _spare_garbage_collector() -> None:
    """Let the garbage collector skip the objects of the start, and look less often.

    Otherwise it goes through all modules again and again: 0.1 ms of a small request with 32 at once.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER)


def _check_replay(replay: Path, record: str | None, backend: object) -> None:
    if record is not None:
        raise ConfigurationError("--record and --replay exclude each other. Give one of them.")
    if backend not in (None, "offline"):
        raise ConfigurationError("--replay sends nothing. Leave out --backend.")
    if not replay.exists():
        raise ConfigurationError(
            f"There is no cassette {str(replay)!r}. Record one with --record, or pass another path to "
            "--replay."
        )
    if replay.is_dir() and next(list_cassettes(replay), None) is None:
        raise ConfigurationError(
            f"The folder {str(replay)!r} has no cassette (*.yaml). Record one with --record, or pass another "
            "path to --replay."
        )


async def _serve_until_signal(server: ImageServer, address: str, ready_file: str | None, about: str) -> int:
    stopped = asyncio.Event()
    now = asyncio.Event()

    def stop() -> None:
        (now if stopped.is_set() else stopped).set()

    loop = asyncio.get_running_loop()
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            with suppress(NotImplementedError, RuntimeError):  # Windows, and tests in a thread
                loop.add_signal_handler(number, stop)
    if ready_file is not None:
        await asyncio.to_thread(_write_ready_file, Path(ready_file), address)
    console.write_text(f"{address}\n")
    if sys.stdout is not None:
        sys.stdout.flush()
    console.print_message(f"imgkit: {about} Base URL: {address}/v1. Page: {address}/. Ctrl-C stops it.")
    for sentence, doubt in server.list_routes():
        console.print_message(f"imgkit: {sentence}")
        if doubt is not None:
            _print_warning(doubt)
    for error in await asyncio.to_thread(server.list_key_errors):
        _print_warning(error.problem)
    if (doubt := server.find_price_doubt()) is not None:
        _print_warning(doubt)
    await stopped.wait()
    running = len(server.running)
    if running:
        console.print_message(
            f"imgkit: Stopping. {running} request{'s' if running > 1 else ''} may end within "
            f"{server.settings.stop_s:g} s. Ctrl-C again stops at once."
        )
    stopping = asyncio.ensure_future(server.stop())
    hurrying = asyncio.ensure_future(now.wait())
    await asyncio.wait([stopping, hurrying], return_when=asyncio.FIRST_COMPLETED)
    if not stopping.done():
        server.hurry()
    hurrying.cancel()
    report = await stopping
    if ready_file is not None:
        Path(ready_file).unlink(missing_ok=True)
    return _print_report(report)


def _write_ready_file(path: Path, address: str) -> None:
    """Write the address to a file. May block.

    Raises:
        ConfigurationError: the file cannot be written.
    """
    try:
        write_atomically(path, f"{address}\n".encode(), mode=0o666, sync=False)
    except OSError as error:
        raise ConfigurationError(
            f"Cannot write {str(path)!r} ({error.strerror or error}). Pass another --ready-file."
        ) from None


def _print_warning(text: str) -> None:
    console.print_message(f"imgkit: warning: {to_options(text)}")


def _check_cassette(path: Path) -> None:
    """Check that a cassette can be written before a request is paid for."""
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            return
    except OSError as error:
        raise ConfigurationError(
            f"Cannot write the cassette {str(path)!r} ({error.strerror or error}). Pass another path to "
            "--record."
        ) from None


def _describe_mode(mode: str, base_url: str) -> str:
    return {
        "offline": "Painting offline: no key, no network, no cost.",
        "replay": "Replaying a cassette: nothing is sent.",
        "live": f"Requests go to {base_url} and may cost money.",
    }[mode]


def _print_report(report: StopReport) -> int:
    for line in report.kept:
        console.print_message(f"imgkit: no client has read this paid image: {line}")
    for facts in report.unfinished:
        console.print_message(
            f"imgkit: not finished: request {facts['id']} ({facts['operation']}, {facts['state']}): "
            f"{facts['error'] or 'no reply came'}"
        )
    if report.listed_in is not None:
        console.print_message(
            f"imgkit: {report.listed_in} lists them. `imgkit recover` and `imgkit jobs wait` collect what "
            "was paid."
        )
    return exit_codes.PARTIAL if report.unfinished else exit_codes.OK
