"""The folder of installed bundles: its state on disk, changed whole or not at all.

It holds `slots.json` and at most one file a slot, named by the bundle's digest, so that a file
never changes once the state names it. The folder of the first version (`current.json`) is read as
a committed slot, and given up when the state is first written.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..errors import SlotError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .slots import SlotState

STATE_FILE = "slots.json"
EARLIER_RECORD = "current.json"
MAX_STATE_BYTES = 1 << 16
_LOCK = ".lock"


class SlotFile:
    """The state of the slots in a folder.

    Args:
        folder: made at the first change, for the user who installs alone.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def exists(self) -> bool:
        """Say whether anything was ever installed or refused here."""
        return any((self.folder / name).exists() for name in (STATE_FILE, EARLIER_RECORD))

    def read(self) -> SlotState:
        """Return all that is known of the bundles.

        Raises:
            SlotError: it cannot be read.
        """
        from . import slots

        for name, read in (
            (STATE_FILE, slots.from_json),
            (EARLIER_RECORD, slots.of_earlier_record),
        ):
            path = self.folder / name
            try:
                with path.open("rb") as file:
                    return read(json.loads(file.read(MAX_STATE_BYTES)))
            except FileNotFoundError:
                continue
            except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
                what = f"cannot be read ({error})"
                remedy = "remove the folder to run the default bundle"
                raise SlotError(path, what, remedy) from error
        return slots.SlotState()

    def write(self, before: SlotState, after: SlotState) -> None:
        """Switch to a state, then remove what it does not name any more."""
        from models.durable_file import write_durably

        from . import slots

        if after != before:
            content = json.dumps(slots.to_json(after), indent=1)
            write_durably(self.folder / STATE_FILE, content.encode())
        if (self.folder / STATE_FILE).exists():
            (self.folder / EARLIER_RECORD).unlink(missing_ok=True)
        self.tidy(after)

    def tidy(self, state: SlotState) -> None:
        """Remove what the state does not name: earlier bundles, and what a power cut left."""
        from models.durable_file import sync_folder

        left = [path for path in self.folder.glob("*.zip") if path.name not in state.files]
        left += self.folder.glob(".*.part")
        for path in left:
            path.unlink(missing_ok=True)
        if left:
            sync_folder(self.folder)

    def make_folder(self) -> None:
        """Make the folder where it is not there."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from changing the state until the block ends."""
        import fcntl

        with (self.folder / _LOCK).open("wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
