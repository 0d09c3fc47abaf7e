"""What makes a machine the gateway of its site: its keys, its site file, its way to the broker."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from models.trusted_keys import read_trusted_keys
from models.wire.envelope import VerifyKey, trusted_keys
from models.wire.errors import WireError
from models.wire.link_settings import LinkSettings, LinkTls
from models.wire.site_credential import MAX_SITE_BYTES, read_site
from models.wire.site_rounds import MOST_DEADLINE_S

from ..errors import GatewayError, InputError, InputMissingError
from ..node_values import HARDWARE_KEY, POLICY_KEYS_KEY, STORE_KEY, number_of, path_of
from ..provisioning.identity import (
    hardware_id_files,
    identity_path,
    read_hardware_id,
    read_identity,
    require_hardware,
)
from ..provisioning.membership import read_membership
from . import SITE_KEY

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from pathlib import Path

    from models.wire.site_credential import Site

    from ..provisioning.identity import DeviceIdentity
    from ..provisioning.membership import Membership

BROKER_KEY: Final = "gateway-broker"
"""Key that names the broker, `host:port`, where it is not the fleet's."""
DEADLINE_KEY: Final = "gateway-deadline-s"
"""Key of the seconds that devices have where the server does not say."""
DEFAULT_DEADLINE_S: Final = 300.0
_NODE: Final = "node configuration"
_RENEW: Final = "write the site file anew: fedcell fleet gateway"


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewaySite:
    """A gateway, as its files say.

    Attributes:
        store: path beside which its keys, its membership and its record lie.
        site: its credential and its devices.
        identity: its own keys.
        membership: its place in the fleet; None for one that speaks to its broker in the clear.
        host: of the broker.
        port: of the broker.
        deadline_s: that devices have where the server does not say, seconds.
        keys: of the server, that may sign a credential.
    """

    store: Path
    site: Site
    identity: DeviceIdentity
    membership: Membership | None
    host: str
    port: int
    deadline_s: float = DEFAULT_DEADLINE_S
    keys: Mapping[str, VerifyKey] = field(default_factory=dict)

    @property
    def gateway(self) -> str:
        """Its name."""
        return str(self.site.credential.gateway)

    def link_settings(self) -> LinkSettings:
        """Return how to reach the broker: a session that a crash of some minutes does not end."""
        return LinkSettings(
            host=self.host,
            port=self.port,
            client_id=self.gateway,
            session_expiry_s=600,
            keep_alive_s=60,
            longest_wait_s=10.0,
            tls=None if self.membership is None else self._tls,
        )

    def _tls(self) -> LinkTls:
        # Read anew: the certificate may have been renewed since.
        membership = read_membership(self.store) or self.membership
        if membership is None:
            raise OSError("the gateway has joined no fleet")
        return LinkTls(
            authorities=membership.authorities,
            certificate=membership.certificate,
            key=membership.certificate,
        )


def gateway_site(node_config: Mapping[str, object], *, now: datetime) -> GatewaySite:
    """Find the site behind a node by the node's configuration.

    Args:
        node_config: of the SuperNode.
        now: aware time, by which the credential ends.

    Raises:
        InputMissingError: a file or a value is missing.
        InputError: a value cannot be used.
        GatewayError: the site file is not this gateway's, or not to be believed.
        EdgeError: keys or membership cannot be read.
    """
    site_file, store = path_of(node_config, SITE_KEY), path_of(node_config, STORE_KEY)
    if site_file is None or store is None:
        name = SITE_KEY if site_file is None else STORE_KEY
        raise InputMissingError(_NODE, f"{name} names no file", "name it as a text")
    identity = read_identity(store)
    if identity is None:
        what = "the gateway has no keys of its own"
        raise InputMissingError(identity_path(store), what, "make them: fedcell-device init")
    files = hardware_id_files(path_of(node_config, HARDWARE_KEY))
    require_hardware(identity, identity_path(store), hardware_id=read_hardware_id(files))
    membership = read_membership(store)
    keys = _server_keys(node_config, membership)
    site = _site(site_file, identity, keys, now)
    host, port = _broker(node_config, membership)
    seconds = number_of(node_config, DEADLINE_KEY, most=MOST_DEADLINE_S)
    return GatewaySite(
        store=store,
        site=site,
        identity=identity,
        membership=membership,
        host=host,
        port=port,
        deadline_s=seconds or DEFAULT_DEADLINE_S,
        keys=keys,
    )


def require_grants(site: GatewaySite, *, now: datetime) -> None:
    """Check that the server lets this gateway ask each device of its site.

    Raises:
        GatewayError: it does not; the device would not answer.
    """
    try:
        site.site.require_grants(site.keys, now)
    except WireError as error:
        raise GatewayError(SITE_KEY, str(error), _RENEW) from None


def _site(
    file: Path, identity: DeviceIdentity, keys: Mapping[str, VerifyKey], now: datetime
) -> Site:
    try:
        with file.open("rb") as content:
            raw = content.read(MAX_SITE_BYTES + 1)
    except FileNotFoundError:
        raise InputMissingError(file, "there is no such file", f"check {SITE_KEY}") from None
    except OSError as error:
        what = f"cannot be read: {error.strerror}"
        raise InputError(file, what, "check the file and its owner") from None
    try:
        site = read_site(raw, keys, now)
    except WireError as error:
        raise GatewayError(file, str(error), _RENEW) from None
    public, credential = identity.public()[identity.device_id], site.credential
    if credential.gateway != identity.device_id:
        what = f"is for gateway {credential.gateway}, and this is {identity.device_id}"
        raise GatewayError(file, what, _RENEW)
    if (credential.verify_key, credential.seal_key) != (public["sign"], public["seal"]):
        raise GatewayError(file, "names other keys than this gateway has", _RENEW)
    return site


def _server_keys(
    node_config: Mapping[str, object], membership: Membership | None
) -> dict[str, VerifyKey]:
    """Return the keys that may sign a credential: those of a named file, else the fleet's."""
    file = path_of(node_config, POLICY_KEYS_KEY)
    if file is not None:
        raw = read_trusted_keys(file)
    elif membership is not None:
        raw = {name: bytes.fromhex(key) for name, key in membership.server_keys.items()}
    else:
        remedy = f"join a fleet, or name {POLICY_KEYS_KEY}"
        raise InputMissingError(_NODE, "no key may sign the site file", remedy)
    return trusted_keys(*map(VerifyKey.from_bytes, raw.values()))


def _broker(node_config: Mapping[str, object], membership: Membership | None) -> tuple[str, int]:
    named = node_config.get(BROKER_KEY)
    if named is None:
        if membership is None:
            remedy = f"join one: fedcell-device join, or name {BROKER_KEY}"
            raise InputMissingError(_NODE, "the gateway has joined no fleet", remedy)
        return membership.broker_address()
    host, _, port = str(named).rpartition(":")
    if not host or not (port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65_536):
        what = f"{BROKER_KEY} is no address: {str(named)[:80]!r}"
        raise InputError(_NODE, what, "write host:port")
    return host.removeprefix("[").removesuffix("]"), int(port)
