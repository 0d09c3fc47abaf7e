"""The secrets of one stream: the key of its noise and the key of its pseudonyms, kept sealed.

Whoever has the noise's key can take the noise off every model of the stream. So the file is for its
owner's eyes alone (0600), and where the operator gives a key file it is sealed under that key with
AES-256-GCM, bound to stream and policy; aggregates without noise are sealed alike. Nothing here is
ever logged, printed or copied into a report. Each opening of the stream writes the file anew, under
a fresh generation that the privacy home knows, too: see `stream_opening`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import secrets
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from models.durable_file import sync_folder
from privacy.canonical_json import canonical_json
from privacy.events import ENTRY_KINDS

from ..privacy_home.privacy_errors import StreamKeyError

if TYPE_CHECKING:
    from pathlib import Path

    from privacy import EntryKind

KEY_FILE: Final = "stream.key"
KEY_BYTES: Final = 32
SCHEMA_VERSION: Final = 2
_GENERATION_BYTES: Final = 16
_NONCE_BYTES: Final = 12
_TAG_BYTES: Final = 16
_PSEUDONYM_DIGITS: Final = 32


@dataclass(frozen=True, slots=True)
class OperatorKey:
    """The operator's key over what a stream keeps; its bytes never stand in its repr."""

    _key: bytes = field(repr=False)

    def seal(self, content: bytes, *, bound_to: bytes) -> bytes:
        """Return nonce, ciphertext and tag of content that opens nowhere else."""
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        nonce = os.urandom(_NONCE_BYTES)
        return nonce + AESGCM(self._key).encrypt(nonce, content, bound_to)

    def open(self, sealed: bytes, *, bound_to: bytes, where: Path) -> bytes:
        """Return the content.

        Raises:
            StreamKeyError: it was sealed under another key or for another stream, or altered.
        """
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        what = "does not open under the operator's key"
        remedy = "give the key file that it was sealed with"
        if len(sealed) < _NONCE_BYTES + _TAG_BYTES:
            raise StreamKeyError(where, what, remedy)
        try:
            return AESGCM(self._key).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], bound_to)
        except InvalidTag:
            raise StreamKeyError(where, what, remedy) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamSecrets:
    """What only the server of a stream may know.

    Attributes:
        stream: whose secrets they are.
        policy_digest: of its policy.
        kind: how its entries are stamped.
        noise_key: 256 bits of the noise.
        pseudonym_key: 256 bits of the pseudonyms.
        is_sealed: whether the file is sealed under the operator's key.
        generation: drawn when the stream was last opened; empty in yesterday's files.
        bound_from: first step whose noise is bound to its sum; None in yesterday's files.
    """

    stream: str
    policy_digest: str
    kind: EntryKind
    noise_key: bytes = field(repr=False)
    pseudonym_key: bytes = field(repr=False)
    is_sealed: bool = False
    generation: str = ""
    bound_from: int | None = None

    def binds(self, index: int) -> bool:
        """Tell whether the noise of a step is bound to its sum."""
        return self.bound_from is not None and index >= self.bound_from

    def pseudonym(self, device_id: str, *, index: int) -> str:
        """The name of a device in one step, in whatever is stored, logged or reported of it.

        HMAC-SHA256 of index and identifier: two steps show no common name, and without the key
        nobody can tell whose it is.
        """
        message = f"{index}\n{device_id}".encode()
        return hmac.new(self.pseudonym_key, message, hashlib.sha256).hexdigest()[:_PSEUDONYM_DIGITS]


def new_secrets(
    stream: str, policy_digest: str, *, noise_key: bytes, kind: EntryKind, is_sealed: bool
) -> StreamSecrets:
    """Return the secrets of a stream that begins, with a fresh key of pseudonyms.

    Args:
        stream: its name.
        policy_digest: of its policy.
        noise_key: 256 bits.
        kind: how its entries are stamped.
        is_sealed: whether the file will be sealed.
    """
    return StreamSecrets(
        stream=stream,
        policy_digest=policy_digest,
        kind=kind,
        noise_key=noise_key,
        pseudonym_key=secrets.token_bytes(KEY_BYTES),
        is_sealed=is_sealed,
        generation=new_generation(),
        bound_from=0,
    )


