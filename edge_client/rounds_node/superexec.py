"""The process that is SuperExec: Flower's own, loaded at once and begun when it is told to.

It is told once the SuperNode listens, by a line on its standard input: until then the port is
anybody's. Loading beside the SuperNode costs a start no time. ADR 0043.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Wait for the word, and run SuperExec; the arguments are its command line."""
    from flwr.supercore.cli.flower_superexec import flower_superexec

    # Nothing comes where the starting process is gone.
    if not sys.stdin.readline():
        return
    sys.argv = sys.argv[1:]
    flower_superexec()


if __name__ == "__main__":
    main()
