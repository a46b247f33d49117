"""Installed distributions with plugins: only the files that `importlib.metadata` reads."""

from __future__ import annotations

from pathlib import Path

GOOD = """
import imgkit

@imgkit.hookimpl
def imgkit_prepare(request):
    from dataclasses import replace
    return replace(request, prompt=request.prompt + ", by {name}")
"""

BACKEND = """
import json
from imgkit import hookimpl
from imgkit.plugins.hookspecs import BackendSpec, PluginSpec
from imgkit.wire.messages import Head

PIXEL = ("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg==")

class Reply:
    def __init__(self):
        self.head = Head(200, {{}})
        self._chunks = [json.dumps({{"data": [{{"b64_json": PIXEL}}]}}).encode(), b""]

    def read(self):
        return self._chunks.pop(0)

    def close(self): ...

class Memory:
    wire_errors, unsent_errors = (OSError,), ()

    def __init__(self, options): ...

    def open(self, request, transfer):
        return Reply()

    def close(self): ...

class Style:
    @hookimpl
    def imgkit_prepare(self, request): ...

@hookimpl
def imgkit_backends():
    return [BackendSpec(name="{name}-memory", target="{module}:Memory", flavor="sync", reaches_network=False)]

@hookimpl
def imgkit_plugins():
    return [PluginSpec(name="{name}-style", target="{module}:Style")]
"""


def install(
    folder: Path, name: str, source: str = GOOD, *, distribution: str = "", version: str = "1.2"
) -> Path:
    """Install a distribution with a plugin of a single module; return the folder for PYTHONPATH.

    Args:
        folder: Folder of installed distributions.
        name: Name of the entry point.
        source: Text of the module; ``{name}`` and ``{module}`` are replaced.
        distribution: Name of the distribution; ``imgkit-NAME`` by default.
        version: Version of the distribution.
    """
    distribution = distribution or f"imgkit-{name}"
    module = distribution.replace("-", "_")
    info = folder / f"{module}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(f"[imgkit]\n{name} = {module}\n")
    (folder / f"{module}.py").write_text(source.format(name=name, module=module))
    return folder
