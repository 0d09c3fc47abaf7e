"""What takes part in rounds behind a gateway, put together from a device's settings.

The terms are those of a node in rounds, in the same table of the same file: a device that changes
from a gateway to a node of its own takes them along.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from models.trusted_keys import read_trusted_keys

from ..node_values import HARDWARE_KEY, POLICY_KEYS_KEY, SEALED_UNDER_KEY, STORE_KEY
from ..rounds_node.settings import read_settings
from .taking_part import SiteRounds

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from ..config import DeviceConfig
    from ..own_training import OwnDevice


@dataclass(frozen=True, slots=True)
class DeviceAt:
    """Makes the device that takes part at a moment; what that needs is loaded by the first call.

    Attributes:
        values: of a node's configuration, by name.
        server_keys: Ed25519 public keys (32 raw bytes), by key id, that sign policies and receipts
            where `values` names no others.
    """

    values: Mapping[str, str | int | float | bool]
    server_keys: Mapping[str, bytes]

    def __call__(self, now: datetime) -> OwnDevice:
        """Return the device.

        Raises:
            InputError: a value cannot be used.
        """
        from ..own_training import own_device

        return own_device(self.values, now=now, policy_keys=self.server_keys)


def site_rounds_of(
    config: DeviceConfig,
    terms: Path | None,
    *,
    server_keys: Mapping[str, bytes],
    grant_time: Callable[[], datetime],
) -> SiteRounds:
    """Return what takes part in rounds behind a gateway.

    Args:
        config: of the process.
        terms: TOML file whose table `[node]` says on which terms; None: on the usual ones.
        server_keys: Ed25519 public keys (32 raw bytes) that the server signs with, by key id.
        grant_time: the time by which grants end; never before what the server said last.

    Raises:
        InputMissingError: the file is not there.
        InputError: a term cannot be used.
        models.errors.ModelsError: the keys that may sign policies cannot be read.
    """
    own = {
        STORE_KEY: config.store,
        SEALED_UNDER_KEY: config.store_key,
        HARDWARE_KEY: config.hardware_id_file,
    }
    named = {name: str(path) for name, path in own.items() if path is not None}
    values = {**read_settings(terms).values, **named}
    keys = values.get(POLICY_KEYS_KEY)
    if keys is not None:
        # What a round could not use is said at the start.
        read_trusted_keys(Path(str(keys)))
    return SiteRounds(DeviceAt(values, server_keys), grant_time=grant_time)
