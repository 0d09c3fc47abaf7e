"""The settings of one server process: defaults, then a TOML file, the environment, the flags."""

from __future__ import annotations

import math
import tomllib
from dataclasses import dataclass, field, fields, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.wire.link_settings import LinkTls
from models.wire.messages import CONTACT

from .errors import SettingError, SettingsMissingError
from .outbox import DeliveryPolicy
from .replacements import NoticePolicy

if TYPE_CHECKING:
    from collections.abc import Mapping

ENVIRONMENT_PREFIX = "FEDCELL_SERVER_"
CONFIG_FILE = "config"
DEFAULT_PORT = 1883


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """What a server process is told; every field is a TOML key and an environment variable.

    Attributes:
        db: database URL.
        broker: MQTT broker, `host:port`.
        key: file of the key that signs what the server says.
        device_keys: file of the devices' public keys, to which notices are sealed; with one, a
            device that is not in it gets no notice.
        authority: folder of the fleet's authorities, for `fedcell fleet`.
        tls_ca: authorities that may speak for the broker; with them the hub speaks TLS, and notices
            are sealed to enrolled devices alone.
        tls_certificate: the hub's certificate.
        tls_key: its private key.
        human_contact: where owners reach a person; stands in every notice.
        contact_gap_days: least days between two notices to one device; a week, by the policy.
        notice_lifetime_days: days after which a notice is not delivered any more.
        first_retry_s: seconds from the first attempt to deliver to the second; then it doubles.
        longest_retry_s: seconds to which it doubles; a day, as a device that returns says so.
        releases: folder of releases; its part `repository` is what devices fetch from.
        release_key: file of the server's own key for releases, which says what is current.
        release_tls_certificate: by which releases are announced to a broker of a secured fleet.
        release_tls_key: its private key.
    """

    db: str = field(default="sqlite:///fedcell.db", metadata={"what": "database URL"})
    broker: str = field(
        default=f"127.0.0.1:{DEFAULT_PORT}", metadata={"what": "MQTT broker, `host:port`"}
    )
    key: Path = field(
        default=Path("fedcell-server.pem"), metadata={"what": "file of the key that signs notices"}
    )
    device_keys: Path | None = field(
        default=None, metadata={"what": "file of devices' public keys; notices are sealed to them"}
    )
    authority: Path = field(
        default=Path("fedcell-authority"), metadata={"what": "folder of the fleet's authorities"}
    )
    tls_ca: Path | None = field(
        default=None, metadata={"what": "PEM file of authorities that may speak for the broker"}
    )
    tls_certificate: Path | None = field(
        default=None, metadata={"what": "PEM file of the hub's certificate"}
    )
    tls_key: Path | None = field(
        default=None, metadata={"what": "PEM file of the hub's private key"}
    )
    human_contact: str = field(
        default="the shop where you bought the device",
        metadata={"what": "where owners reach a person"},
    )
    contact_gap_days: float = field(
        default=7.0, metadata={"what": "least days between two notices to one device"}
    )
    notice_lifetime_days: float = field(
        default=14.0, metadata={"what": "days after which a notice is dropped", "least": 1.0}
    )
    first_retry_s: float = field(
        default=60.0, metadata={"what": "seconds until an unacknowledged notice is repeated"}
    )
    longest_retry_s: float = field(
        default=86_400.0, metadata={"what": "seconds to which that doubles"}
    )
    releases: Path = field(
        default=Path("fedcell-releases"), metadata={"what": "folder of releases"}
    )
    release_key: Path = field(
        default=Path("fedcell-releases.pem"),
        metadata={"what": "file of the key that says which release is current"},
    )
    release_tls_certificate: Path | None = field(
        default=None, metadata={"what": "PEM file of the certificate that announces releases"}
    )
    release_tls_key: Path | None = field(
        default=None, metadata={"what": "PEM file of its private key"}
    )

    def broker_address(self) -> tuple[str, int]:
        """Return host and port of the broker.

        Raises:
            SettingError: the setting is no address.
        """
        return parse_address("broker", self.broker)

    def broker_tls(self) -> LinkTls | None:
        """Return how to speak TLS to the broker, None for a connection in the clear.

        Raises:
            SettingError: one of the three settings is missing.
        """
        parts = {name: getattr(self, name) for name in ("tls_ca", "tls_certificate", "tls_key")}
        missing = [name for name, value in parts.items() if value is None]
        if len(missing) == len(parts):
            return None
        if missing or self.tls_ca is None:
            raise SettingError(missing[0], "is missing", "give all three of tls_* or none")
        return LinkTls(authorities=self.tls_ca, certificate=self.tls_certificate, key=self.tls_key)

    def announcing(self) -> ServerConfig:
        """Return the settings of whoever announces releases: with a certificate of its own.

        Raises:
            SettingError: one of the two settings of it is missing.
        """
        certificate, key = self.release_tls_certificate, self.release_tls_key
        if certificate is None and key is None:
            return self
        if certificate is None or key is None:
            missing = "release_tls_certificate" if certificate is None else "release_tls_key"
            raise SettingError(missing, "is missing", "give both of release_tls_* or none")
        return replace(self, tls_certificate=certificate, tls_key=key)

    def notice_policy(self) -> NoticePolicy:
        """Return when owners are left alone."""
        return NoticePolicy(contact_gap=timedelta(days=self.contact_gap_days))

    def delivery_policy(self) -> DeliveryPolicy:
        """Return how long and how often a notice is delivered."""
        return DeliveryPolicy(
            lifetime=timedelta(days=self.notice_lifetime_days),
            first_retry=timedelta(seconds=self.first_retry_s),
            longest_retry=timedelta(seconds=self.longest_retry_s),
        )


