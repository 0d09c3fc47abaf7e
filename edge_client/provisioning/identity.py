"""A device's own keys, made at first boot, bound to the hardware: no clone keeps an identity.

The file `<store>.identity.json` (mode 0600) holds the seed of an Ed25519 key to sign with, the
X25519 key that opens what is sealed to the device, and a keyed hash of the hardware's identifier.
The store remembers which identity it belongs to. A store or identity found on other hardware, or
apart from each other, is a copy: whatever talks or trains refuses it.

A store made before identities exist has none, and works as before.
"""

from __future__ import annotations

import errno
import hashlib
import hmac
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from models.durable_file import sync_folder

from ..errors import CloneError, IdentityError, InputError, InputMissingError
from .state_file import read_state

if TYPE_CHECKING:
    from collections.abc import Sequence

    from models.wire.envelope import SigningKey
    from models.wire.sealing import OpeningKey

    from ..store.sqlite_file import StoreFile

MACHINE_ID = Path("/etc/machine-id")
HARDWARE_SERIAL = Path("/sys/firmware/devicetree/base/serial-number")
HARDWARE_ID_FILES = (MACHINE_ID, HARDWARE_SERIAL)
"""Where the hardware's identifier is looked for; the first that says something counts."""

IDENTITY_FACT = "identity"
DEVICE_ID_PREFIX = "dev-"
DEVICE_ID_DIGITS = 20
_FORMAT = 1
_SAYS_NOTHING = frozenset({"", "uninitialized"})
_LONGEST_ID = 4096
_NO_HARD_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK})
_NEW_DEVICE = "if this is a new device: fedcell-device init --new-device"


@dataclass(frozen=True, slots=True)
class DeviceIdentity:
    """The keys of one device; their bytes never stand in its repr.

    Attributes:
        device_id: whose they are.
        signing_key: the device's own, to sign with.
        opening_key: opens what is sealed to the device.
        hardware: keyed hash of the hardware's identifier, hex; None where there was none to read.
    """

    device_id: str
    signing_key: SigningKey
    opening_key: OpeningKey
    hardware: str | None

    @property
    def key_id(self) -> str:
        """The name under which the store remembers the identity."""
        return self.signing_key.verify_key.key_id

    def public(self) -> dict[str, dict[str, str]]:
        """Return the public halves, as the server's file of device keys takes them."""
        return {
            self.device_id: {
                "sign": self.signing_key.verify_key.to_bytes().hex(),
                "seal": self.opening_key.seal_key.to_bytes().hex(),
            }
        }


def identity_path(store: Path) -> Path:
    """Return where the identity of a store lies."""
    return store.with_name(store.name + ".identity.json")


def read_hardware_id(files: Sequence[Path] = HARDWARE_ID_FILES) -> bytes | None:
    """Return the identifier of this hardware, None where no file says one."""
    for file in files:
        try:
            with file.open("rb") as opened:
                text = opened.read(_LONGEST_ID).strip(b"\0 \t\r\n")
        except OSError:
            continue
        if text.decode("utf-8", "replace") not in _SAYS_NOTHING:
            return text
    return None


def hardware_id_files(chosen: Path | None) -> tuple[Path, ...]:
    """Return the files to look at: the one that a setting names, else the usual ones.

    Raises:
        InputMissingError: the named one is not there.
        InputError: it says nothing.
    """
    if chosen is None:
        return HARDWARE_ID_FILES
    if not chosen.exists():
        remedy = "check --hardware-id-file"
        raise InputMissingError(chosen, "there is no such file", remedy)
    if read_hardware_id((chosen,)) is None:
        remedy = "name a file with this hardware's own identifier"
        raise InputError(chosen, "says no identifier", remedy)
    return (chosen,)


def device_id_from(hardware_id: bytes) -> str:
    """Return a device id that follows from the hardware, and does not tell the hardware's.

    A keyed hash, as machine-id(5) asks for. A serial number can be guessed from it by trying all;
    a machine id cannot.
    """
    return DEVICE_ID_PREFIX + _keyed(hardware_id, b"fedcell/v1/device-id")[:DEVICE_ID_DIGITS]


