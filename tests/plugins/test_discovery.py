"""Installed plugins: found without being imported, loaded once, left out if blocked or broken."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.cli.support import environment
from tests.support.plugin_packages import BACKEND, GOOD, install

MAKE = "s = imgkit.ImageService(retry=False); "
ABOUT = MAKE + "print(s.create_image('a fox', size='64x64')[0].about['prompt'])"


def python(program: str, folder: Path, env: Mapping[str, str] | None = None, *flags: str) -> tuple[str, str]:
    """Run a program that must succeed, in a process where `folder` is installed; return what it wrote."""
    done = subprocess.run(
        [sys.executable, *flags, "-c", f"import sys, imgkit; {program}"],
        env=environment(PYTHONPATH=str(folder), **(env or {})),
        capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip(), done.stderr.strip()


CATCH = """
try:
    {}
except imgkit.ConfigurationError as error:
    whose = [getattr(error, name, '') for name in ('plugin', 'distribution')]
    print(type(error).__name__, *whose, error, sep='|')
"""


def refusal(expression: str, folder: Path, env: Mapping[str, str] | None = None) -> list[str]:
    """Return class, plugin, distribution and text of the error of an expression."""
    program = CATCH.format(expression)
    return [part.strip() for part in python(f"exec({program!r})", folder, env)[0].split("|", 3)]


def test_importing_imgkit_finds_nothing(tmp_path: Path) -> None:
    """Neither `import imgkit` nor --version looks for plugins; a service imports what is installed."""
    install(tmp_path, "acme")
    seen = "print('imgkit_acme' in sys.modules, 'imgkit.plugins.discovery' in sys.modules)"
    assert python(seen, tmp_path)[0] == "False False"
    version = "sys.argv = ['imgkit', '--version']; from imgkit.__main__ import main; main(); "
    assert python(version + seen, tmp_path)[0].endswith("False False")
    help_ = "sys.argv = ['imgkit', '--help']; from imgkit.__main__ import main; main(); "
    assert python(help_ + seen, tmp_path)[0].endswith("False False")
    assert python(MAKE + seen, tmp_path)[0] == "True True"


def test_an_installed_plugin_works(tmp_path: Path) -> None:
    """What is installed is at work in every service without a word, once, and without a warning."""
    install(tmp_path, "acme")
    assert python(ABOUT, tmp_path, None, "-W", "error") == ("a fox, by acme", "")


@pytest.mark.parametrize(("env", "prompt"), [
    ({"IMGKIT_PLUGINS": "acme"}, "a fox, by acme"),
    ({"IMGKIT_PLUGINS": " zeta , acme "}, "a fox, by acme, by zeta"),
    ({"IMGKIT_PLUGINS": ""}, "a fox"),
    ({"IMGKIT_BLOCK_PLUGINS": "acme"}, "a fox, by zeta"),
    ({"IMGKIT_BLOCK_PLUGINS": ""}, "a fox, by acme, by zeta"),
    ({"IMGKIT_BLOCK_PLUGINS": "Imgkit_Acme:acme,other:zeta"}, "a fox, by zeta"),
    ({"IMGKIT_PLUGINS": "acme,zeta", "IMGKIT_BLOCK_PLUGINS": "zeta"}, "a fox, by acme"),
])  # fmt: skip
def test_allowed_and_blocked(env: dict[str, str], prompt: str, tmp_path: Path) -> None:
    """The two variables say what is imported; what they leave out is not even imported."""
    install(install(tmp_path, "acme"), "zeta")
    program = ABOUT + "; print(*(n for n in ('imgkit_acme', 'imgkit_zeta') if n in sys.modules))"
    shown, imported = (python(program, tmp_path, env)[0] + "\n").splitlines()[:2] if prompt != "a fox" else (
        python(program, tmp_path, env)[0], "")  # fmt: skip
    assert shown == prompt
    assert imported.split() == [f"imgkit_{n}" for n in ("acme", "zeta") if f"by {n}" in prompt]


def test_unknown_names_in_the_switches_are_warned_of_once(tmp_path: Path) -> None:
    """A machine may lack a plugin that a list names: one warning, however many services."""
    install(tmp_path, "acme")
    env = {"IMGKIT_PLUGINS": "acme,acmee", "IMGKIT_BLOCK_PLUGINS": "gone"}
    told = python(MAKE * 3, tmp_path, env, "-W", "always")[1]
    assert told.count("IMGKIT_PLUGINS names what is not installed here: acmee") == 1
    assert told.count("IMGKIT_BLOCK_PLUGINS names what is not installed here: gone") == 1


BROKEN = {
    "raises": ("raise RuntimeError('no licence')", "RuntimeError: no licence"),
    "exits": ("import sys; sys.exit('bye')", "SystemExit: bye"),
    "lacks": ("import no_such_library", "ModuleNotFoundError: No module named 'no_such_library'"),
    "misspelt": (GOOD.replace("imgkit_prepare", "imgkit_prepair"), "there is no hook 'imgkit_prepair'"),
    "coroutine": (GOOD.replace("def ", "async def "), "imgkit_prepare is a coroutine"),
    "argument": (GOOD.replace("(request)", "(request, flavor)"), "flavor"),
    "collecting": (
        "import imgkit\n@imgkit.hookimpl\ndef imgkit_backends():\n    return [7]\n",
        "returned a int instead of a BackendSpec",
    ),
    "taken": (
        BACKEND.replace("{name}-memory", "requests"), "it offers the backend 'requests', which imgkit has",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_plugin_takes_nothing_down(case: str, tmp_path: Path) -> None:
    """Whatever a plugin does at import, others work; one warning names it, and asking for it says why."""
    source, reason = BROKEN[case]
    install(install(tmp_path, "acme", source), "zeta")
    shown, told = python(ABOUT, tmp_path, None, "-W", "always")
    assert shown == "a fox, by zeta"
    assert told.count("PluginWarning: plugin 'acme' (imgkit-acme 1.2) is left out: ") == 1
    assert reason in told
    for wanted in ("backend='acme'", "provider='acme'", "plugins=['acme']"):
        kind, plugin, distribution, text = refusal(f"imgkit.ImageService({wanted})", tmp_path)
        assert (kind, plugin, distribution) == ("PluginError", "acme", "imgkit-acme")
        assert text.startswith("plugin 'acme' (imgkit-acme 1.2) is broken: ")
        assert reason in text


def test_an_unknown_backend_may_be_that_of_a_broken_plugin(tmp_path: Path) -> None:
    """The error for an unknown name says which plugins are not at work, since one may offer it."""
    install(tmp_path, "acme", "raise RuntimeError('no licence')")
    kind, *_, text = refusal("imgkit.ImageService('acme-memory')", tmp_path)
    assert kind == "UnknownBackendError"
    assert "plugin 'acme' (imgkit-acme 1.2) is broken (RuntimeError: no licence)" in text


def test_a_blocked_plugin_that_is_asked_for(tmp_path: Path) -> None:
    """The error for a blocked plugin names the variable that blocks it."""
    install(tmp_path, "acme")
    env = {"IMGKIT_BLOCK_PLUGINS": "acme"}
    assert refusal("imgkit.ImageService(plugins=['acme'])", tmp_path, env) == [
        "PluginError", "acme", "imgkit-acme",
        "plugin 'acme' (imgkit-acme 1.2) is blocked: by IMGKIT_BLOCK_PLUGINS",
    ]  # fmt: skip


def test_two_of_one_name(tmp_path: Path) -> None:
    """Two entry points of one name are both left out; the error names both, and its way out works."""
    for number in ("one", "two"):
        install(tmp_path, "acme", GOOD.replace("{name}", number), distribution=f"acme-{number}")
    install(tmp_path, "zeta")
    assert python(ABOUT, tmp_path)[0] == "a fox, by zeta"
    kind, plugin, _, text = refusal("imgkit.ImageService(plugins=['acme'])", tmp_path)
    assert (kind, plugin) == ("PluginError", "acme")
    assert "acme-one 1.2 and acme-two 1.2" in text
    variable, _, item = text.rpartition("block one with ")[2].partition("=")
    assert python(ABOUT, tmp_path, {variable: item})[0] == "a fox, by one, by zeta"


def test_two_that_offer_the_same(tmp_path: Path) -> None:
    """Two plugins that offer backends of one name are both left out, and the error names both."""
    for name in ("acme", "zeta"):
        install(tmp_path, name, BACKEND.replace("{name}-memory", "memory"))
    kind, *_, text = refusal("imgkit.ImageService('memory')", tmp_path)
    assert kind == "UnknownBackendError"
    assert "plugin 'acme' (imgkit-acme 1.2) and plugin 'zeta' (imgkit-zeta 1.2) both offer" in text
    used = "print(imgkit.ImageService('memory').create_image('a fox').meta.backend)"
    assert python(used, tmp_path, {"IMGKIT_BLOCK_PLUGINS": "zeta"})[0] == "memory"


def test_backends_and_plugins_by_name(tmp_path: Path) -> None:
    """A backend of an installed plugin answers a call, and a plugin that it offers is given by name."""
    install(tmp_path, "acme", BACKEND)
    program = (
        "s = imgkit.ImageService('acme-memory', plugins=['acme-style', 'logging']); "
        "r = s.create_image('a fox'); print(r.meta.backend, len(r), *list(s.plugins)[:3])"
    )
    assert python(program, tmp_path)[0] == "acme-memory 1 acme-style logging acme"
    kind, *_, text = refusal("imgkit.ImageService(plugins=['acme-stile'])", tmp_path)
    assert kind == "UnknownPluginError"
    assert "did you mean 'acme-style'?" in text
    assert "Available: acme-style, cache, logging, recorder, retry, telemetry." in text


def test_a_hook_that_fails_names_the_distribution(tmp_path: Path) -> None:
    """The error of a failing hook says which distribution to mend or block."""
    install(tmp_path, "acme", GOOD.replace("from dataclasses", "1 / 0; from dataclasses"))
    kind, plugin, distribution, text = refusal("imgkit.ImageService().create_image('a fox')", tmp_path)
    assert (kind, plugin, distribution) == ("PluginError", "acme", "imgkit-acme")
    assert "plugin 'acme' (imgkit-acme 1.2) failed in imgkit_prepare (ZeroDivisionError" in text
    assert "IMGKIT_BLOCK_PLUGINS=acme" in text


def test_many_threads_load_once(tmp_path: Path) -> None:
    """Twenty services built at once in threads import each plugin once, and all have it."""
    install(tmp_path, "acme", "import time; time.sleep(0.2); print('imported')" + GOOD)
    program = (
        "from concurrent.futures import ThreadPoolExecutor as P; imgkit.ImageService; "
        "made = list(P(20).map(lambda i: imgkit.ImageService(), range(20))); "
        "print(sum('acme' in one.plugins for one in made))"
    )
    assert python(program, tmp_path)[0] == "imported\n20"


def test_a_plugin_that_builds_a_service_at_import(tmp_path: Path) -> None:
    """It gets a service without installed plugins, instead of a deadlock."""
    install(tmp_path, "acme", GOOD + "\nprint('acme' in imgkit.ImageService().plugins)")
    assert python(ABOUT, tmp_path)[0] == "False\na fox, by acme"


def test_a_damaged_installation(tmp_path: Path) -> None:
    """Entry points that cannot be read cost a warning, and no service."""
    install(tmp_path, "acme")
    (tmp_path / "imgkit_acme-1.2.dist-info" / "entry_points.txt").write_bytes(b"[imgkit]\n\xff\xfe = x\n")
    shown, told = python(ABOUT, tmp_path, None, "-W", "always")
    assert shown == "a fox"
    assert told.count("the installed plugins cannot be found out (UnicodeDecodeError") == 1


def test_a_plugin_may_offer_its_own_name(tmp_path: Path) -> None:
    """A distribution may offer a plugin under the name of its entry point; twice is still refused."""
    source = BACKEND.replace('PluginSpec(name="{name}-style"', 'PluginSpec(name="{name}"')
    install(tmp_path, "acme", source)
    program = "s = imgkit.ImageService(plugins=['acme']); print(*list(s.plugins)[:2])"
    assert python(program, tmp_path)[0] == "acme#2 acme"
    kind, *_, text = refusal("imgkit.ImageService(plugins=['logging', 'logging'])", tmp_path)
    assert kind == "PluginError"
    assert "name it once" in text
