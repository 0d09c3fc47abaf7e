"""What a deployment is told, and where its files are. No IO.

deployment.json     what the deployment is told; written last
certificate.pem, key.pem, authorities.pem   of the proxy, by the fleet's authority
inner.pem, inner.key, inner-authority.pem   of the SuperLink on loopback, by nobody else's
superexec.secret    what SuperExec proves itself with to the SuperLink
stream.operator     key that seals the keys of streams
state.db            of the SuperLink
flwr/               Flower's home: where the SuperLink is, for `flwr`, and apps that run
nginx/              configuration and scratch of the proxy
app/                the app bundle, and its signed pin
logs/               what the processes say
home/, runs/        privacy home and runs, unless others are named
begun/              with which keys each run was begun
enrolled.csv        devices and the nodes that they are bound to
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from models.wire.app_pin import APP_PIN_FILE

if TYPE_CHECKING:
    from pathlib import Path

LOOPBACK = "127.0.0.1"
INNER_NAME = "localhost"
"""The name in the certificate by which the proxy knows the SuperLink."""
USUAL_PORT, USUAL_INNER_PORT = 9092, 9093
USUAL_REQUESTS_PER_S = 50
DEPLOYMENT_FILE = "deployment.json"
_HOST = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9-]+)*")
_PLAIN = re.compile(r"[\w./+@,:=-]+")
MOST_PORT = 65_535


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """A deployment on this machine.

    Attributes:
        folder: of everything below, absolute; no letter in it needs quotes in a configuration.
        hosts: names and addresses by which nodes reach the proxy, as the fleet says.
        port: TCP port at which they do.
        listen: address at which the proxy listens, empty for all of this machine.
        inner_port: TCP port of the SuperLink, on loopback alone.
        requests_per_s: that one address may make on average.
        policy_key: file of the key that signs policies, receipts and the pin.
        database: URL of the hub's database, where devices are enrolled.

    Raises:
        ValueError: a value is out of bounds.
    """

    folder: Path
    hosts: tuple[str, ...]
    policy_key: Path
    database: str
    port: int = USUAL_PORT
    listen: str = ""
    inner_port: int = USUAL_INNER_PORT
    requests_per_s: int = USUAL_REQUESTS_PER_S

    def __post_init__(self) -> None:
        """Check what ends up in configurations of other programs."""
        if not self.folder.is_absolute() or not _PLAIN.fullmatch(str(self.folder)):
            raise ValueError(f"folder must be a plain absolute path, got {str(self.folder)!r}")
        if not self.hosts:
            raise ValueError("hosts must name at least one name or address of this machine")
        for host in self.hosts:
            if not is_host(host):
                raise ValueError(f"hosts must be names or addresses, got {host!r}")
        if self.listen and not is_address(self.listen):
            raise ValueError(f"listen must be an address of this machine, got {self.listen!r}")
        for name in ("port", "inner_port"):
            if not 0 < getattr(self, name) <= MOST_PORT:
                raise ValueError(f"{name} must be 1 to {MOST_PORT}, got {getattr(self, name)}")
        if self.port == self.inner_port:
            raise ValueError(f"port and inner_port must differ, both are {self.port}")
        if not 0 < self.requests_per_s <= 1_000_000:
            raise ValueError(f"requests_per_s must be 1 to 1000000, got {self.requests_per_s}")

    @property
    def file(self) -> Path:
        """What the deployment is told."""
        return self.folder / DEPLOYMENT_FILE

    @property
    def certificate(self) -> Path:
        """Certificate by which nodes know the proxy."""
        return self.folder / "certificate.pem"

    @property
    def key(self) -> Path:
        """Its private key."""
        return self.folder / "key.pem"

    @property
    def authorities(self) -> Path:
        """Who may speak for the fleet's services."""
        return self.folder / "authorities.pem"

    @property
    def inner_certificate(self) -> Path:
        """Certificate of the SuperLink on loopback."""
        return self.folder / "inner.pem"

    @property
    def inner_key(self) -> Path:
        """Its private key."""
        return self.folder / "inner.key"

    @property
    def inner_authority(self) -> Path:
        """Who signed it."""
        return self.folder / "inner-authority.pem"

    @property
    def superexec_secret(self) -> Path:
        """What SuperExec proves itself with."""
        return self.folder / "superexec.secret"

    @property
    def stream_key(self) -> Path:
        """Key that seals the keys of streams."""
        return self.folder / "stream.operator"

    @property
    def state(self) -> Path:
        """The SuperLink's database."""
        return self.folder / "state.db"

    @property
    def flwr_home(self) -> Path:
        """Flower's home."""
        return self.folder / "flwr"

    @property
    def nginx(self) -> Path:
        """Folder of the proxy."""
        return self.folder / "nginx"

    @property
    def nginx_configuration(self) -> Path:
        """Configuration of the proxy."""
        return self.nginx / "nginx.conf"

    @property
    def bundle(self) -> Path:
        """The app bundle."""
        return self.folder / "app" / "fedcell.fab"

    @property
    def pin(self) -> Path:
        """Its signed pin."""
        return self.folder / "app" / APP_PIN_FILE

    @property
    def logs(self) -> Path:
        """What the processes say."""
        return self.folder / "logs"

    @property
    def runs(self) -> Path:
        """Folders of runs that name no other."""
        return self.folder / "runs"

    @property
    def begun(self) -> Path:
        """With which keys each run was begun."""
        return self.folder / "begun"

    @property
    def privacy_home(self) -> Path:
        """Privacy home of runs that name no other."""
        return self.folder / "home"

    @property
    def enrolled(self) -> Path:
        """Devices, and the nodes that they are bound to."""
        return self.folder / "enrolled.csv"

    @property
    def lock(self) -> Path:
        """Held by the process that serves."""
        return self.folder / "serve.lock"

    @property
    def inner_address(self) -> str:
        """Where parts of the deployment meet the SuperLink."""
        return f"{LOOPBACK}:{self.inner_port}"


def is_address(text: str) -> bool:
    """Tell whether a text is an IP address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def is_host(text: str) -> bool:
    """Tell whether a text is a name or an address of a machine."""
    return is_address(text) or _HOST.fullmatch(text) is not None
