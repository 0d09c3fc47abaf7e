"""The privacy ledger of a device: one file for life, `<store>.ledger`.

It only ever grows. What is about to leave is written first: the file is written anew beside the old
one with the entry at its end, synced, renamed, and the folder synced, so that a power cut leaves
the old or the new file and no torn line. A torn, altered, shortened or missing ledger means that
nothing is spent; it is never mended, rotated or removed.

A shorter ledger, such as one put back from a copy, is a valid chain. So the hash of its last entry
is kept in two other places: `<store>.ledger.head`, and a named value of the store. Where all three
are put back together, only the server's own count is left to notice.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from models.durable_file import write_durably
from models.errors import PlaceRefusedError
from privacy.accountant import mu_of_device
from privacy.budget import Refusal
from privacy.device_history import device_events
from privacy.errors import LedgerBrokenError, UnsupportedEventError
from privacy.ledger import GENESIS_HASH, events_of, next_entry, read_ledger

from ..errors import LedgerError, LedgerUnwritableError
from ..store.erasure import head_path, ledger_path
from ..store.profile_copy import read_profile_copy
from ..store.quarantine import folder_lock
from .other_places import erasure_of, ledger_elsewhere

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime
    from pathlib import Path

    from privacy.device_history import DeviceEvent
    from privacy.events import Event
    from privacy.ledger import LedgerEntry

    from ..store.sqlite_file import StoreFile

LEDGER_FACT = "privacy_ledger"
"""Named value of the store: how many entries its ledger has, and the hash of the last."""
_FORMAT = "fedcell-ledger-head"
_NO_TRAINING = "nothing is trained; a privacy ledger is never made anew"


class KnownHead(NamedTuple):
    """What another place than the ledger knows of it.

    Attributes:
        num_entries: how many entries it had.
        head: hash of the last of them, `GENESIS_HASH` for none.
        device_hash: hex SHA-256 of the device's identifier, None where it is not known.
    """

    num_entries: int
    head: str
    device_hash: str | None = None


@dataclass(frozen=True, slots=True)
class DeviceLedger:
    """A device's ledger as it was read, verified as a whole.

    Attributes:
        entries: all of them, the oldest first.
        events: what they stand for.
    """

    entries: tuple[LedgerEntry, ...] = ()
    events: tuple[DeviceEvent, ...] = ()

    @property
    def head(self) -> str:
        """Hash of the last entry."""
        return self.entries[-1].hash if self.entries else GENESIS_HASH


def is_enrolled(path: Path, store: StoreFile | None = None) -> bool:
    """Tell whether the device has ever had a ledger.

    Args:
        path: of the store.
        store: the open store, None where it cannot be opened.
    """
    return ledger_path(path).exists() or bool(_known_heads(path, store))


def owner_of_ledger(path: Path) -> str | None:
    """Return the hash of the device that the ledger at a store's path is of, None if not known."""
    try:
        known = _head_beside(path, None)
    except LedgerError:
        return None
    return None if known is None else known.device_hash


def enrol(store: StoreFile, *, now: datetime) -> bool:
    """Give a device its ledger, once; from then on a missing one means that nothing is spent.

    `init` does so for a new device, the first consent to training for a store from before there
    were ledgers. A ledger that is there, as after an erasure, goes on. None is made where this
    device has one beside another store of the folder, or was erased there.

    Args:
        store: the open store.
        now: aware time.

    Returns:
        Whether the ledger was made now.

    Raises:
        LedgerUnwritableError: the disk refuses.
        StoreError: the store takes no value.
    """
    path, made = store.path, False
    with folder_lock(path):
        try:
            known = _known_heads(path, store)
            is_first = not known and not ledger_path(path).exists()
            if is_first and ledger_elsewhere(path) is None and erasure_of(path) is None:
                _write(ledger_path(path), b"")
                made = True
            ledger = _read(path, known)
        except LedgerUnwritableError:
            raise
        except LedgerError:
            # It stays as it is, and whoever asks for training is told.
            return False
        if len(known) < len(_PLACES):
            _keep_heads(store, ledger, now=now)
    return made


def read_device_ledger(path: Path, store: StoreFile | None = None) -> DeviceLedger:
    """Read a device's ledger, and verify it against all that is known of it.

    Args:
        path: of the store.
        store: the open store; without it only the file beside the ledger knows its head.

    Raises:
        LedgerError: it is missing, broken, shorter than it was, another device's, or holds what
            this version cannot account for; `refusal` says which.
    """
    return _read(path, _known_heads(path, store))