def read_operator_key(path: Path) -> OperatorKey:
    """Read a key file: 32 raw bytes, or 64 hexadecimal digits.

    Raises:
        StreamKeyError: it is not there, others may read it, or it holds no key.
    """
    make = f"make one: (umask 077; head -c 32 /dev/urandom > {path})"
    content = _private_content(path, make)
    if len(content) == KEY_BYTES:
        return OperatorKey(content)
    try:
        key = bytes.fromhex(content.decode("ascii"))
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise StreamKeyError(path, f"holds no key of {KEY_BYTES} bytes", make)
    return OperatorKey(key)


def new_generation() -> str:
    """Name one opening of a stream: 128 bits of the operating system's entropy."""
    return secrets.token_hex(_GENERATION_BYTES)


def write_secrets(path: Path, own: StreamSecrets, *, operator: OperatorKey | None) -> None:
    """Write a stream's secrets once, durably, readable for nobody else.

    Raises:
        StreamKeyError: there is a file already, or the disk refuses; nothing was changed.
    """
    try:
        _write_new(path, _content_of(own, operator))
        sync_folder(path.parent)
    except OSError as error:
        what = f"cannot be written ({error.strerror})"
        raise StreamKeyError(path, what, "give another --out, or free space") from error


def rewrite_secrets(path: Path, own: StreamSecrets, *, operator: OperatorKey | None) -> None:
    """Replace a stream's secrets durably by the same keys under another generation.

    Raises:
        StreamKeyError: the disk refuses; the file is as it was.
    """
    aside = path.with_name(f".{path.name}.part")
    try:
        aside.unlink(missing_ok=True)
        _write_new(aside, _content_of(own, operator))
        aside.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        aside.unlink(missing_ok=True)
        what = f"cannot be written ({error.strerror})"
        raise StreamKeyError(path, what, "free space, then try again") from error


def read_secrets(path: Path, *, operator: OperatorKey | None) -> StreamSecrets:
    """Read a stream's secrets.

    Raises:
        StreamKeyError: they are not there, others may read them, they are damaged or sealed under
            another key.
    """
    new = "open a new stream"
    content = _private_content(path, new)
    try:
        fields: dict[str, Any] = json.loads(content)
        secret = base64.b64decode(fields["secret"], validate=True)
        stream, digest, kind = fields["stream"], fields["policy_digest"], fields["kind"]
        is_sealed = fields["is_sealed"]
        generation, bound_from = fields.get("generation", ""), fields.get("bound_from")
    except (ValueError, KeyError, TypeError):
        raise StreamKeyError(path, "is damaged", new) from None
    if is_sealed and operator is None:
        raise StreamKeyError(path, "is sealed, and no key was given", "give --stream-key-file")
    if is_sealed and operator is not None:
        secret = operator.open(secret, bound_to=_binding(stream, digest), where=path)
    if len(secret) != 2 * KEY_BYTES or kind not in ENTRY_KINDS:
        raise StreamKeyError(path, "is damaged", new)
    return StreamSecrets(
        stream=stream,
        policy_digest=digest,
        kind=kind,
        noise_key=secret[:KEY_BYTES],
        pseudonym_key=secret[KEY_BYTES:],
        is_sealed=is_sealed,
        generation=generation,
        bound_from=bound_from,
    )


def _content_of(own: StreamSecrets, operator: OperatorKey | None) -> bytes:
    content = own.noise_key + own.pseudonym_key
    if operator is not None:
        content = operator.seal(content, bound_to=_binding(own.stream, own.policy_digest))
    fields = {
        "schema_version": SCHEMA_VERSION,
        "stream": own.stream,
        "policy_digest": own.policy_digest,
        "kind": own.kind,
        "is_sealed": operator is not None,
        "secret": base64.b64encode(content).decode("ascii"),
        "generation": own.generation,
        "bound_from": own.bound_from,
    }
    return (canonical_json(fields) + "\n").encode("ascii")


def _write_new(path: Path, content: bytes) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(handle, content)
        os.fsync(handle)
    finally:
        os.close(handle)


def _private_content(path: Path, remedy: str) -> bytes:
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        content = path.read_bytes()
    except OSError as error:
        raise StreamKeyError(path, f"cannot be read ({error.strerror})", remedy) from error
    if mode & 0o077:
        raise StreamKeyError(path, f"others may read it (mode {mode:04o})", f"chmod 600 {path}")
    return content


def _binding(stream: str, policy_digest: str) -> bytes:
    return f"fedcell/v1/stream-key\n{stream}\n{policy_digest}".encode()
