"""The SuperNodes that may connect: keys that devices enrolled, of nobody who is shut out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..storage.enrolments import Enrolments

if TYPE_CHECKING:
    from sqlalchemy import Connection


def enrolled_supernodes(connection: Connection) -> list[tuple[str, str]]:
    """Return each device with its SuperNode's public key, by name; revoked ones are left out.

    So are devices of a database of before that name the key of one that is revoked: whoever holds
    it is shut out under every name.

    Args:
        connection: to the server's database.

    Returns:
        Pairs of device id and public key in OpenSSH form (P-384, no comment).
    """
    devices = list(Enrolments(connection).devices())
    shut_out = {device.supernode_key for device in devices if device.revoked_at is not None}
    return [
        (device.device_id, device.supernode_key)
        for device in devices
        if device.supernode_key is not None and device.supernode_key not in shut_out
    ]
