"""The stores of the six devices, filled from their history up to the one simulated moment."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge_client.model_store import ModelStore
from edge_client.provisioning.first_boot import add_identity, identity_line
from edge_client.provisioning.identity import read_hardware_id
from edge_client.store.mailbox import Purpose
from edge_client.telemetry_store import TelemetryStore, readings_of
from models.quiet_hours import QuietHours

from ..run_report_parts import Expectation

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from .chosen_devices import Cast, ChosenDevice
    from .scene import JudgedFleet

SLEEPING_OWNER = QuietHours(22, 7, "Asia/Dubai")
"""Agents run at midnight UTC, when it is four in the morning in Dubai."""
GERMAN_READER = Expectation.SOON


@dataclass(frozen=True, slots=True)
class TrustedBundle:
    """A signed bundle that devices install.

    Attributes:
        path: of its zip.
        keys: Ed25519 public keys (32 raw bytes) by key id.
    """

    path: Path
    keys: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class FilledStore:
    """One device's store.

    Attributes:
        device: whose.
        path: its SQLite file.
        language: its owner's.
        num_readings: readings kept.
    """

    device: ChosenDevice
    path: Path
    language: str
    num_readings: int


def fill_stores(
    fleet: JudgedFleet, cast: Cast, folder: Path, *, bundle: TrustedBundle | None
) -> list[FilledStore]:
    """Make the six stores.

    Args:
        fleet: of which the devices are.
        cast: who, and when.
        folder: empty, for the stores.
        bundle: to install; None runs the default one.

    Raises:
        EdgeError: a store cannot be made.
        BundleError: the bundle does not verify.
    """
    first_soon = next((d for d in cast.devices if d.expectation is GERMAN_READER), None)
    return [
        _fill(
            fleet,
            cast,
            device,
            folder / f"{device.device_id}.db",
            language="de" if device is first_soon else "en",
            bundle=bundle,
        )
        for device in cast.devices
    ]


def write_device_keys(stores: list[FilledStore], path: Path) -> Path:
    """Write the devices' public keys for the server, as a factory would; returns the file."""
    lines = [json.dumps(identity_line(store.path)) for store in stores]
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def _fill(
    fleet: JudgedFleet,
    cast: Cast,
    device: ChosenDevice,
    path: Path,
    *,
    language: str,
    bundle: TrustedBundle | None,
) -> FilledStore:
    simulated = fleet.fleet
    own = simulated.telemetry.devices(device.position, device.position + 1)
    history = own.rows(own.at_s <= int(cast.now.timestamp()))
    is_asleep = device.expectation is Expectation.QUIET_HOURS
    with TelemetryStore.create(
        path,
        profile=simulated.profiles[device.position],
        language=language,
        quiet_hours=SLEEPING_OWNER if is_asleep else None,
    ) as store:
        add_identity(store, hardware_id=read_hardware_id())
        for purpose in Purpose:
            store.set_consent(purpose, granted=True, now=cast.now)
        kept = store.record_many(readings_of(history), now=cast.now).num_kept
    if bundle is not None:
        ModelStore.beside(path).install(bundle.path, trusted_keys=bundle.keys)
    return FilledStore(device=device, path=path, language=language, num_readings=kept)
