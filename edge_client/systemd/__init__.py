"""Unit files for systemd; `fedcell-device systemd --out DIR` writes them, README.md explains."""

from __future__ import annotations

import sys
from pathlib import Path

from models.durable_file import write_durably

from ..errors import UsageError

FOLDER = Path(__file__).parent
PROGRAM_IN_FILES = "/usr/bin/fedcell-device"
"""What the unit files run; replaced by the program that writes them."""

NAMES = (
    "README.md",
    "fedcell.sysusers.conf",
    "device.toml",
    "fedcell-first-boot.service",
    "fedcell-device.service",
    "fedcell-node.service",
    "fedcell-requests.service",
    "fedcell-predict.service",
    "fedcell-predict.timer",
    "fedcell-device.service.d/10-sealed-store.conf",
    "fedcell-device.service.d/20-read-only-root.conf",
    "fedcell-first-boot.service.d/20-read-only-root.conf",
    "var-lib-fedcell.mount",
)


def write_units(folder: Path, *, program: str | None = None) -> list[Path]:
    """Write the unit files.

    Args:
        folder: made if needed; files of these names in it are replaced.
        program: path of `fedcell-device`; None takes the one beside the running Python.

    Returns:
        What was written.

    Raises:
        UsageError: the program's path is not absolute, or holds what unit files cannot.
    """
    path = program or str(Path(sys.executable).with_name("fedcell-device"))
    if not path.startswith("/") or any(letter.isspace() or letter in "%$\\\"'" for letter in path):
        raise UsageError("--program", f"is no plain absolute path: {path!r}", "give one")
    written = []
    for name in NAMES:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        text = (FOLDER / name).read_text(encoding="utf-8")
        write_durably(target, text.replace(PROGRAM_IN_FILES, path).encode())
        written.append(target)
    return written
