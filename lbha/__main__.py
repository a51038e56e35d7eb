"""The entry of `lbha` and of `python -m lbha`."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run the command line and exit with its code.

    `lbha check …` goes past click: keepalived starts it every second on every node. It has written its one
    line by now, and to take the interpreter apart would be an eighth of its whole run (measured).
    """
    if sys.argv[1:2] == ["check"]:
        from lbha import check

        os._exit(check.main(sys.argv[2:]))
    from lbha import cli

    cli.main()


if __name__ == "__main__":
    main()
