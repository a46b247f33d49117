"""Build imgkit and the example packages, install them into a fresh environment, and run their suites there.

What strangers will do, done by the project itself: wheels into a wheelhouse, an environment that has nothing
else, no imports from the source tree.
"""

import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = {
    "imgkit-httpx": "imgkit-httpx",
    "imgkit-watermark": "imgkit-watermark",
    "testing-an-app": "imgkit-posters",
}
"""Folders, and the distributions that are made of them."""


def run(*command, **more):
    print("$", *command[:1], *(str(one) for one in command[1:]), flush=True)
    subprocess.run([str(one) for one in command], check=True, **more)


def main():
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wheels, home = folder / "wheelhouse", folder / "venv"
        pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
        sources = [ROOT, *(ROOT / "examples" / one for one in PACKAGES)]
        run(*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", wheels, *sources)
        venv.create(home, with_pip=False)
        python = home / ("Scripts" if os.name == "nt" else "bin") / "python"
        wanted = [f"{one}[testing]" for one in PACKAGES.values()]
        run(*pip, "--python", python, "install", "--find-links", wheels, "pytest-xdist", *wanted)
        imgkit = python.with_name("imgkit")
        listed = subprocess.run(
            [imgkit, "plugins", "--load"], check=True, capture_output=True, text=True
        ).stdout
        print(listed, flush=True)
        assert "imgkit_backends" in listed
        assert "imgkit_commands" in listed
        for one in PACKAGES:  # away from the sources, so that only what is installed can be imported
            tests = ROOT / "examples" / one / "tests"
            config = ROOT / "examples" / one / "pyproject.toml"
            options = ("-q", "-n", "2", "-c", config, "--rootdir", folder, "-p", "no:cacheprovider")
            run(python, "-m", "pytest", *options, tests, cwd=folder)


if __name__ == "__main__":
    main()
