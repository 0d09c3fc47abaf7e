"""The devices' public keys, from a file that a factory fills and that is read again as it changes.

The file holds JSON objects, one after the other, each with one device or many, as
`fedcell-device identity --json` prints them:

    {"<device id>": {"sign": "<64 hex digits>", "seal": "<64 hex digits>"}}

`sign` is the device's Ed25519 key, `seal` the X25519 key to which its notices are sealed.
"""

from __future__ import annotations

import json
import logging
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from models.wire.envelope import VerifyKey
from models.wire.errors import WireError
from models.wire.sealing import KEY_BYTES, SealKey
from models.wire.topics import checked_device_id

from .errors import KeyFileError, KeyFileMissingError

if TYPE_CHECKING:
    from pathlib import Path

logger = logging.getLogger(__name__)

REMEDY = "give the lines that 'fedcell-device identity --json' prints"
_BLANK = " \t\r\n"


@dataclass(frozen=True, slots=True)
class DeviceKeys:
    """The public halves of one device's keys.

    Attributes:
        sign: verifies what it says.
        seal: what it alone shall read is sealed to this.
    """

    sign: VerifyKey
    seal: SealKey


class DeviceKeySource(Protocol):
    """Where devices' public keys are looked up: `DeviceKeyFile`, `EnrolledKeys`."""

    def of(self, device_id: str) -> DeviceKeys | None:
        """Return a device's keys, None where it has none."""
        ...


class DeviceKeyFile:
    """A file of device keys; several threads may ask.

    Args:
        path: of the file.

    Raises:
        KeyFileMissingError: it is not there.
        KeyFileError: it holds something else.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._stamp = _stamp_of(path)
        self._keys = read_device_keys(path)
        self.problem: str | None = None

    def of(self, device_id: str) -> DeviceKeys | None:
        """Return a device's keys, None where the file has none.

        A file that has become unusable is logged once, and the keys read before it go on.
        """
        with self._lock:
            self._look_again()
            found = self._keys.get(device_id)
        if found is None:
            return None
        return DeviceKeys(VerifyKey.from_bytes(found[0]), SealKey.from_bytes(found[1]))

    def __len__(self) -> int:
        """Return how many devices have keys."""
        return len(self._keys)

    def _look_again(self) -> None:
        try:
            stamp = _stamp_of(self.path)
        except KeyFileError as error:
            self._keep_old(error)
            return
        if stamp == self._stamp:
            return
        try:
            self._keys = read_device_keys(self.path)
        except KeyFileError as error:
            self._keep_old(error)
        else:
            self.problem = None
            logger.info("keys of %d devices read from %s", len(self._keys), self.path)
        self._stamp = stamp

    def _keep_old(self, error: KeyFileError) -> None:
        if str(error) != self.problem:
            logger.error("the keys read before stay in use: %s", error)
        self.problem = str(error)


def read_device_keys(path: Path) -> dict[str, tuple[bytes, bytes]]:
    """Read a file of device keys: the raw halves that verify and that seal, by device.

    Raises:
        KeyFileMissingError: it is not there.
        KeyFileError: it cannot be read, or holds something else; says at which device or line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise KeyFileMissingError(path, "no such file of device keys", REMEDY) from None
    except OSError as error:
        raise KeyFileError(path, f"cannot be read: {error.strerror}", "check the path") from None
    except UnicodeDecodeError:
        raise KeyFileError(path, "is no text", REMEDY) from None
    keys: dict[str, tuple[bytes, bytes]] = {}
    decoder, position = json.JSONDecoder(), 0
    while (position := _next_word(text, position)) < len(text):
        line = text.count("\n", 0, position) + 1
        try:
            found, position = decoder.raw_decode(text, position)
        except (ValueError, RecursionError):
            raise KeyFileError(f"{path}:{line}", "is no JSON object", REMEDY) from None
        if not isinstance(found, dict):
            raise KeyFileError(f"{path}:{line}", "is no JSON object", REMEDY)
        for device_id, entry in found.items():
            keys[device_id] = _keys_of(path, device_id, entry, before=keys.get(device_id))
    return keys


def _keys_of(
    path: Path, device_id: str, entry: Any, *, before: tuple[bytes, bytes] | None
) -> tuple[bytes, bytes]:
    try:
        checked_device_id(device_id)
        keys = bytes.fromhex(entry["sign"]), bytes.fromhex(entry["seal"])
    except (KeyError, TypeError, ValueError, WireError):
        keys = b"", b""
    if any(len(key) != KEY_BYTES for key in keys):
        what = f"the entry of {device_id[:80]!r} is not a device with two keys"
        raise KeyFileError(path, what, REMEDY)
    if before is not None and before != keys:
        what = f"names {device_id} twice, with other keys"
        raise KeyFileError(path, what, "remove the entry that no longer holds")
    return keys


def _next_word(text: str, position: int) -> int:
    while position < len(text) and text[position] in _BLANK:
        position += 1
    return position


def _stamp_of(path: Path) -> tuple[int, int, int]:
    try:
        found = path.stat()
    except FileNotFoundError:
        raise KeyFileMissingError(path, "no such file of device keys", REMEDY) from None
    except OSError as error:
        raise KeyFileError(path, f"cannot be read: {error.strerror}", "check the path") from None
    return found.st_mtime_ns, found.st_size, found.st_ino
