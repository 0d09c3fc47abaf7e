"""Values of a SuperNode's configuration, read by their names, and the names that many ask for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

STORE_KEY = "telemetry-db"
"""Key of the node's configuration that names the device's store."""
SEALED_UNDER_KEY = "store-key"
"""Key that names the file with the key that the store is sealed under, where it is."""
HARDWARE_KEY = "hardware-id-file"
"""Key that names the file with this hardware's identifier, where it is not a usual one."""
POLICY_KEYS_KEY = "policy-keys"
"""Key that names the JSON file of the public keys that may sign policies and receipts."""
_FIX = "correct it"


def flag_of(node_config: Mapping[str, object], name: str, *, default: bool) -> bool:
    """Return a value that is true or false.

    Raises:
        InputError: it is neither.
    """
    value = node_config.get(name, default)
    if not isinstance(value, bool):
        raise InputError("node configuration", f"{name} must be true or false, got {value!r}", _FIX)
    return value


def number_of(node_config: Mapping[str, object], name: str, *, most: float) -> float | None:
    """Return a number from 0 to `most`, None where it is not given.

    Raises:
        InputError: it is none, or out of range.
    """
    value = node_config.get(name)
    if value is None:
        return None
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 <= value <= most:  # type: ignore[operator]
        what = f"{name} must be a number from 0 to {most:g}, got {value!r}"
        raise InputError("node configuration", what, _FIX)
    return float(value)  # type: ignore[arg-type]


def path_of(node_config: Mapping[str, object], name: str) -> Path | None:
    """Return a path, None where no text is given."""
    named = node_config.get(name)
    return Path(named) if isinstance(named, str) and named else None
