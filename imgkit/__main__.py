"""Entry point of the `imgkit` command. It runs without click and without a complete installation."""

from __future__ import annotations

import sys

import imgkit
from imgkit.cli import console

CLICK_MISSING = "The command line needs click. Install it with: pip install 'imgkit-service[cli]'"


def main() -> int:
    """Run the command line with the arguments of the process, and return its exit code."""
    args = sys.argv[1:]
    try:
        if args[:1] == ["--version"]:
            # Another package's imgkit/__init__.py has no __version__; `imgkit doctor` reports that.
            version = getattr(imgkit, "__version__", "of unknown version: run `imgkit doctor`")
            return console.write_text(f"imgkit {version}\n")
        try:
            import click  # noqa: F401 - only tests that it is installed
        except ImportError:
            console.print_message(f"imgkit: {CLICK_MISSING}")
            return 2
        from imgkit.cli.run import run

        return run(args)
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
