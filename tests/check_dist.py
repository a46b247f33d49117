"""Check a built sdist and wheel from outside: `make dist-check` runs this with the standard library alone.

The suite runs from the unpacked sdist, in the environment that its Makefile makes there. mypy and pyright
read `typing_api.py` in an environment that holds only the wheel and its dependencies.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

PYRIGHT = {"typeCheckingMode": "strict", "reportUnnecessaryTypeIgnoreComment": "error"}


def run(*command: str | Path, folder: Path) -> None:
    """Run a command in a folder, without settings that lead back to the source tree.

    Raises:
        CalledProcessError: the command failed.
    """
    sys.stdout.write(f"$ {' '.join(map(str, command))}\n")
    sys.stdout.flush()
    foreign = ("MAKE", "MFLAGS", "PYTHON", "VIRTUAL_ENV", "GIT_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    subprocess.run(list(map(str, command)), check=True, cwd=folder, env=environment)


def check_sdist(sdist: Path, folder: Path, *settings: str) -> None:
    """Unpack the sdist into the folder and run its tests there.

    Args:
        sdist: the archive.
        folder: an empty folder outside of any repository.
        settings: variables of make, such as "WORKERS=2".
    """
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    (source,) = folder.iterdir()
    run("make", "pytest", f"PYTHON={sys.executable}", *settings, folder=source)


def check_types(wheel: Path, folder: Path) -> None:
    """Install the wheel into a new environment and check a file that uses its types."""
    run(sys.executable, "-m", "venv", folder / "venv", folder=folder)
    python = folder / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
    pip = (python, "-m", "pip", "--quiet", "--disable-pip-version-check")
    run(*pip, "install", wheel, "mypy", "pyright", folder=folder)
    shutil.copy(Path(__file__).with_name("typing_api.py"), folder)
    (folder / "pyrightconfig.json").write_text(json.dumps(PYRIGHT), "utf-8")
    run(python, "-m", "mypy", "--strict", "typing_api.py", folder=folder)
    run(python, "-m", "pyright", "--pythonpath", python, "typing_api.py", folder=folder)


def main(dist: Path, *settings: str) -> None:
    """Check the sdist and the wheel in a folder; see `check_sdist` for the settings."""
    (sdist,), (wheel,) = dist.glob("*.tar.gz"), dist.glob("*.whl")
    with tempfile.TemporaryDirectory() as types, tempfile.TemporaryDirectory() as source:
        check_types(wheel.resolve(), Path(types))
        check_sdist(sdist.resolve(), Path(source), *settings)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
