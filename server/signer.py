"""The server's signing key: made once, kept in a file that only its owner may read."""

from __future__ import annotations

import json
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from models.wire.codec import encode
from models.wire.envelope import SigningKey, VerifyKey, sign_payload
from models.wire.errors import SignatureError
from models.wire.sealing import padded

from .errors import KeyFileError, KeyFileMissingError

if TYPE_CHECKING:
    from pathlib import Path

    from models.wire.messages import Message

KEY_MODE = 0o600
PUBLIC_SUFFIX = ".public.json"


@dataclass(frozen=True, slots=True)
class Signer:
    """Signs what the server says."""

    key: SigningKey

    @property
    def verify_key(self) -> VerifyKey:
        """What devices check with."""
        return self.key.verify_key

    def signed(self, message: Message) -> bytes:
        """Return the signed envelope of a message, padded: its length, sealed too, says little.

        Raises:
            MessageTooLargeError: it would not fit.
        """
        return sign_payload(padded(encode(message)), self.key)


def make_key_file(path: Path) -> VerifyKey:
    """Make a key, its file (mode 0600), and beside it `<file>.public.json` for the devices.

    Raises:
        KeyFileError: there is a file already; nothing was changed.
    """
    key = SigningKey.generate()
    public = public_key_path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        what = f"the folder cannot be made: {error.strerror}"
        raise KeyFileError(path, what, "name another folder") from None
    try:
        _write_new(path, key.to_pem(), mode=KEY_MODE)
    except FileExistsError:
        raise KeyFileError(path, "is there already", "name another file, or move it away") from None
    except OSError as error:
        what = f"cannot be written: {error.strerror}"
        raise KeyFileError(path, what, "check the folder") from None
    public.unlink(missing_ok=True)
    _write_new(public, public_key_json(key.verify_key), mode=0o644)
    return key.verify_key


def load_signer(path: Path) -> Signer:
    """Read a key file.

    Raises:
        KeyFileMissingError: it is not there.
        KeyFileError: others may read it, or it holds no key.
    """
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        pem = path.read_bytes()
    except FileNotFoundError:
        remedy = f"make one: fedcell server key --out {path}"
        raise KeyFileMissingError(path, "no such key file", remedy) from None
    except OSError as error:
        what = f"cannot be read: {error.strerror}"
        raise KeyFileError(path, what, "check the path and its owner") from None
    if mode & 0o077:
        raise KeyFileError(path, f"others may read it (mode {mode:04o})", f"chmod 600 {path}")
    try:
        return Signer(SigningKey.from_pem(pem))
    except SignatureError as error:
        remedy = "make one with 'fedcell server key'"
        raise KeyFileError(path, str(error), remedy) from None


def public_key_path(path: Path) -> Path:
    """Return where the public half of a key file lies."""
    return path.with_name(path.name + PUBLIC_SUFFIX)


def public_key_json(key: VerifyKey) -> bytes:
    """Return a public key as devices read it: key id and 64 hex digits."""
    return json.dumps({key.key_id: key.to_bytes().hex()}, indent=1).encode() + b"\n"


def _write_new(path: Path, content: bytes, *, mode: int) -> None:
    """Write a file aside and link it into place, so that no file is replaced or half there."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.link(aside, path)
    finally:
        aside.unlink()
