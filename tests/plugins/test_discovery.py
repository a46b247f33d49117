"""Installed plugins: found without an import, loaded once, skipped if blocked or broken."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.cli.support import build_environment
from tests.support.plugin_packages import BACKEND, GOOD, install
from tests.support.processes import run_process

MAKE = "s = imgkit.ImageService(retry=False); "
ABOUT = MAKE + "print(s.create_image('a fox', size='64x64')[0].about['prompt'])"


def run_python(
    program: str, folder: Path, env: Mapping[str, str] | None = None, *flags: str
) -> tuple[str, str]:
    """Run a program that must succeed with the plugins in `folder`; return its stdout and stderr."""
    done = run_process(
        [sys.executable, *flags, "-c", f"import sys, imgkit; {program}"],
        env=build_environment(PYTHONPATH=str(folder), **(env or {})),
        capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip(), done.stderr.strip()


CATCH = """
for expression in {}:
    try:
        eval(expression)
    except imgkit.ConfigurationError as error:
        origin = [getattr(error, name, '') for name in ('plugin', 'distribution')]
        print(type(error).__name__, *origin, error, sep='|')
"""


def list_errors(
    expressions: list[str], folder: Path, env: Mapping[str, str] | None = None
) -> list[list[str]]:
    """Return class, plugin, distribution and text of the error that each expression raises."""
    program = CATCH.format(expressions)
    lines = run_python(f"exec({program!r})", folder, env)[0].splitlines()
    assert len(lines) == len(expressions)
    return [[part.strip() for part in line.split("|", 3)] for line in lines]


def find_error(expression: str, folder: Path, env: Mapping[str, str] | None = None) -> list[str]:
    """Return class, plugin, distribution and text of the error that an expression raises."""
    return list_errors([expression], folder, env)[0]


def test_importing_imgkit_imports_no_plugin(tmp_path: Path) -> None:
    """Importing imgkit, --version and --help load no plugin; building a service does."""
    install(tmp_path, "acme")
    seen = "print('imgkit_acme' in sys.modules, 'imgkit.plugins.discovery' in sys.modules)"
    assert run_python(seen, tmp_path)[0] == "False False"
    version = "sys.argv = ['imgkit', '--version']; from imgkit.__main__ import main; main(); "
    assert run_python(version + seen, tmp_path)[0].endswith("False False")
    help_ = "sys.argv = ['imgkit', '--help']; from imgkit.__main__ import main; main(); "
    assert run_python(help_ + seen, tmp_path)[0].endswith("False False")
    assert run_python(MAKE + seen, tmp_path)[0] == "True True"


def test_an_installed_plugin_works(tmp_path: Path) -> None:
    """An installed plugin works in every service, once and without a warning."""
    install(tmp_path, "acme")
    assert run_python(ABOUT, tmp_path, None, "-W", "error") == ("a fox, by acme", "")


@pytest.mark.parametrize(("env", "prompt"), [
    ({"IMGKIT_PLUGINS": "acme"}, "a fox, by acme"),
    ({"IMGKIT_PLUGINS": " zeta , acme "}, "a fox, by acme, by zeta"),
    ({"IMGKIT_PLUGINS": ""}, "a fox"),
    ({"IMGKIT_BLOCK_PLUGINS": "acme"}, "a fox, by zeta"),
    ({"IMGKIT_BLOCK_PLUGINS": ""}, "a fox, by acme, by zeta"),
    ({"IMGKIT_BLOCK_PLUGINS": "Imgkit_Acme:acme,other:zeta"}, "a fox, by zeta"),
    ({"IMGKIT_PLUGINS": "acme,zeta", "IMGKIT_BLOCK_PLUGINS": "zeta"}, "a fox, by acme"),
])  # fmt: skip
def test_allowed_and_blocked_plugins(env: dict[str, str], prompt: str, tmp_path: Path) -> None:
    """The two variables select the plugins; other plugins are not even imported."""
    install(install(tmp_path, "acme"), "zeta")
    program = ABOUT + "; print(*(n for n in ('imgkit_acme', 'imgkit_zeta') if n in sys.modules))"
    output, *imported = run_python(program, tmp_path, env)[0].splitlines()
    assert output == prompt
    assert " ".join(imported).split() == [f"imgkit_{n}" for n in ("acme", "zeta") if f"by {n}" in prompt]


def test_unknown_names_in_the_variables_warn_once(tmp_path: Path) -> None:
    """Warns once of plugin names in the variables that are not installed, however many services."""
    install(tmp_path, "acme")
    env = {"IMGKIT_PLUGINS": "acme,acmee", "IMGKIT_BLOCK_PLUGINS": "gone"}
    warnings = run_python(MAKE * 3, tmp_path, env, "-W", "always")[1]
    assert warnings.count("IMGKIT_PLUGINS names plugins that are not installed: acmee") == 1
    assert warnings.count("IMGKIT_BLOCK_PLUGINS names plugins that are not installed: gone") == 1


BROKEN = {
    "raises": ("raise RuntimeError('no licence')", "RuntimeError: no licence"),
    "exits": ("import sys; sys.exit('bye')", "SystemExit: bye"),
    "lacks": ("import no_such_library", "ModuleNotFoundError: No module named 'no_such_library'"),
    "misspelt": (GOOD.replace("imgkit_prepare", "imgkit_prepair"), "unknown hook 'imgkit_prepair'"),
    "coroutine": (GOOD.replace("def ", "async def "), "imgkit_prepare is a coroutine"),
    "argument": (GOOD.replace("(request)", "(request, flavor)"), "flavor"),
    "collecting": (
        "import imgkit\n@imgkit.hookimpl\ndef imgkit_backends():\n    return [7]\n",
        "returned a int instead of a BackendSpec",
    ),
    "taken": (
        BACKEND.replace("{name}-memory", "requests"),
        "it offers the backend 'requests', which imgkit itself has",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_plugin_is_skipped(case: str, tmp_path: Path) -> None:
    """Skips a broken plugin with one warning that names it; asking for it raises the reason."""
    source, reason = BROKEN[case]
    install(install(tmp_path, "acme", source), "zeta")
    output, warnings = run_python(ABOUT, tmp_path, None, "-W", "always")
    assert output == "a fox, by zeta"
    assert warnings.count("PluginWarning: plugin 'acme' (imgkit-acme 1.2) is left out: ") == 1
    assert reason in warnings
    options = ("backend='acme'", "'offline', provider='acme'", "plugins=['acme']")
    expressions = [f"imgkit.ImageService({option})" for option in options]
    for kind, plugin, distribution, text in list_errors(expressions, tmp_path):
        assert (kind, plugin, distribution) == ("PluginError", "acme", "imgkit-acme")
        assert text.startswith("plugin 'acme' (imgkit-acme 1.2) is broken: ")
        assert reason in text


def test_an_unknown_backend_names_broken_plugins(tmp_path: Path) -> None:
    """The error for an unknown backend names the broken plugins that may provide it."""
    install(tmp_path, "acme", "raise RuntimeError('no licence')")
    kind, *_, text = find_error("imgkit.ImageService('acme-memory')", tmp_path)
    assert kind == "UnknownBackendError"
    assert "plugin 'acme' (imgkit-acme 1.2) is broken (RuntimeError: no licence)" in text


def test_asking_for_a_blocked_plugin(tmp_path: Path) -> None:
    """The error for a blocked plugin names the variable that blocks it."""
    install(tmp_path, "acme")
    env = {"IMGKIT_BLOCK_PLUGINS": "acme"}
    assert find_error("imgkit.ImageService(plugins=['acme'])", tmp_path, env) == [
        "PluginError", "acme", "imgkit-acme",
        "plugin 'acme' (imgkit-acme 1.2) is blocked: by IMGKIT_BLOCK_PLUGINS",
    ]  # fmt: skip


def test_two_plugins_of_one_name(tmp_path: Path) -> None:
    """Skips both plugins of one name; the error names both, and its remedy works."""
    for number in ("one", "two"):
        install(tmp_path, "acme", GOOD.replace("{name}", number), distribution=f"acme-{number}")
    install(tmp_path, "zeta")
    assert run_python(ABOUT, tmp_path)[0] == "a fox, by zeta"
    kind, plugin, _, text = find_error("imgkit.ImageService(plugins=['acme'])", tmp_path)
    assert (kind, plugin) == ("PluginError", "acme")
    assert "acme-one 1.2 and acme-two 1.2" in text
    variable, _, item = text.rpartition("Block one with ")[2].partition("=")
    assert run_python(ABOUT, tmp_path, {variable: item})[0] == "a fox, by one, by zeta"


def test_two_backends_of_one_name(tmp_path: Path) -> None:
    """Skips both plugins that provide a backend of one name, and names both."""
    for name in ("acme", "zeta"):
        install(tmp_path, name, BACKEND.replace("{name}-memory", "memory"))
    kind, *_, text = find_error("imgkit.ImageService('memory')", tmp_path)
    assert kind == "UnknownBackendError"
    assert "plugin 'acme' (imgkit-acme 1.2) and plugin 'zeta' (imgkit-zeta 1.2) both offer" in text
    used = "print(imgkit.ImageService('memory').create_image('a fox').meta.backend)"
    assert run_python(used, tmp_path, {"IMGKIT_BLOCK_PLUGINS": "zeta"})[0] == "memory"


def test_backends_and_plugins_by_name(tmp_path: Path) -> None:
    """Finds backends and plugins of an installed plugin by name."""
    install(tmp_path, "acme", BACKEND)
    program = (
        "s = imgkit.ImageService('acme-memory', plugins=['acme-style', 'logging']); "
        "r = s.create_image('a fox'); print(r.meta.backend, len(r), *list(s.plugins)[:3])"
    )
    assert run_python(program, tmp_path)[0] == "acme-memory 1 acme-style logging acme"
    kind, *_, text = find_error("imgkit.ImageService(plugins=['acme-stile'])", tmp_path)
    assert kind == "UnknownPluginError"
    assert "did you mean 'acme-style'?" in text
    assert "Available: acme-style, cache, logging, recorder, retry, telemetry." in text


def test_a_failing_hook_names_its_distribution(tmp_path: Path) -> None:
    """The error of a failing hook names the distribution to fix or block."""
    install(tmp_path, "acme", GOOD.replace("from dataclasses", "1 / 0; from dataclasses"))
    kind, plugin, distribution, text = find_error("imgkit.ImageService().create_image('a fox')", tmp_path)
    assert (kind, plugin, distribution) == ("PluginError", "acme", "imgkit-acme")
    assert "plugin 'acme' (imgkit-acme 1.2) failed in imgkit_prepare (ZeroDivisionError" in text
    assert "IMGKIT_BLOCK_PLUGINS=acme" in text


def test_threads_load_a_plugin_once(tmp_path: Path) -> None:
    """Twenty threads that build services import each plugin once, and all services have it."""
    install(tmp_path, "acme", "import time; time.sleep(0.05); print('imported')" + GOOD)
    program = (
        "from concurrent.futures import ThreadPoolExecutor as P; imgkit.ImageService; "
        "made = list(P(20).map(lambda i: imgkit.ImageService(), range(20))); "
        "print(sum('acme' in one.plugins for one in made))"
    )
    assert run_python(program, tmp_path) == ("20", "imported")


def test_a_plugin_that_builds_a_service_at_import(tmp_path: Path) -> None:
    """A plugin that builds a service at import gets it without plugins, and no deadlock."""
    install(tmp_path, "acme", GOOD + "\nprint('acme' in imgkit.ImageService().plugins)")
    assert run_python(ABOUT, tmp_path) == ("a fox, by acme", "False")


def test_a_damaged_installation(tmp_path: Path) -> None:
    """Unreadable entry points cost a warning, not the service."""
    install(tmp_path, "acme")
    (tmp_path / "imgkit_acme-1.2.dist-info" / "entry_points.txt").write_bytes(b"[imgkit]\n\xff\xfe = x\n")
    output, warnings = run_python(ABOUT, tmp_path, None, "-W", "always")
    assert output == "a fox"
    assert warnings.count("Cannot list the installed plugins (UnicodeDecodeError") == 1


def test_a_plugin_may_provide_its_own_name(tmp_path: Path) -> None:
    """A distribution may provide a plugin named like its entry point; naming a plugin twice is refused."""
    source = BACKEND.replace('PluginSpec(name="{name}-style"', 'PluginSpec(name="{name}"')
    install(tmp_path, "acme", source)
    program = "s = imgkit.ImageService(plugins=['acme']); print(*list(s.plugins)[:2])"
    assert run_python(program, tmp_path)[0] == "acme#2 acme"
    kind, *_, text = find_error("imgkit.ImageService(plugins=['logging', 'logging'])", tmp_path)
    assert kind == "PluginError"
    assert "Name it once" in text
