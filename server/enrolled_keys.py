"""The public keys of enrolled devices, from the server's database."""

from __future__ import annotations

from typing import TYPE_CHECKING

from models.wire.envelope import VerifyKey
from models.wire.sealing import SealKey

from .device_keys import DeviceKeys
from .storage.enrolments import Enrolments

if TYPE_CHECKING:
    from .device_keys import DeviceKeySource
    from .storage.database import Database


class EnrolledKeys:
    """Looks keys up in the database at every turn; of a revoked device there are none.

    Args:
        database: where enrolments are kept.
        others: where else to look for devices that were never enrolled, None for nowhere.
    """

    def __init__(self, database: Database, others: DeviceKeySource | None = None) -> None:
        self._database = database
        self._others = others

    def of(self, device_id: str) -> DeviceKeys | None:
        """Return a device's keys, None where it is not enrolled, or shut out.

        Raises:
            StorageUnavailableError: the database is gone.
        """
        with self._database.reading() as connection:
            found = Enrolments(connection).device(device_id)
        if found is None:
            return None if self._others is None else self._others.of(device_id)
        if found.revoked_at is not None:
            return None
        return DeviceKeys(VerifyKey.from_bytes(found.sign_key), SealKey.from_bytes(found.seal_key))
