"""Key files as an operator makes them, to seal streams under."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def make_stream_key_file(path: Path) -> None:
    """Write a key file that its owner alone may read."""
    path.write_bytes(os.urandom(32))
    path.chmod(0o600)
