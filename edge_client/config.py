"""The settings of one device process: defaults, then a TOML file, the environment, the flags."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import InputError, InputMissingError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from fractions import Fraction

    from models.inference import Backend

    from .store.row_cipher import KeySource

ENVIRONMENT_PREFIX = "FEDCELL_DEVICE_"
CONFIG_FILE = "config"
DEFAULT_BROKER_PORT = 1883


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceConfig:
    """What a device process is told; every field is a flag, a TOML key and an environment variable.

    Attributes:
        store: the device's SQLite file.
        bundle: which model runs: `installed` (else the default one), `default`, or a path.
        trusted_keys: JSON file of the public keys (hex Ed25519, by key id) that sign bundles.
        backend: what runs the model: `onnxruntime`, `numpy`, or `auto` for the former where it is
            installed.
        broker: MQTT broker, `host:port`; None: the fleet's, once the device has joined one, else
            one on this machine.
        mqtt_tls: `auto`: TLS with the device's certificate once it has joined a fleet; `off`: in
            the clear.
        server_key: JSON file of the public keys (hex Ed25519, by key id) that sign notices; None:
            those that the fleet named when the device joined.
        store_key: file of the 32 bytes (raw, or 64 hexadecimal digits) that the store is sealed
            under; None: it is in the clear.
        hardware_id_file: file with this hardware's own identifier, to which the device's identity
            is bound; None looks at /etc/machine-id, then at the serial number in the device tree.
        bytes_per_day: MQTT bytes a day that leave, connecting included, above which only
            acknowledgements and notices pass; the rest waits for the next day.
        band_epsilon: ε of the noise on each band that a summary tells, 0.01 to 16, as a decimal
            or a fraction; None: bands are told as they are.
        personalisation: `on`: days to failure are corrected by what this device's own forecasts
            were worth, and that never leaves it; `off`: the model's word stands.
        sensor: where `run` takes readings from: `none`, `power_supply`, `power_supply:NAME` or
            `csv:FILE`.
        sample_every_h: hours between two readings of the sensor.
        look_every_min: minutes between two looks at the gauge, for temperatures and charges.
        releases: address of the repository of releases that `run` follows; None: it follows none.
        releases_root: `root.json` of that repository, as it came with the device.
        check_in_every_h: hours between two looks for a release; an announcement makes it sooner.
        gateway_rounds: `on`: `run` takes part in the rounds that a gateway offers, where the owner
            agrees to training; `off`: it hears none.
    """

    store: Path = field(metadata={"what": "the device's SQLite file"})
    bundle: str = field(
        default="installed",
        metadata={"what": "model: installed (else default), default, or the path of a bundle"},
    )
    trusted_keys: Path | None = field(
        default=None, metadata={"what": "JSON file of public keys that sign bundles"}
    )
    backend: str = field(
        default="auto",
        metadata={"what": "what runs the model: auto, onnxruntime or numpy"},
    )
    broker: str | None = field(
        default=None, metadata={"what": "MQTT broker, host:port; none: the fleet's"}
    )
    mqtt_tls: str = field(
        default="auto",
        metadata={"what": "auto: TLS once the device has joined a fleet; off: in the clear"},
    )
    server_key: Path | None = field(
        default=None, metadata={"what": "JSON file of public keys that sign notices"}
    )
    store_key: Path | None = field(
        default=None, metadata={"what": "file of the key that the store is sealed under"}
    )
    hardware_id_file: Path | None = field(
        default=None, metadata={"what": "file with this hardware's own identifier"}
    )
    bytes_per_day: int = field(
        default=65_536,
        metadata={"what": "MQTT bytes a day above which only acknowledgements and notices pass"},
    )

    band_epsilon: str | None = field(
        default=None, metadata={"what": "privacy parameter of noise on each reported band, or none"}
    )

    personalisation: str = field(
        default="on",
        metadata={"what": "correct days to failure by this device's own forecasts: on or off"},
    )

    sensor: str = field(
        default="none",
        metadata={"what": "sensor of run: none, power_supply, power_supply:NAME or csv:FILE"},
    )
    sample_every_h: int = field(
        default=6, metadata={"what": "hours between two readings of the sensor"}
    )
    look_every_min: int = field(
        default=10, metadata={"what": "minutes between two looks at the gauge"}
    )

    releases: str | None = field(
        default=None, metadata={"what": "address of the repository of releases that run follows"}
    )
    releases_root: Path | None = field(
        default=None, metadata={"what": "root.json of that repository, for the first time"}
    )
    check_in_every_h: int = field(
        default=24, metadata={"what": "hours between two looks for a release"}
    )

    gateway_rounds: str = field(
        default="off",
        metadata={"what": "take part in the rounds that a gateway offers: on or off"},
    )

    def noise_epsilon(self) -> Fraction | None:
        """Return ε of the noise on reported bands, None without noise.

        Raises:
            InputError: the setting is no number between 0.01 and 16.
        """
        if self.band_epsilon is None:
            return None
        from fractions import Fraction

        from .band_noise import LEAST_EPSILON, MOST_EPSILON

        remedy = f"give a number from {float(LEAST_EPSILON)} to {MOST_EPSILON}"
        try:
            epsilon = Fraction(self.band_epsilon)
        except (ValueError, ZeroDivisionError):
            what = f"is no number: {self.band_epsilon!r}"
            raise InputError("band_epsilon", what, remedy) from None
        if not LEAST_EPSILON <= epsilon <= MOST_EPSILON:
            raise InputError("band_epsilon", f"is out of range: {self.band_epsilon}", remedy)
        return epsilon

    def is_personal(self) -> bool:
        """Return whether the device corrects days to failure by its own forecasts.

        Raises:
            InputError: the setting is neither on nor off.
        """
        return _is_on("personalisation", self.personalisation)

    def takes_part_behind_gateway(self) -> bool:
        """Return whether `run` takes part in the rounds that a gateway offers.

        Raises:
            InputError: the setting is neither on nor off.
        """
        return _is_on("gateway_rounds", self.gateway_rounds)

    def chosen_backend(self) -> Backend | None:
        """Return what runs the model, None for the best of this machine.

        Raises:
            InputError: nothing has this name.
        """
        if self.backend == "auto":
            return None
        from models.inference import Backend

        try:
            return Backend(self.backend)
        except ValueError:
            known = f"give auto, {' or '.join(Backend)}"
            raise InputError("backend", f"is unknown: {self.backend!r}", known) from None

    def key_source(self) -> KeySource | None:
        """Return what reads the store's key whenever the store is opened, None without a key."""
        if self.store_key is None:
            return None
        from .store.row_cipher import key_from_file

        return key_from_file(self.store_key)

    def wants_tls(self) -> bool:
        """Return whether a device that has joined a fleet speaks TLS.

        Raises:
            InputError: the setting is neither auto nor off.
        """
        if self.mqtt_tls not in {"auto", "off"}:
            raise InputError("mqtt_tls", f"is unknown: {self.mqtt_tls!r}", "give auto or off")
        return self.mqtt_tls == "auto"

    def broker_address(self) -> tuple[str, int]:
        """Return host and port of the broker that was named, or of one on this machine.

        Raises:
            InputError: the setting is no address.
        """
        if self.broker is None:
            return "127.0.0.1", DEFAULT_BROKER_PORT
        host, colon, port = self.broker.rpartition(":")
        if not colon or host.endswith(":") or self.broker.endswith("]"):
            host, port = self.broker, str(DEFAULT_BROKER_PORT)
        host = host.removeprefix("[").removesuffix("]")
        if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65_536:
            raise InputError("broker", f"is no address: {self.broker!r}", "give host:port")
        return host, int(port)


