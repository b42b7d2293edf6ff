"""The command line: ``fastact`` and ``python -m fastact``.

Built on click and rich, which come with the extra ``cli``. Nothing of it is imported by
``import fastact``.
"""

import sys

from .exits import USAGE

NEEDED = ("click", "rich")


def main() -> None:
    """Runs the command line, or says in one sentence what it lacks."""
    try:
        import rich  # noqa: F401

        from .app import app
    except ModuleNotFoundError as error:
        name = (error.name or "").partition(".")[0]
        if name not in NEEDED:
            raise
        print(
            f"The command line of fastact needs {name}, which is not installed; "
            "run: pip install 'fastact[cli]'",
            file=sys.stderr,
        )
        sys.exit(USAGE)
    app(prog_name="fastact")
