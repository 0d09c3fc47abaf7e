"""The folder of installed bundles: its state on disk, changed whole or not at all.

It holds `slots.json`, a copy of it, and at most one file a slot, named by the bundle's digest, so
that a file never changes once the state names it. Where the record is damaged the copy counts: a
flipped bit makes a device forget neither its model nor the least release that it may run. The
folder of the first version (`current.json`) is read as a committed slot, and given up when the
state is first written. A record whose content is damaged is set aside as `<name>.damaged` when the
state is next written.
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
STATE_COPY = "slots.copy.json"
EARLIER_RECORD = "current.json"
RECORDS = (STATE_FILE, STATE_COPY, EARLIER_RECORD)
"""In the order in which they count."""
MAX_STATE_BYTES = 1 << 16
DAMAGED_ENDING = ".damaged"
_LOCK = ".lock"
_NO_STATE = (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError)


class SlotFile:
    """The state of the slots in a folder.

    Args:
        folder: made at the first change, for the user who installs alone.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def exists(self) -> bool:
        """Say whether anything was ever installed or refused here, as far as one may look."""
        try:
            return any((self.folder / name).exists() for name in RECORDS)
        except OSError:
            return True

    def read(self) -> SlotState:
        """Return all that is known of the bundles; nothing, where every record of it is damaged.

        Raises:
            SlotError: the disk refuses.
        """
        from . import slots

        for name in RECORDS:
            state = self._state_of(name)
            if isinstance(state, slots.SlotState):
                return state
        return slots.SlotState()

    def damage(self) -> str | None:
        """Say which record is damaged and how, None where none is.

        Raises:
            SlotError: the disk refuses.
        """
        found = ((name, self._state_of(name)) for name in RECORDS)
        return next((f"{name} {what}" for name, what in found if isinstance(what, str)), None)

    def write(self, before: SlotState, after: SlotState) -> None:
        """Switch to a state, then remove what it does not name any more."""
        from models.durable_file import write_durably

        from . import slots

        damaged = [name for name in RECORDS if isinstance(self._state_of(name), str)]
        for name in damaged:
            (self.folder / name).replace(self.folder / f"{name}{DAMAGED_ENDING}")
        if after != before or damaged:
            content = json.dumps(slots.to_json(after), indent=1).encode()
            write_durably(self.folder / STATE_FILE, content)
            write_durably(self.folder / STATE_COPY, content)
        if (self.folder / STATE_FILE).exists():
            (self.folder / EARLIER_RECORD).unlink(missing_ok=True)
        self.tidy(after)

    def _state_of(self, name: str) -> SlotState | str | None:
        """Return the state that a record holds, what is wrong with it, or None without one."""
        from . import slots

        path = self.folder / name
        try:
            with path.open("rb") as file:
                content = file.read(MAX_STATE_BYTES)
        except FileNotFoundError:
            return None
        except OSError as error:
            remedy = "check the disk and whose folder it is"
            raise SlotError(path, f"cannot be read ({error.strerror})", remedy) from error
        read = slots.of_earlier_record if name == EARLIER_RECORD else slots.from_json
        try:
            return read(json.loads(content))
        except _NO_STATE as error:
            return f"is damaged ({type(error).__name__})"

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