def append_entries(
    store: StoreFile, choose: Callable[[DeviceLedger], Sequence[Event]], *, now: datetime
) -> DeviceLedger:
    """Put entries at a ledger's end, durably, before what they stand for may leave.

    Args:
        store: the open store.
        choose: looks at the ledger while no other process can write it, and returns what to debit;
            whatever it raises leaves the ledger as it was.
        now: aware time.

    Returns:
        The ledger with the entries.

    Raises:
        LedgerError: the ledger cannot be relied on.
        LedgerUnwritableError: the disk refuses; the entries may be there, and nothing may leave.
        StoreError: the store refuses; as above.
    """
    path = store.path
    with folder_lock(path):
        ledger = _read(path, _known_heads(path, store))
        events = choose(ledger)
        entries = list(ledger.entries)
        for event in events:
            last = entries[-1] if entries else None
            entries.append(next_entry(last, event, kind="stream", at=now))
        lines = "".join(f"{entry.to_line()}\n" for entry in entries)
        _write(ledger_path(path), lines.encode("ascii"))
        longer = DeviceLedger(tuple(entries), device_events((*ledger.events, *events)))
        _keep_heads(store, longer, now=now)
    return longer


def _read(path: Path, known: Sequence[KnownHead]) -> DeviceLedger:
    file = ledger_path(path)
    try:
        text = file.read_bytes().decode("ascii")
    except FileNotFoundError:
        if (other := None if known else ledger_elsewhere(path)) is not None:
            what = f"is not there: this device has its ledger beside another store ({other})"
            raise _error(file, what, Refusal.LEDGER_ELSEWHERE) from None
        what = "is missing" if known else "is not there: this device was never enrolled"
        raise _error(file, what, Refusal.LEDGER_MISSING) from None
    except (OSError, UnicodeDecodeError) as error:
        raise _error(file, f"cannot be read ({error})", Refusal.LEDGER_BROKEN) from None
    try:
        entries = read_ledger(text)
        events = device_events(events_of(entries))
        mu_of_device(events)
    except LedgerBrokenError as error:
        raise _error(file, str(error), Refusal.LEDGER_BROKEN) from None
    except (UnsupportedEventError, ValueError, TypeError) as error:
        what = f"holds what this fedcell cannot account for ({error})"
        raise _error(file, what, Refusal.LEDGER_BROKEN) from None
    for head in known:
        _require_at_least(file, entries, head)
    return DeviceLedger(entries, events)


def _require_at_least(file: Path, entries: Sequence[LedgerEntry], known: KnownHead) -> None:
    if len(entries) < known.num_entries:
        what = f"has {len(entries)} entries, and had {known.num_entries}: it was cut or put back"
        raise _error(file, what, Refusal.LEDGER_BEHIND)
    found = entries[known.num_entries - 1].hash if known.num_entries else GENESIS_HASH
    if found != known.head:
        raise _error(file, "is not the one that this device has written", Refusal.LEDGER_FOREIGN)
    copy = read_profile_copy(file.with_name(file.name.removesuffix(".ledger")))
    if copy is not None and known.device_hash not in {None, copy.device_hash}:
        raise _error(file, "belongs to another device", Refusal.LEDGER_FOREIGN)


def _known_heads(path: Path, store: StoreFile | None) -> list[KnownHead]:
    return [head for place in _PLACES if (head := place(path, store)) is not None]


def _head_beside(path: Path, _store: StoreFile | None) -> KnownHead | None:
    file = head_path(path)
    try:
        value = json.loads(file.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise _error(file, f"cannot be read ({error})", Refusal.LEDGER_BROKEN) from None
    return _head_of(file, value)


def _head_in_store(_path: Path, store: StoreFile | None) -> KnownHead | None:
    value = None if store is None else store.fact(LEDGER_FACT)
    return None if store is None or value is None else _head_of(store.path, value)


def _head_of(where: Path, value: Any) -> KnownHead:
    try:
        num_entries, head, whose = value["entries"], value["head"], value["device_hash"]
    except (KeyError, TypeError):
        num_entries, head, whose = None, None, None
    is_number = type(num_entries) is int and num_entries >= 0
    if not is_number or not isinstance(head, str) or not isinstance(whose, str | None):
        raise _error(where, "does not say the ledger's head", Refusal.LEDGER_BROKEN)
    return KnownHead(num_entries, head, whose)


_PLACES = (_head_beside, _head_in_store)


def _keep_heads(store: StoreFile, ledger: DeviceLedger, *, now: datetime) -> None:
    copy = read_profile_copy(store.path)
    said = {
        "entries": len(ledger.entries),
        "head": ledger.head,
        "device_hash": None if copy is None else copy.device_hash,
    }
    content = {"format": _FORMAT, "version": 1, "at": now.isoformat(), **said}
    _write(head_path(store.path), f"{json.dumps(content)}\n".encode())
    store.keep_fact(LEDGER_FACT, said)


def _write(file: Path, content: bytes) -> None:
    try:
        write_durably(file, content)
        file.chmod(0o600)
    except (OSError, PlaceRefusedError) as error:
        what = f"cannot be written ({getattr(error, 'strerror', None) or error})"
        raise LedgerUnwritableError(file, what, "check the folder and the disk") from error


def _error(where: Path, what: str, refusal: Refusal) -> LedgerError:
    return LedgerError(where, what, _NO_TRAINING, refusal=refusal.value)
