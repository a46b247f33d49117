"""Benchmarks of starts: imports, the first call, the command."""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.harness import Results, measure_in_fresh_processes, measure_starts
from benchmarks.sides import KEY, MODEL, PROMPT

_CALL = {
    "imgkit": "import imgkit; s = imgkit.ImageService('requests', base_url={url!r}, api_key={key!r},"
    " model={model!r}); s.create_image({prompt!r})[0].data",
    "requests": "import requests, base64; base64.b64decode(requests.post({url!r} + '/images/generations',"
    " json={{'model': {model!r}, 'prompt': {prompt!r}}}, headers={{'authorization': {key!r}}})"
    ".json()['data'][0]['b64_json'])",
    "openai": "import openai, base64; c = openai.OpenAI(base_url={url!r}, api_key={key!r});"
    " base64.b64decode(c.images.generate(prompt={prompt!r}, model={model!r}).data[0].b64_json)",
}


def run(results: Results) -> None:
    python = [sys.executable, "-c"]
    imports = {
        "nothing": [*python, "pass"],
        **{name: [*python, f"import {name}"] for name in ("imgkit", "pluggy", "requests", "openai")},
    }
    results.add("import", "CPU ms", measure_starts(imports, results.rounds(15)))

    settings = {"url": results.url("small"), "key": KEY, "model": MODEL, "prompt": PROMPT}
    calls = {side: [*python, program.format(**settings)] for side, program in _CALL.items()}
    results.add(
        "first call", "CPU ms", measure_starts({"nothing": [*python, "pass"], **calls}, results.rounds(15))
    )

    command = str(Path(sys.executable).with_name("imgkit"))
    commands = {
        "python -c pass": [*python, "pass"],
        "imgkit --version": [command, "--version"],
        "imgkit --help": [command, "--help"],
    }
    results.add("command", "CPU ms", measure_starts(commands, results.rounds(15)))

    sides = ("imgkit", "imgkit, reusing", "requests", "openai")
    results.add(
        "resident after 20 calls",
        "MiB",
        measure_in_fresh_processes("resident", sides, results, results.rounds(5)),
    )
