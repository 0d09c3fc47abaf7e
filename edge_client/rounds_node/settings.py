"""What the node of a device is told: the table `[node]` of the device's TOML file, and flags.

The table holds `superlink`, `app-pin`, and any value of a node's configuration by its own name, so
that nobody writes a `--node-config` by hand. What the device knows already (its store, the keys
that seal it, the keys that sign policies) stands there by itself.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..config import read_toml
from ..errors import InputError
from ..node_values import HARDWARE_KEY, POLICY_KEYS_KEY, SEALED_UNDER_KEY, STORE_KEY

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from ..config import DeviceConfig

NodeValue = str | int | float | bool

PATH_VALUES = frozenset(
    {POLICY_KEYS_KEY, "conditions-file", "power-supplies", HARDWARE_KEY, "gateway-site"}
)
"""Values that are paths; those that the TOML file names lie relative to it."""
OTHER_VALUES = frozenset(
    {
        "training-path",
        "own-participations",
        "own-epsilon",
        "own-min-cohort",
        "train-needs-charging",
        "train-least-battery",
        "train-most-load",
        "train-metered",
        "train-wait-s",
        "network-metered",
        "gateway-broker",
        "gateway-deadline-s",
    }
)
TABLE = "node"


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundsSettings:
    """What the node is told.

    Attributes:
        superlink: `host:port` of the SuperLink; None: as the fleet named it.
        app_pin: file of a signed pin, besides the one that the fleet hands out; None: no file.
        values: of the node's configuration, by name.
    """

    superlink: str | None = None
    app_pin: Path | None = None
    values: Mapping[str, NodeValue] = field(default_factory=dict)


def read_settings(file: Path | None) -> RoundsSettings:
    """Read the table of a TOML file.

    Args:
        file: None: nothing is told.

    Raises:
        InputMissingError: there is no such file.
        InputError: it cannot be read, or holds what is no setting of a node.
    """
    if file is None:
        return RoundsSettings()
    told = _table(file)
    superlink, pin = told.pop("superlink", None), told.pop("app-pin", None)
    for name, text in (("superlink", superlink), ("app-pin", pin)):
        if text is not None and not isinstance(text, str):
            raise InputError(file, f"{TABLE}.{name} is no text: {text!r}", "put it into quotes")
    return RoundsSettings(
        superlink=str(superlink) if superlink else None,
        app_pin=file.parent / str(pin) if pin else None,
        values={name: _value(file, name, value) for name, value in told.items()},
    )


def address_of(superlink: str) -> tuple[str, int]:
    """Return host and port of a SuperLink's address.

    Raises:
        InputError: it is none, or nobody named one.
    """
    host, _, port = superlink.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if host and port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65_536:
        return host, int(port)
    what = f"is no address: {superlink[:80]!r}" if superlink else "is not named by the fleet"
    raise InputError("superlink", what, "give --superlink HOST:PORT")


def node_values(
    config: DeviceConfig, settings: RoundsSettings, *, policy_keys: Path
) -> dict[str, NodeValue]:
    """Return the configuration of the device's node, as `edge_client.own_training` reads it.

    Args:
        config: of the device.
        settings: of its node; what stands there counts before the rest.
        policy_keys: file of the keys that sign what the fleet's server says.
    """
    known = {
        STORE_KEY: config.store,
        POLICY_KEYS_KEY: policy_keys,
        SEALED_UNDER_KEY: config.store_key,
        HARDWARE_KEY: config.hardware_id_file,
    }
    named = {name: str(path.absolute()) for name, path in known.items() if path is not None}
    return {**named, **settings.values}


def as_toml(values: Mapping[str, NodeValue]) -> bytes:
    """Return values as `flower-supernode --node-config FILE.toml` reads them."""
    # A JSON text, number or truth value is one of TOML too; DEL alone would not be.
    lines = (f"{name} = {json.dumps(value)}\n" for name, value in values.items())
    return "".join(lines).replace("\x7f", "\\u007f").encode()


def _table(file: Path) -> dict[str, object]:
    told = read_toml(file).get(TABLE, {})
    if not isinstance(told, dict):
        raise InputError(file, f"{TABLE} is no table", f"write [{TABLE}] above its settings")
    return told


def _value(file: Path, name: str, value: object) -> NodeValue:
    if name not in PATH_VALUES | OTHER_VALUES:
        known = ", ".join(sorted({"superlink", "app-pin"} | PATH_VALUES | OTHER_VALUES))
        raise InputError(file, f"unknown setting {TABLE}.{name}", f"known are {known}")
    if not isinstance(value, bool | int | float | str):
        what = f"{TABLE}.{name} is no text, number or truth value"
        raise InputError(file, what, "correct it")
    if name not in PATH_VALUES:
        return value
    if not isinstance(value, str):
        raise InputError(file, f"{TABLE}.{name} is no path: {value!r}", "put it into quotes")
    return str((file.parent / value).absolute())
