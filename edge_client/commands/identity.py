"""`identity`: the public halves of the device's keys; and what `init` asks of the hardware."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from ..errors import InputError
from .answers import answer, config_of, open_store, table

if TYPE_CHECKING:
    import argparse

    from ..config import DeviceConfig


def add_identity(identity: argparse.ArgumentParser) -> None:
    """Add the arguments of `identity`: there are none of its own."""
    identity.description = "Print the public keys as a line for the server's file of device keys."


def run_identity(arguments: argparse.Namespace) -> int:
    """Print the public halves; with --json exactly as the server's file of device keys takes it."""
    from ..provisioning.first_boot import identity_line
    from ..provisioning.identity import read_identity, require_hardware

    config = config_of(arguments)
    line = identity_line(config.store)
    identity = read_identity(config.store)
    if identity is not None:
        require_hardware(identity, config.store, hardware_id=hardware_id_of(config))
    ((device_id, keys),) = line.items()
    is_bound = identity is not None and identity.hardware is not None
    rows = [
        ("device", device_id),
        ("signs with", keys["sign"]),
        ("sealed to", keys["seal"]),
        ("hardware", "bound to this one" if is_bound else "not bound: it says no identifier"),
    ]
    hint = ["", "for the server's file of device keys:", json.dumps(line)]
    answer(arguments, line, [*table(rows), *hint])
    return 0


def run_add_identity(arguments: argparse.Namespace) -> int:
    """Give an existing store its identity."""
    from ..provisioning.first_boot import add_identity

    config = config_of(arguments)
    with open_store(arguments) as store:
        made = add_identity(store, hardware_id=hardware_id_of(config))
        device_id = str(store.profile.device_id)
    words = "made the keys of" if made else "there are keys already of"
    data = {"store": str(config.store), "device_id": device_id, "made": made}
    answer(arguments, data, [f"{words} {device_id}; show them: fedcell-device identity"])
    return 0


def hardware_id_of(config: DeviceConfig) -> bytes | None:
    """Return this hardware's identifier, None where it says none."""
    from ..provisioning.identity import hardware_id_files, read_hardware_id

    return read_hardware_id(hardware_id_files(config.hardware_id_file))


def derived_device_id(arguments: argparse.Namespace, config: DeviceConfig) -> str | None:
    """Return the device id that `--device-id-from` asks for, None where it was not given.

    Raises:
        InputError: this hardware does not say what is asked for.
    """
    from ..provisioning.identity import (
        HARDWARE_SERIAL,
        MACHINE_ID,
        device_id_from,
        hardware_id_files,
        read_hardware_id,
    )

    if arguments.device_id_from is None:
        return None
    usual = MACHINE_ID if arguments.device_id_from == "machine-id" else HARDWARE_SERIAL
    chosen = config.hardware_id_file
    files = (usual,) if chosen is None else hardware_id_files(chosen)
    found = read_hardware_id(files)
    if found is None:
        remedy = "name a file that does: --hardware-id-file, or give --device-id"
        raise InputError(usual, "says no identifier", remedy)
    return device_id_from(found)
