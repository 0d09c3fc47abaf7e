"""Looking at the processes of this machine, to see that none was left behind."""

from __future__ import annotations

import os
from pathlib import Path


def processes_naming(text: str) -> list[int]:
    """Return the ids of other processes whose command line holds a text."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        try:
            line = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if text.encode() in line:
            found.append(int(folder.name))
    return found
