"""Where tests keep their files: in memory, where the machine offers that.

Every store syncs at every transaction, which a disk takes tens of milliseconds for and memory none.
What the tests prove of processes that are killed holds there as well.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

LEAST_FREE_BYTES = 1 << 30
"""A whole run of the suite leaves some tens of megabytes; some containers give 64 in all."""


def memory_folder(folder: Path = Path("/dev/shm")) -> Path | None:
    """Return a file system in memory that can hold the tests' files, None where there is none."""
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        return None
    may_run_programs = not os.statvfs(folder).f_flag & os.ST_NOEXEC
    is_roomy = shutil.disk_usage(folder).free >= LEAST_FREE_BYTES
    return folder if may_run_programs and is_roomy else None