def make_identity(
    store: Path, *, device_id: str, hardware_id: bytes | None
) -> tuple[DeviceIdentity, bool]:
    """Make the keys of a new device durably, or return those that are there.

    Two processes that do this at once end with the same keys; a crash leaves all or nothing.

    Returns:
        The identity, and whether it was made now.

    Raises:
        CloneError: the keys that are there belong to other hardware.
        IdentityError: they belong to another device id, cannot be read, or the folder refuses.
    """
    from models.wire.envelope import SigningKey
    from models.wire.sealing import OpeningKey

    path = identity_path(store)
    made = False
    if not path.exists():
        content = {
            "format": _FORMAT,
            "device_id": device_id,
            "sign": SigningKey.generate().to_bytes().hex(),
            "seal": OpeningKey.generate().to_bytes().hex(),
            "hardware": None if hardware_id is None else hardware_hash(hardware_id),
        }
        made = _write_once(path, json.dumps(content).encode())
    _sweep(path)
    identity = read_identity(store)
    if identity is None:
        raise IdentityError(path, "vanished while it was made", "run it again")
    require_hardware(identity, path, hardware_id=hardware_id)
    if identity.device_id != device_id:
        what = f"is that of {identity.device_id}, not of {device_id}"
        remedy = "give that device id"
        if identity.hardware is None:
            raise IdentityError(path, what, f"{remedy}; {_NEW_DEVICE}")
        # Made on this very hardware, where no device is new: what it has spent stays spent.
        raise IdentityError(path, what, f"{remedy}: this hardware keeps its name")
    return identity, made


def read_identity(store: Path) -> DeviceIdentity | None:
    """Return the identity beside a store, None where there is none.

    Raises:
        IdentityError: the file is there, and cannot be read or holds something else.
    """
    from models.wire.envelope import SigningKey
    from models.wire.errors import WireError
    from models.wire.sealing import OpeningKey

    path = identity_path(store)
    try:
        content = read_state(path, known_format=_FORMAT, refusal=IdentityError)
        if content is None:
            return None
        hardware = content["hardware"]
        return DeviceIdentity(
            device_id=str(content["device_id"]),
            signing_key=SigningKey.from_bytes(bytes.fromhex(content["sign"])),
            opening_key=OpeningKey.from_bytes(bytes.fromhex(content["seal"])),
            hardware=None if hardware is None else str(hardware),
        )
    except (KeyError, TypeError, ValueError, WireError):
        what = "holds no identity"
        raise IdentityError(path, what, f"put its copy back; {_NEW_DEVICE}") from None


def require_hardware(identity: DeviceIdentity, path: Path, *, hardware_id: bytes | None) -> None:
    """Refuse an identity that was made on other hardware.

    Raises:
        CloneError: it was.
        IdentityError: this hardware says no identifier, and the identity is bound to one.
    """
    if identity.hardware is None:
        return
    if hardware_id is None:
        what = "is bound to its hardware, and this hardware's identifier cannot be read"
        raise IdentityError(path, what, "name its file: --hardware-id-file")
    if not hmac.compare_digest(hardware_hash(hardware_id), identity.hardware):
        raise CloneError(path, f"was made on other hardware: this is a copy; {_NEW_DEVICE}")


def own_identity(
    store: StoreFile, *, device_id: str, hardware_id: bytes | None
) -> DeviceIdentity | None:
    """Return the identity of an open store, after making sure that this is no copy.

    A store that was begun anew beside its identity is bound to it again.

    Args:
        store: the open store.
        device_id: from its profile.
        hardware_id: from `read_hardware_id`.

    Returns:
        None for a store that never had one.

    Raises:
        CloneError: store or identity come from another device.
        IdentityError: the identity is missing or cannot be read.
    """
    path, bound_to = identity_path(store.path), store.fact(IDENTITY_FACT)
    identity = read_identity(store.path)
    if identity is None:
        if bound_to is None:
            return None
        what = f"is missing, and {store.path} belongs to it"
        raise IdentityError(path, what, f"put it back; {_NEW_DEVICE}")
    require_hardware(identity, path, hardware_id=hardware_id)
    if identity.device_id != device_id or bound_to not in {None, identity.key_id}:
        raise CloneError(store.path, f"belongs to another identity than {path}; {_NEW_DEVICE}")
    if bound_to is None:
        store.keep_fact(IDENTITY_FACT, identity.key_id)
    return identity


def hardware_hash(hardware_id: bytes) -> str:
    """Return the keyed hash that an identity is bound by, hex."""
    return _keyed(hardware_id, b"fedcell/v1/hardware")


def _keyed(hardware_id: bytes, purpose: bytes) -> str:
    return hmac.new(hardware_id, purpose, hashlib.sha256).hexdigest()


def _write_once(path: Path, content: bytes) -> bool:
    """Write a private file aside and give it its name; False where another was faster."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside.unlink(missing_ok=True)
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            _give_name(aside, path)
        except (FileExistsError, FileNotFoundError):
            # Another process has made the identity, and swept this one's half away.
            return False
        finally:
            aside.unlink(missing_ok=True)
        sync_folder(path.parent)
    except OSError as error:
        what = f"cannot be written: {error.strerror}"
        raise IdentityError(path, what, "check the folder and the disk") from None
    return True


def _give_name(aside: Path, path: Path) -> None:
    try:
        os.link(aside, path)
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        if path.exists():
            raise FileExistsError from None
        aside.replace(path)


def _sweep(path: Path) -> None:
    """Remove halves of keys that a crash has left beside a whole identity."""
    for left_over in path.parent.glob(f".{path.name}.*.part"):
        left_over.unlink(missing_ok=True)
