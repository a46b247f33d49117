"""Build imgkit and the example packages, install them into a fresh environment, and run their tests there.

The environment holds the built wheels and their dependencies only, so the tests cannot import from the source
tree. Users get the same.
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
    "app-with-base-url": "imgkit-stickers",
}
"""The folder of each example, and the name of its distribution."""


def run(*command, **options):
    print("$", *command[:1], *map(str, command[1:]), flush=True)
    subprocess.run([str(argument) for argument in command], check=True, **options)


def main():
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        wheels, environment = folder / "wheelhouse", folder / "venv"
        pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
        sources = [ROOT, *(ROOT / "examples" / name for name in PACKAGES)]
        run(*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", wheels, *sources)
        venv.create(environment, with_pip=False)
        python = environment / ("Scripts" if os.name == "nt" else "bin") / "python"
        requirements = [f"{distribution}[testing]" for distribution in PACKAGES.values()]
        run(*pip, "--python", python, "install", "--find-links", wheels, "pytest-xdist", *requirements)
        imgkit = python.with_name("imgkit")
        listing = subprocess.run(
            [imgkit, "plugins", "--load"], check=True, capture_output=True, text=True
        ).stdout
        print(listing, flush=True)
        assert "imgkit_backends" in listing
        assert "imgkit_commands" in listing
        # Run outside the source tree: only installed packages can be imported there.
        for name in PACKAGES:
            tests = ROOT / "examples" / name / "tests"
            config = ROOT / "examples" / name / "pyproject.toml"
            options = ("-q", "-n", "2", "-c", config, "--rootdir", folder, "-p", "no:cacheprovider")
            run(python, "-m", "pytest", *options, tests, cwd=folder)


if __name__ == "__main__":
    main()
