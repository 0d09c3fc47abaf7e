"""What a real device brings to a round: its own store, rows made from it, its own entropy.

The rows are made here, by the same functions as everywhere, and never leave. A device whose owner
has not agreed to training names no device and trains nothing.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from models.featurize import featurize
from models.labels import label_packs
from models.telemetry import DeviceProfiles
from models.training_rows import training_rows
from privacy import OperatingSystemNoise

from .errors import InputMissingError, TaskRefusedError
from .link.configuration import allowed
from .provisioning.identity import (
    HARDWARE_ID_FILES,
    hardware_id_files,
    own_identity,
    read_hardware_id,
)
from .store.mailbox import Purpose
from .store.row_cipher import key_from_file
from .telemetry_store import TelemetryStore

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    from models.training_rows import TrainingRows
    from privacy import NoiseSource

    from .store.row_cipher import KeySource

STORE_KEY = "telemetry-db"
"""Key of the node's configuration that names the device's store."""
SEALED_UNDER_KEY = "store-key"
"""Key that names the file with the key that the store is sealed under, where it is."""
HARDWARE_KEY = "hardware-id-file"
"""Key that names the file with this hardware's identifier, where it is not a usual one."""


@dataclass(frozen=True, slots=True)
class OwnDevice:
    """The one device behind a node of its own.

    Attributes:
        store: path of the device's store.
        now: aware time; what claims to be more than a day later is no reading.
        hardware_id_files: where this hardware says its identifier.
        key: the store is sealed under, None for one in the clear.
    """

    store: Path
    now: datetime
    hardware_id_files: tuple[Path, ...] = HARDWARE_ID_FILES
    key: KeySource | None = None

    @property
    def device_ids(self) -> tuple[str, ...]:
        """The device's identifier; none without its owner's consent, or where training is stopped.

        Raises:
            CloneError: store or identity come from another device.
        """
        with self._open() as store:
            return (str(store.profile.device_id),) if allowed(store, Purpose.TRAINING) else ()

    def rows(self, device_id: str) -> TrainingRows:
        """Training rows from the device's own readings, labelled by rule.

        Raises:
            TaskRefusedError: another device is asked for, its owner does not agree, or training is
                stopped from afar.
            CloneError: store or identity come from another device.
        """
        with self._open() as store:
            if not store.consents()[Purpose.TRAINING].granted:
                raise TaskRefusedError("the owner does not agree to training")
            if not allowed(store, Purpose.TRAINING):
                raise TaskRefusedError("training is stopped by the server's configuration")
            if device_id != store.profile.device_id:
                raise TaskRefusedError(f"this is device {store.profile.device_id}, not {device_id}")
            telemetry = store.telemetry()
            profiles = DeviceProfiles.of([store.profile])
            references = store.references_beyond_the_ring()
            answers = store.owner_answers()
        now_s = int(self.now.timestamp())
        table = featurize(telemetry, profiles, now_s=now_s, references=references)
        packs = label_packs(
            telemetry, profiles, now_s=now_s, answers=answers, references=references
        )
        return training_rows(table, packs)

    def source(self, device_id: str, *, stream: str, index: int) -> NoiseSource:  # noqa: ARG002
        """The operating system's entropy, whatever the step."""
        return OperatingSystemNoise()

    @contextmanager
    def _open(self) -> Iterator[TelemetryStore]:
        with TelemetryStore(self.store, key=self.key) as store:
            hardware_id = read_hardware_id(self.hardware_id_files)
            own_identity(store, device_id=store.profile.device_id, hardware_id=hardware_id)
            yield store


def own_device(node_config: Mapping[str, object], *, now: datetime) -> OwnDevice:
    """Find the device behind a node by the node's configuration.

    Args:
        node_config: of the SuperNode.
        now: aware time.

    Raises:
        InputMissingError: the configuration names no store.
    """
    path = node_config.get(STORE_KEY)
    if not isinstance(path, str) or not path:
        raise InputMissingError(
            "node configuration",
            f"{STORE_KEY} is missing",
            f"start flower-supernode with --node-config '{STORE_KEY}=\"PATH\"'",
        )
    chosen, sealed_under = _path(node_config, HARDWARE_KEY), _path(node_config, SEALED_UNDER_KEY)
    key = None if sealed_under is None else key_from_file(sealed_under)
    return OwnDevice(Path(path), now, hardware_id_files(chosen), key)


def _path(node_config: Mapping[str, object], name: str) -> Path | None:
    named = node_config.get(name)
    return Path(named) if isinstance(named, str) and named else None
