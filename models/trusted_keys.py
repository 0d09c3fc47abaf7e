"""Public keys that a device or operator trusts: a JSON object of key id -> 64 hex digits."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from .errors import ArtefactMissingError, BundleError

if TYPE_CHECKING:
    from pathlib import Path

KEY_BYTES = 32


def read_trusted_keys(path: Path) -> dict[str, bytes]:
    """Read Ed25519 public keys by key id.

    Raises:
        ArtefactMissingError: there is no such file.
        BundleError: it cannot be read, or holds something else.
    """
    remedy = 'write {"<key id>": "<64 hex digits>"}'
    try:
        named = json.loads(path.read_text())
        keys = {str(key_id): bytes.fromhex(value) for key_id, value in named.items()}
    except FileNotFoundError as error:
        raise ArtefactMissingError(path, "no such key file", "check the path") from error
    except OSError as error:
        what = f"cannot be read: {error.strerror}"
        raise BundleError(path, what, "check the path and its owner") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise BundleError(path, "not a file of public keys", remedy) from error
    for key_id, key in keys.items():
        if len(key) != KEY_BYTES:
            raise BundleError(path, f"key {key_id!r} has {len(key)} bytes", remedy)
    return keys