SETTINGS = tuple(entry.name for entry in fields(ServerConfig))
"""The names of all settings."""

_PATHS = (
    "key",
    "device_keys",
    "authority",
    "tls_ca",
    "tls_certificate",
    "tls_key",
    "releases",
    "release_key",
    "release_tls_certificate",
    "release_tls_key",
)
_FIELDS = {entry.name: entry for entry in fields(ServerConfig)}
_LARGEST = 1e7


def read_config(flags: Mapping[str, str | None], environment: Mapping[str, str]) -> ServerConfig:
    """Put the settings together.

    Args:
        flags: what the command line said, by setting, None where it said nothing; `config` names
            the TOML file.
        environment: of the process: `FEDCELL_SERVER_DB` and so on.

    Raises:
        SettingsMissingError: the TOML file is not there.
        SettingError: a value or a key of the file is not what it should be.
    """
    said = {
        name: environment[ENVIRONMENT_PREFIX + name.upper()]
        for name in (*SETTINGS, CONFIG_FILE)
        if environment.get(ENVIRONMENT_PREFIX + name.upper())
    }
    said |= {name: text for name, text in flags.items() if text is not None}
    file = said.pop(CONFIG_FILE, None)
    values = ({} if file is None else _read_toml(Path(file))) | said
    return ServerConfig(**{name: _typed(name, value) for name, value in values.items()})


def parse_address(setting: str, text: str) -> tuple[str, int]:
    """Return host and port of `host:port`.

    Raises:
        SettingError: it is no address.
    """
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not (colon and host and port.isascii() and port.isdigit() and 0 < int(port) < 65_536):
        raise SettingError(setting, f"is no address: {text!r}", "write it like 127.0.0.1:1883")
    return host, int(port)


def _typed(name: str, value: Any) -> Any:
    default = _FIELDS[name].default
    if isinstance(default, float):
        least = _FIELDS[name].metadata.get("least", 0.0)
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not least <= number <= _LARGEST:
            what = f"must be a number from {least:g} to {_LARGEST:g}, got {value!r}"
            raise SettingError(name, what, "correct it")
        return number
    if not isinstance(value, str):
        raise SettingError(name, f"must be text, got {value!r}", "put it into quotes")
    if name == "human_contact":
        try:
            CONTACT.to_json(value)
        except ValueError as error:
            raise SettingError(name, str(error), "write one line") from None
    return Path(value) if name in _PATHS else value


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        content = tomllib.loads(path.read_text())
    except FileNotFoundError:
        raise SettingsMissingError(
            CONFIG_FILE, f"there is no file {path}", "check the path"
        ) from None
    except (OSError, ValueError) as error:
        what = f"{path} cannot be read: {error}"
        raise SettingError(CONFIG_FILE, what, "correct the file") from None
    for name in content:
        if name not in SETTINGS:
            remedy = f"known are {', '.join(SETTINGS)}"
            raise SettingError(CONFIG_FILE, f"{path} holds the unknown setting {name}", remedy)
    paths = {name: content[name] for name in _PATHS if isinstance(content.get(name), str)}
    return content | {name: str(path.parent / value) for name, value in paths.items()}
