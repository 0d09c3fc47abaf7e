"""The folder of installed bundles: its state on disk, changed whole or not at all.

It holds at most one file a slot, named by the bundle's digest, so that a file never changes once
the state names it; and the state, twice: `slots.copy.json`, which is written first, and
`slots.json`. Each has a number that grows with every change and a checksum: of those that are whole
the higher number counts, so that a power cut or a flipped bit makes a device forget neither what it
runs nor the least release that it may run. What is damaged is set aside as `<name>.damaged` when
the state is next written.

Yesterday's folders load for ever: `slots.json` of schema 1, without number and checksum, and the
first version's `current.json`, which counts as a committed slot. A record of a newer fedcell is not
touched: the device runs the default bundle.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import SlotError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from .slots import SlotState

STATE_FILE = "slots.json"
STATE_COPY = "slots.copy.json"
EARLIER_RECORD = "current.json"
WRITTEN = (STATE_COPY, STATE_FILE)
"""In the order in which they are written."""
RECORDS = (STATE_FILE, STATE_COPY, EARLIER_RECORD)
"""In the order in which they count where their numbers are equal."""
MAX_STATE_BYTES = 1 << 16
DAMAGED_ENDING = ".damaged"
FIRST_SCHEMA = 1
CHECK = "check"
_LOCK = ".lock"
_NO_STATE = (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError)


class Record(NamedTuple):
    """A state as a file holds it, and the number of the change that it came from."""

    number: int
    state: SlotState


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
            SlotError: the disk refuses, or a newer fedcell wrote the record.
        """
        from . import slots

        newest = _newest(self._found())
        return slots.SlotState() if newest is None else newest.state

    def damage(self) -> str | None:
        """Say which record is damaged and how, None where none is.

        Raises:
            SlotError: the disk refuses, or a newer fedcell wrote the record.
        """
        found = self._found().items()
        return next((f"{name} {what}" for name, what in found if isinstance(what, str)), None)

    def is_half_written(self) -> bool:
        """Say whether a power cut left the state and its copy with different content.

        Raises:
            SlotError: the disk refuses, or a newer fedcell wrote the record.
        """
        return _is_half_written(self._found())

    def write(self, before: SlotState, after: SlotState) -> None:
        """Switch to a state, then remove what it does not name any more."""
        from models.durable_file import write_durably

        found = self._found()
        damaged = [name for name, what in found.items() if isinstance(what, str)]
        if after != before or damaged or _is_half_written(found):
            newest = _newest(found)
            content = _content(Record(1 if newest is None else newest.number + 1, after))
            if len(content) > MAX_STATE_BYTES:
                remedy = "remove the folder; the device then runs the default bundle"
                raise SlotError(self.folder, "holds more than a record can name", remedy)
            for name in damaged:
                (self.folder / name).replace(self.folder / f"{name}{DAMAGED_ENDING}")
            for name in WRITTEN:
                write_durably(self.folder / name, content)
        if (self.folder / STATE_FILE).exists():
            (self.folder / EARLIER_RECORD).unlink(missing_ok=True)
        self.tidy(after)

    def _found(self) -> dict[str, Record | str | None]:
        """Read every file; each is what `_record_of` says of it."""
        return {name: self._record_of(name) for name in RECORDS}

    def _record_of(self, name: str) -> Record | str | None:
        """Return what a file holds, what is wrong with it, or None without one."""
        from . import slots

        path = self.folder / name
        try:
            with path.open("rb") as file:
                content = file.read(MAX_STATE_BYTES + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            remedy = "check the disk and whose folder it is"
            raise SlotError(path, f"cannot be read ({error.strerror})", remedy) from error
        try:
            value = json.loads(content)
            if name == EARLIER_RECORD:
                return Record(-1, slots.of_earlier_record(value))
            if value["schema"] == FIRST_SCHEMA:
                return Record(0, slots.from_json(value))
            if value.pop(CHECK) != _check(value):
                return "is damaged (its checksum differs)"
            if value["schema"] > slots.SCHEMA:
                raise SlotError(path, "was written by a newer fedcell", "update fedcell")
            return Record(int(value["number"]), slots.from_json(value))
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


def _newest(found: Mapping[str, Record | str | None]) -> Record | None:
    whole = [record for record in found.values() if isinstance(record, Record)]
    return max(whole, key=lambda record: record.number, default=None)


def _is_half_written(found: Mapping[str, Record | str | None]) -> bool:
    kept, copy = found[STATE_FILE], found[STATE_COPY]
    return isinstance(kept, Record) and isinstance(copy, Record) and kept != copy


def _content(record: Record) -> bytes:
    from . import slots

    value = {**slots.to_json(record.state), "number": record.number}
    return json.dumps({**value, CHECK: _check(value)}, indent=1).encode()


def _check(value: dict[str, Any]) -> str:
    content = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(content.encode()).hexdigest()
