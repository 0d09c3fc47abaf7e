"""What makes a device a member of its fleet, on disk: all of it or nothing.

<store>.fleet/fleet.json       names the files that count; written last, and at once
<store>.fleet/device-N.pem     certificate and private key for MQTT, mode 0600
<store>.fleet/authorities-N.pem   who may speak for the broker
<store>.fleet/supernode        private key for Flower, OpenSSH form, mode 0600
<store>.fleet/pending.json     keys of a request whose answer has not come yet, mode 0600
"""

from __future__ import annotations

import fcntl
import json
import os
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import datetime
from typing import TYPE_CHECKING

from models.durable_file import sync_folder

from ..errors import JoinError, StoreBusyError
from .state_file import read_state

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

STATE_FILE, PENDING_FILE, SUPERNODE_FILE = "fleet.json", "pending.json", "supernode"
JOIN_ANEW = "join anew: fedcell-device join URL --token T --anew"
"""What to do where a membership cannot be used."""
_LOCK = ".lock"
_FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Membership:
    """A device's place in its fleet.

    Attributes:
        folder: where its files are.
        device_id: its name.
        service: address of the enrolment service.
        broker: `host:port` of the fleet's broker.
        server_keys: Ed25519 keys (hex) that sign what the server says, by key id.
        number: of the files that count; grows with each renewal.
        serial: of its certificate, 40 hex digits.
        not_before: since when that holds.
        not_after: until when.
        server_time: of the server's clock, when it came; no clock can be right and before it.
        superlink: `host:port` where nodes meet the fleet's SuperLink, empty where none was named.
    """

    folder: Path
    device_id: str
    service: str
    broker: str
    server_keys: Mapping[str, str]
    number: int
    serial: str
    not_before: datetime
    not_after: datetime
    server_time: datetime
    superlink: str = ""

    @property
    def certificate(self) -> Path:
        """The file of certificate and private key."""
        return self.folder / f"device-{self.number}.pem"

    @property
    def authorities(self) -> Path:
        """The file of those who may speak for the broker."""
        return self.folder / f"authorities-{self.number}.pem"

    @property
    def supernode_key(self) -> Path:
        """The file of the private key for Flower."""
        return self.folder / SUPERNODE_FILE

    def broker_address(self) -> tuple[str, int]:
        """Return host and port of the fleet's broker."""
        host, _, port = self.broker.rpartition(":")
        return host.removeprefix("[").removesuffix("]"), int(port)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """Keys that were made for a request; they stay the same until its answer has come.

    Attributes:
        key: private key for MQTT, PEM.
        request: for its certificate, PEM.
        supernode: private key for Flower, empty at a renewal.
        supernode_public: its public half.
    """

    key: str
    request: str
    supernode: str = ""
    supernode_public: str = ""

    def __repr__(self) -> str:
        """Tell nothing."""
        return "Pending()"


def membership_folder(store: Path) -> Path:
    """Return where the membership of a store's device is."""
    return store.with_name(store.name + ".fleet")


def read_membership(store: Path) -> Membership | None:
    """Return a device's membership, None where it has not joined.

    Raises:
        JoinError: it is damaged.
    """
    folder = membership_folder(store)
    path = folder / STATE_FILE
    try:
        content = read_state(path, known_format=_FORMAT, refusal=JoinError)
        if content is None:
            return None
        found = Membership(
            folder=folder,
            device_id=str(content["device_id"]),
            service=str(content["service"]),
            broker=str(content["broker"]),
            server_keys={str(name): str(key) for name, key in content["server_keys"].items()},
            number=int(content["number"]),
            serial=str(content["serial"]),
            not_before=datetime.fromisoformat(content["not_before"]),
            not_after=datetime.fromisoformat(content["not_after"]),
            server_time=datetime.fromisoformat(content["server_time"]),
            superlink=str(content.get("superlink", "")),
        )
        found.broker_address()
    except (KeyError, TypeError, ValueError, AttributeError):
        raise JoinError(path, "holds no membership", JOIN_ANEW) from None
    return found


def write_membership(
    membership: Membership, *, certificate: str, key: str, authorities: str, supernode: str = ""
) -> None:
    """Write a membership in place of the one before; a crash leaves the one or the other.

    Args:
        membership: whose number is one that was not used.
        certificate: PEM.
        key: its private key, PEM.
        authorities: PEM.
        supernode: private key for Flower, empty to keep the one that is there.

    Raises:
        StoreBusyError: the folder or the disk refuses; what was there still counts.
    """
    content = {
        "format": _FORMAT,
        **{name: getattr(membership, name) for name in _KEPT},
        **{name: getattr(membership, name).isoformat() for name in _TIMES},
    }
    with _named_refusals(membership.folder):
        if supernode:
            _write_private(membership.supernode_key, supernode)
        _write_private(membership.certificate, certificate + key)
        _write_private(membership.authorities, authorities)
        _write_private(membership.folder / STATE_FILE, json.dumps(content, indent=1))
        _sweep(membership)


def keep_pending(folder: Path, pending: Pending) -> None:
    """Keep the keys of a request durably, before it leaves.

    Raises:
        StoreBusyError: the folder or the disk refuses.
    """
    content = {entry.name: getattr(pending, entry.name) for entry in fields(Pending)}
    with _named_refusals(folder):
        _write_private(folder / PENDING_FILE, json.dumps(content))


def read_pending(folder: Path) -> Pending | None:
    """Return the keys of a request whose answer has not come, None where there are none."""
    try:
        content = json.loads((folder / PENDING_FILE).read_bytes())
        return Pending(**{entry.name: str(content[entry.name]) for entry in fields(Pending)})
    except (OSError, ValueError, KeyError, TypeError):
        return None


@contextmanager
def changing(store: Path) -> Iterator[Path]:
    """Make the folder where there is none, and keep other processes from changing it.

    Raises:
        StoreBusyError: another process joins or renews, or the folder cannot be made.
    """
    folder = membership_folder(store)
    with _named_refusals(folder):
        folder.mkdir(mode=0o700, exist_ok=True)
        handle = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            what = "another process joins or renews"
            raise StoreBusyError(folder, what, "wait for it, then try again") from None
        yield folder
    finally:
        os.close(handle)


_TIMES = ("not_before", "not_after", "server_time")
_KEPT = ("device_id", "service", "broker", "server_keys", "number", "serial", "superlink")


def _write_private(path: Path, content: str) -> None:
    aside = path.with_name(f".{path.name}.part")
    aside.unlink(missing_ok=True)
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
    sync_folder(path.parent)


def _sweep(membership: Membership) -> None:
    """Remove what does not count any more; the files before these stay for a link that reads."""
    (membership.folder / PENDING_FILE).unlink(missing_ok=True)
    kept = {str(membership.number), str(membership.number - 1)}
    for path in membership.folder.glob("*-*.pem"):
        if path.stem.rpartition("-")[2] not in kept:
            path.unlink(missing_ok=True)


@contextmanager
def _named_refusals(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        what = f"cannot be written: {error.strerror}"
        raise StoreBusyError(folder, what, "check the folder and the disk") from None
