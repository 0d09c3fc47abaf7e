"""A fleet's authorities on disk: one private folder, made and changed by commands.

    authority.json             what the fleet is called, where it meets, which authorities there are
    device-ca-N.pem, .key      generation N of the authority over devices
    server-ca-N.pem, .key      generation N of the authority over the fleet's own services
    SERVICE.pem, .key            certificates of services: broker, hub, superlink and so on

`authority.json` is written last and at once: what it does not name does not exist.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from models.durable_file import sync_folder, write_durably

from ..errors import AuthorityError, AuthorityMissingError, CertificateError
from .certificates import (
    certificate_of_pem,
    certificate_pem,
    key_of_pem,
    key_pem,
    make_authority,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.x509 import Certificate

STATE_FILE = "authority.json"
KEY_MODE = 0o600
FORMAT = 1
AUTHORITY_LIFE = timedelta(days=3650)
_PUT_BACK = "put its copy back"


class Kind(StrEnum):
    """Over whom an authority is."""

    DEVICE = "device"
    SERVER = "server"


class State(StrEnum):
    """How far a generation of an authority has come."""

    INTRODUCED = "introduced"
    """Trusted, and signs nothing yet: devices learn of it."""
    ISSUING = "issuing"
    TRUSTED = "trusted"
    """Signs nothing any more; what it signed still holds."""
    RETIRED = "retired"


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """One authority among those that follow each other.

    Attributes:
        kind: over whom.
        number: counted from 1.
        state: how far it has come.
        since: since when it is in this state.
    """

    kind: Kind
    number: int
    state: State
    since: datetime

    @property
    def file(self) -> str:
        """The name of its files, without ending."""
        return f"{self.kind.value}-ca-{self.number}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """What `authority.json` says.

    Attributes:
        name: what the fleet is called; stands in its authorities' certificates.
        broker: `host:port` at which devices meet the server.
        broker_hosts: names and addresses that the broker's certificate is for.
        enrolment_hosts: those of the enrolment service.
        server_keys: Ed25519 keys (hex) that sign what the server says, by key id.
        life_days: for how long a device's certificate holds.
        superlink: `host:port` at which nodes meet the SuperLink, empty where there is none.
        superlink_hosts: names and addresses that its certificate is for.
        release_hosts: those of the server of release files.
        revocation_number: of the newest revocation lists.
        generations: of both authorities, the eldest first.
    """

    name: str
    broker: str
    broker_hosts: tuple[str, ...]
    enrolment_hosts: tuple[str, ...]
    server_keys: Mapping[str, str]
    life_days: int = 30
    superlink: str = ""
    superlink_hosts: tuple[str, ...] = ()
    release_hosts: tuple[str, ...] = ()
    revocation_number: int = 0
    generations: tuple[Generation, ...] = field(default=())

    def placed(
        self,
        *,
        superlink: str | None,
        superlink_hosts: Sequence[str] | None,
        release_hosts: Sequence[str] | None,
    ) -> Fleet:
        """Return the fleet with services at other places; what is None stays as it is.

        Args:
            superlink: `host:port` of the SuperLink.
            superlink_hosts: further names and addresses of it.
            release_hosts: names and addresses of the server of release files.

        Raises:
            ValueError: an address has no host.
        """
        fleet = self
        if superlink is not None or superlink_hosts is not None:
            address = self.superlink if superlink is None else superlink
            host = address.rpartition(":")[0].removeprefix("[").removesuffix("]")
            if not host:
                raise ValueError(f"superlink must be HOST:PORT, got {address!r}")
            hosts = tuple(dict.fromkeys((host, *(superlink_hosts or ()))))
            fleet = replace(fleet, superlink=address, superlink_hosts=hosts)
        if release_hosts is not None:
            fleet = replace(fleet, release_hosts=tuple(release_hosts))
        return fleet

    def of(self, kind: Kind) -> tuple[Generation, ...]:
        """Return the generations of one authority, the eldest first."""
        return tuple(one for one in self.generations if one.kind is kind)

    def issuing(self, kind: Kind) -> Generation:
        """Return the generation that signs."""
        return next(one for one in self.of(kind) if one.state is State.ISSUING)

    def trusted(self, kind: Kind) -> tuple[Generation, ...]:
        """Return those whose certificates count."""
        return tuple(one for one in self.of(kind) if one.state is not State.RETIRED)

    def title(self, generation: Generation) -> str:
        """Return the common name in an authority's certificate."""
        return f"{self.name} {generation.kind.value} authority {generation.number}"

    def moved(self, generation: Generation, state: State, *, now: datetime) -> Fleet:
        """Return the fleet with one generation in another state."""
        changed = replace(generation, state=state, since=now)
        kept = tuple(changed if one == generation else one for one in self.generations)
        return replace(self, generations=kept)


