"""A process that is told to end where its parent dies: `python -m …tethered PARENT WORD...`.

A supervisor that is killed leaves no SuperLink behind that would hold its port. Linux keeps the
request over the start of another program in the same process.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(words: list[str]) -> None:
    """Become another program, tethered to its parent.

    Args:
        words: number of the parent's process, then the command line.
    """
    parent, *command = words
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(parent):
        sys.exit(f"the process {parent} that started {command[0]} is gone")
    os.execv(command[0], command)  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    main(sys.argv[1:])
