"""How the rows of a store are written: in the clear with checksums, or sealed one by one.

A sealed value is nonce (12 bytes) || AES-256-GCM ciphertext || tag (16 bytes). The nonce is fresh
from the operating system's entropy; the associated data name the table, the row's key and what
stands beside the value in the clear, so that no value can be moved to another row or another time.
What a whole older file says cannot be told from the present: a key does not stop a rollback.
"""

from __future__ import annotations

import json
import os
import zlib
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..errors import StoreDamagedError, StoreKeyError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    KeySource = Callable[[], bytes]
    """Returns the store's key, 32 bytes, each time a store is opened."""

KEY_BYTES = 32

_NONCE_BYTES = 12
_TAG_BYTES = 16
_ID_BYTES = 16
_GIVE_KEY = "give the key that it was made with (--store-key), or erase the store"


class PlainRows:
    """Rows in the clear.

    Args:
        path: of the store, for errors.
    """

    is_sealed = False

    def __init__(self, path: Path) -> None:
        self._path = path

    def seal(self, content: bytes, *_place: object) -> bytes:
        """Return bytes as the store keeps them."""
        return content

    def seal_text(self, text: str, *_place: object) -> str | bytes:
        """Return a text as the store keeps it."""
        return text

    def open(self, stored: object, *place: object) -> bytes:
        """Return the bytes behind what the store keeps.

        Raises:
            StoreDamagedError: it is not what was written there.
        """
        if not isinstance(stored, bytes):
            raise damaged_row(self._path, *place)
        return stored

    def open_text(self, stored: object, *place: object) -> str:
        """Return the text behind what the store keeps.

        Raises:
            StoreDamagedError: it is not what was written there.
        """
        if not isinstance(stored, str):
            raise damaged_row(self._path, *place)
        return stored

    def proof(self, *row: object) -> int | bytes | None:
        """Return what proves later that a row is as it was written: a checksum.

        Args:
            row: the table's name, then the values.
        """
        return zlib.crc32(_bound(row))

    def check(self, proof: object, *row: object) -> None:
        """Compare a row with its proof.

        Raises:
            StoreDamagedError: it is not what was written there.
        """
        if proof != zlib.crc32(_bound(row)):
            raise damaged_row(self._path, *row)


class SealedRows:
    """Rows sealed under one key; cryptography is loaded here and nowhere else in the store.

    Args:
        path: of the store, for errors.
        key: 32 bytes.
    """

    is_sealed = True

    def __init__(self, path: Path, key: bytes) -> None:
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        self._path = path
        self._cipher = AESGCM(key)
        self._refusal = InvalidTag

    def seal(self, content: bytes, *place: object) -> bytes:
        """Return bytes as the store keeps them."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, content, _bound(place))

    def seal_text(self, text: str, *place: object) -> str | bytes:
        """Return a text as the store keeps it."""
        return self.seal(text.encode(), *place)

    def open(self, stored: object, *place: object) -> bytes:
        """Return the bytes behind what the store keeps.

        Raises:
            StoreDamagedError: it is not what was written there.
        """
        if not isinstance(stored, bytes) or len(stored) < _NONCE_BYTES + _TAG_BYTES:
            raise damaged_row(self._path, *place)
        try:
            return self._cipher.decrypt(stored[:_NONCE_BYTES], stored[_NONCE_BYTES:], _bound(place))
        except self._refusal:
            raise damaged_row(self._path, *place) from None

    def open_text(self, stored: object, *place: object) -> str:
        """Return the text behind what the store keeps.

        Raises:
            StoreDamagedError: it is not what was written there.
        """
        return self.open(stored, *place).decode()

    def proof(self, *row: object) -> int | bytes | None:
        """Return what proves later that a row is as it was written: a tag over it.

        Args:
            row: the table's name, then the values.
        """
        return self.seal(b"", *row)

    def check(self, proof: object, *row: object) -> None:
        """Compare a row with its proof.

        Raises:
            StoreDamagedError: it is not what was written there.
        """
        self.open(proof, *row)


Rows = PlainRows | SealedRows


def read_key(path: Path, key: KeySource | None, *, is_sealed: bool = True) -> bytes | None:
    """Call for the key of a store.

    Args:
        path: of the store, for errors.
        key: where it comes from.
        is_sealed: whether the store is, or shall be.

    Returns:
        The key, None for a store in the clear.

    Raises:
        StoreKeyError: it is missing, it is no key, or there is no use for it.
    """
    if not is_sealed:
        if key is not None:
            remedy = "leave the key out, or seal the store: fedcell-device seal"
            raise StoreKeyError(path, "is not sealed, and a key was given", remedy)
        return None
    if key is None:
        raise StoreKeyError(path, "is sealed, and no key was given", _GIVE_KEY)
    value: object = key()
    if not isinstance(value, bytes | bytearray) or len(value) != KEY_BYTES:
        raise StoreKeyError(path, f"got a key that is not {KEY_BYTES} bytes long", _GIVE_KEY)
    return bytes(value)


def key_id(key: bytes) -> bytes:
    """Return the 16 bytes that a store keeps to know its key again; they do not tell it."""
    import hashlib

    return hashlib.sha256(b"fedcell/v1/store-key-id\n" + key).digest()[:_ID_BYTES]


def wrong_key(path: Path) -> StoreKeyError:
    """Return the error for a key that is not the store's."""
    return StoreKeyError(path, "is sealed under another key", _GIVE_KEY)


def key_from_file(file: Path) -> KeySource:
    """Return a source that reads a key file whenever a store is opened.

    Args:
        file: 32 raw bytes, or 64 hexadecimal digits; such as a credential of systemd.
    """

    def read() -> bytes:
        try:
            content = file.read_bytes()
        except OSError as error:
            what = f"the key file cannot be read: {error.strerror}"
            raise StoreKeyError(file, what, "check --store-key") from None
        if len(content) == KEY_BYTES:
            return content
        try:
            value = bytes.fromhex(content.decode("ascii"))
        except ValueError:
            value = b""
        if len(value) != KEY_BYTES:
            what = f"holds no key of {KEY_BYTES} raw bytes or {2 * KEY_BYTES} hexadecimal digits"
            raise StoreKeyError(file, what, "make one: head -c 32 /dev/urandom > FILE")
        return value

    return read


def damaged_row(path: Path, *place: object) -> StoreDamagedError:
    """Return the error for a row that is not what was written."""
    table = place[0] if place else "row"
    return StoreDamagedError(
        path, f"is damaged (a row of {table} does not verify)", "run: fedcell-device check --repair"
    )


@contextmanager
def believed(path: Path, table: str) -> Iterator[None]:
    """Turn values that cannot be, in rows that were read, into the error of a damaged store."""
    try:
        yield
    except (KeyError, OverflowError, TypeError, ValueError) as error:
        raise damaged_row(path, table) from error


def _bound(place: tuple[object, ...]) -> bytes:
    return b"fedcell/v1/row\n" + json.dumps(place, default=repr).encode("ascii")