SETTINGS = tuple(entry.name for entry in fields(DeviceConfig))
"""The names of all settings."""

_NUMBERS = frozenset({"bytes_per_day", "sample_every_h", "look_every_min", "check_in_every_h"})
_LARGEST = 2**53
_TABLES = frozenset({"node"})
"""Tables of the TOML file that other parts read: `rounds_node.settings`."""
_PATHS = frozenset(
    {"store", "trusted_keys", "server_key", "store_key", "hardware_id_file", "releases_root"}
)


def what_is(setting: str) -> str:
    """Say what a setting is for, in a few words."""
    return next(
        str(entry.metadata["what"]) for entry in fields(DeviceConfig) if entry.name == setting
    )


def read_config(flags: Mapping[str, str], environment: Mapping[str, str]) -> DeviceConfig:
    """Put the settings together.

    Args:
        flags: what the command line said, by setting; `config` names the TOML file.
        environment: of the process: `FEDCELL_DEVICE_STORE` and so on.

    Raises:
        InputMissingError: the TOML file is not there.
        InputError: it cannot be read, or holds a key that is no setting.
    """
    said = {
        name: environment[ENVIRONMENT_PREFIX + name.upper()]
        for name in (*SETTINGS, CONFIG_FILE)
        if environment.get(ENVIRONMENT_PREFIX + name.upper())
    }
    said |= flags
    file = said.pop(CONFIG_FILE, None)
    texts = ({} if file is None else _texts_of(Path(file))) | said
    values: dict[str, object] = {
        name: _typed(name, text) for name, text in texts.items() if name in SETTINGS
    }
    return DeviceConfig(**({"store": _default_store(environment)} | values))  # type: ignore[arg-type]


def _is_on(name: str, text: str) -> bool:
    if text not in {"on", "off"}:
        raise InputError(name, f"is unknown: {text!r}", "give on or off")
    return text == "on"


def _typed(name: str, text: str) -> object:
    if name in _PATHS:
        return Path(text)
    if name not in _NUMBERS:
        return text
    if not text.isascii() or not text.isdigit() or not 0 < int(text[:20]) <= _LARGEST:
        raise InputError(name, f"is no whole number above 0: {text[:40]!r}", "correct it")
    return int(text)


def _default_store(environment: Mapping[str, str]) -> Path:
    state = environment.get("XDG_STATE_HOME")
    base = Path(state) if state else Path(environment.get("HOME", ".")) / ".local" / "state"
    return base / "fedcell" / "device.db"


def read_toml(path: Path) -> dict[str, Any]:
    """Return what the TOML file of settings holds.

    Raises:
        InputMissingError: there is no such file.
        InputError: it cannot be read, or is no TOML.
    """
    import tomllib

    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except FileNotFoundError:
        raise InputMissingError(path, "there is no such file", "check --config") from None
    except OSError as error:
        raise InputError(path, f"cannot be read: {error.strerror}", "check --config") from error
    except ValueError as error:
        raise InputError(path, f"is no TOML: {error}", "correct the file") from error


def _texts_of(path: Path) -> dict[str, str]:
    content = read_toml(path)
    for name in [name for name, value in content.items() if isinstance(value, dict)]:
        if name in _TABLES:
            del content[name]
    for name, value in content.items():
        if name not in SETTINGS:
            raise InputError(path, f"unknown setting {name}", f"known are {', '.join(SETTINGS)}")
        if name in _NUMBERS and type(value) is int:
            content[name] = str(value)
        elif not isinstance(value, str):
            raise InputError(path, f"{name} is no text: {value!r}", "put it into quotes")
    return {
        name: str(path.parent / value) if name in _PATHS else value
        for name, value in content.items()
    }
