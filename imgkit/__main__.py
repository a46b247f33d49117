"""The `imgkit` command: what has to work before anything else is known to be installed."""

from __future__ import annotations

import sys

import imgkit
from imgkit.cli import console as streams

NEEDS_CLICK = "the command line needs click: pip install 'imgkit-service[cli]'"


def main() -> int:
    """Run the command line with the arguments of the process, and return its exit code."""
    args = sys.argv[1:]
    try:
        if args[:1] == ["--version"]:
            # A foreign imgkit/__init__.py has no version of ours; `imgkit doctor` says what happened.
            version = getattr(imgkit, "__version__", "of unknown version: run `imgkit doctor`")
            return streams.send_text(f"imgkit {version}\n")
        try:
            import click  # noqa: F401 - only to see whether it is there
        except ImportError:
            streams.tell(f"imgkit: {NEEDS_CLICK}")
            return 2
        from imgkit.cli.run import run

        return run(args)
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
