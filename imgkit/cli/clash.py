"""Another distribution on the package index is called imgkit, and installs into the same folder."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import imgkit

DISTRIBUTION = "imgkit-service"

MEND = f"pip uninstall imgkit, then pip install --force-reinstall {DISTRIBUTION}"

FOREIGN_FILE = "imgkit.py"
"""A module of the wkhtmltoimage wrapper (imgkit 1.2.3 on PyPI) that is none of ours."""


def clashes() -> list[str]:
    """Return what shows that something else owns, or has written to, the package `imgkit`."""
    found = []
    owners = {name.lower().replace("_", "-") for name in metadata.packages_distributions().get("imgkit", ())}
    strangers = sorted(owners - {DISTRIBUTION})
    if strangers:
        found.append(f"the import name imgkit belongs to {', '.join(strangers)} too")
    for folder in getattr(imgkit, "__path__", ()):
        if (Path(folder) / FOREIGN_FILE).exists():
            found.append(f"{Path(folder) / FOREIGN_FILE} is not of {DISTRIBUTION}")
    if "ImageService" not in getattr(imgkit, "__all__", ()):
        found.append("imgkit/__init__.py is missing, or is that of another package")
    return found
