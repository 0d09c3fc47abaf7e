"""Where Mosquitto is on this machine, and how to get it."""

from __future__ import annotations

import shutil
from pathlib import Path

INSTALL = "apt-get install --no-install-recommends mosquitto"
SERVER_PROGRAMS = "/usr/sbin:/usr/local/sbin"
"""Where Debian puts Mosquitto, and where a user's PATH may not look."""


def find_mosquitto() -> Path | None:
    """Return Mosquitto's path, None where it is not installed."""
    found = shutil.which("mosquitto") or shutil.which("mosquitto", path=SERVER_PROGRAMS)
    return None if found is None else Path(found)
