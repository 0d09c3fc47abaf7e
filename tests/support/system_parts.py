"""Parts that tests need from the machine: found here, or named with the line that installs them."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]

# Debian puts servers where a user's PATH may not look.
SEARCH_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])


@dataclass(frozen=True)
class SystemPart:
    """A program of the system, the marker of the tests that need it, and how to get it."""

    marker: str
    name: str
    programs: tuple[str, ...]
    install: str

    def find(self) -> Path | None:
        """Return the program's path, None where it is not installed."""
        for program in self.programs:
            found = shutil.which(program, path=SEARCH_PATH)
            if found:
                return Path(found)
        return None

    def is_missing_line(self) -> str:
        return f"{self.name} is not installed: {self.install}"


MOSQUITTO = SystemPart(
    "broker", "Mosquitto", ("mosquitto",), "apt-get install --no-install-recommends mosquitto"
)
CHROMIUM = SystemPart(
    "browser",
    "Chromium",
    ("chromium", "chromium-browser", "google-chrome"),
    "apt-get install --no-install-recommends chromium",
)
NGINX = SystemPart("nginx", "nginx", ("nginx",), "apt-get install --no-install-recommends nginx")
SYSTEM_PARTS = (MOSQUITTO, CHROMIUM, NGINX)


def find_cells() -> Path | None:
    """Return the folder of real ageing cells, None where this checkout has none beside it."""
    named = os.environ.get("FEDCELL_CELLS")
    folder = Path(named) if named else REPOSITORY.parent / "shared" / "data" / "cells"
    return folder if any(folder.glob("*.parquet")) else None
