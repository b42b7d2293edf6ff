"""``python -m fastact``: see :mod:`fastact._cli`."""

from ._cli import main

if __name__ == "__main__":
    main()