@dataclass(frozen=True, slots=True)
class AuthorityHome:
    """An open folder.

    Attributes:
        folder: where it is.
        fleet: what it said when it was opened.
    """

    folder: Path
    fleet: Fleet

    def certificate(self, generation: Generation) -> Certificate:
        """Return an authority's certificate.

        Raises:
            AuthorityError: its file is missing or damaged.
        """
        path = self.folder / f"{generation.file}.pem"
        try:
            return certificate_of_pem(path.read_bytes())
        except OSError as error:
            raise AuthorityError(path, f"cannot be read: {error.strerror}", _PUT_BACK) from None
        except CertificateError as error:
            raise AuthorityError(path, str(error), _PUT_BACK) from None

    def key(self, generation: Generation) -> EllipticCurvePrivateKey:
        """Return an authority's private key.

        Raises:
            AuthorityError: its file is missing, damaged, or open to others.
        """
        return read_private_key(self.folder / f"{generation.file}.key")

    def trusted_pem(self, kind: Kind) -> bytes:
        """Return the certificates of all generations that count, as one PEM file."""
        trusted = (self.certificate(one) for one in self.fleet.trusted(kind))
        return b"".join(map(certificate_pem, trusted))

    def keep(self, fleet: Fleet) -> AuthorityHome:
        """Write what the fleet is now.

        Raises:
            AuthorityError: the folder or the disk refuses; nothing was changed.
        """
        with _named_refusals(self.folder):
            write_durably(self.folder / STATE_FILE, _to_json(fleet))
        return AuthorityHome(self.folder, fleet)

    def add_generation(self, kind: Kind, *, now: datetime) -> AuthorityHome:
        """Introduce one more generation of an authority, and keep it."""
        number = max((one.number for one in self.fleet.of(kind)), default=0) + 1
        made = Generation(kind=kind, number=number, state=State.INTRODUCED, since=now)
        _write_authority(self.folder, self.fleet, made, now=now)
        return self.keep(replace(self.fleet, generations=(*self.fleet.generations, made)))


def make_home(folder: Path, fleet: Fleet, *, now: datetime) -> AuthorityHome:
    """Make a folder with both authorities.

    Raises:
        AuthorityError: there is one already, or the folder cannot be made; nothing was changed.
    """
    if (folder / STATE_FILE).exists():
        remedy = "go on with it, or name another folder"
        raise AuthorityError(folder, "holds an authority already", remedy)
    with _named_refusals(folder):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    first = tuple(Generation(kind=kind, number=1, state=State.ISSUING, since=now) for kind in Kind)
    home = AuthorityHome(folder, replace(fleet, generations=first))
    for generation in first:
        _write_authority(folder, fleet, generation, now=now)
    return home.keep(home.fleet)


def open_home(folder: Path) -> AuthorityHome:
    """Open a folder.

    Raises:
        AuthorityMissingError: there is none.
        AuthorityError: it cannot be read, or a later fedcell wrote it.
    """
    path = folder / STATE_FILE
    try:
        content = json.loads(path.read_bytes())
        if content["format"] != FORMAT:
            what = f"is of format {content['format']!r}, this fedcell reads {FORMAT}"
            raise AuthorityError(path, what, "use the fedcell that wrote it")
        return AuthorityHome(folder, _of_json(content))
    except FileNotFoundError:
        remedy = f"make one: fedcell fleet init --authority {folder}"
        raise AuthorityMissingError(folder, "there is no authority", remedy) from None
    except OSError as error:
        what = f"cannot be read: {error.strerror}"
        raise AuthorityError(path, what, "check the path and its owner") from None
    except (ValueError, KeyError, TypeError):
        raise AuthorityError(path, "holds something else", _PUT_BACK) from None


@contextmanager
def locked_home(folder: Path) -> Iterator[AuthorityHome]:
    """Open a folder that nobody else changes meanwhile.

    Raises:
        AuthorityError: another command changes it.
    """
    open_home(folder)
    with (folder / ".lock").open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            remedy = "wait for it, then try again"
            raise AuthorityError(folder, "another command changes it", remedy) from None
        yield open_home(folder)


def read_private_key(path: Path) -> EllipticCurvePrivateKey:
    """Read a private key that nobody else may read.

    Raises:
        AuthorityError: it is missing, damaged, or open to others.
    """
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        pem = path.read_bytes()
    except OSError as error:
        raise AuthorityError(path, f"cannot be read: {error.strerror}", _PUT_BACK) from None
    if mode & 0o077:
        raise AuthorityError(path, f"others may read it (mode {mode:04o})", f"chmod 600 {path}")
    try:
        return key_of_pem(pem)
    except CertificateError as error:
        raise AuthorityError(path, str(error), _PUT_BACK) from None


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner may read, whole or not at all.

    Raises:
        OSError: the folder or the disk refuses.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    aside.unlink(missing_ok=True)
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, KEY_MODE)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    sync_folder(path.parent)


def _write_authority(folder: Path, fleet: Fleet, generation: Generation, *, now: datetime) -> None:
    certificate, key = make_authority(fleet.title(generation), now=now, life=AUTHORITY_LIFE)
    with _named_refusals(folder):
        write_private(folder / f"{generation.file}.key", key_pem(key))
        write_durably(folder / f"{generation.file}.pem", certificate_pem(certificate))


@contextmanager
def _named_refusals(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        what = f"cannot be written: {error.strerror}"
        raise AuthorityError(folder, what, "check the folder and the disk") from None


def _to_json(fleet: Fleet) -> bytes:
    content: dict[str, Any] = {"format": FORMAT, **asdict(fleet)}
    content["generations"] = [
        asdict(one) | {"since": one.since.isoformat()} for one in fleet.generations
    ]
    return json.dumps(content, indent=1).encode() + b"\n"


def _of_json(content: dict[str, Any]) -> Fleet:
    return Fleet(
        name=str(content["name"]),
        broker=str(content["broker"]),
        broker_hosts=tuple(map(str, content["broker_hosts"])),
        enrolment_hosts=tuple(map(str, content["enrolment_hosts"])),
        server_keys={str(name): str(key) for name, key in content["server_keys"].items()},
        life_days=int(content["life_days"]),
        # A fleet of earlier versions has neither.
        superlink=str(content.get("superlink", "")),
        superlink_hosts=tuple(map(str, content.get("superlink_hosts", ()))),
        release_hosts=tuple(map(str, content.get("release_hosts", ()))),
        revocation_number=int(content["revocation_number"]),
        generations=tuple(
            Generation(
                kind=Kind(one["kind"]),
                number=int(one["number"]),
                state=State(one["state"]),
                since=datetime.fromisoformat(one["since"]),
            )
            for one in content["generations"]
        ),
    )
