"""One-time tokens, enrolled devices and certificates, within one transaction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, func, insert, or_, select, update

from .tables import certificates, enrolled_devices, enrolment_tokens

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

_DEVICE_COLUMNS = tuple(column.name for column in enrolled_devices.c)
_CERTIFICATE_COLUMNS = tuple(column.name for column in certificates.c)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptToken:
    """A token as it is kept: its hash, and what became of it.

    Attributes:
        token_hash: SHA-256, hex.
        device_id: the only device that may use it, None for any that is new.
        expires_at: from when on it is refused.
        used_at: when it was used, None before.
        used_by: by which device.
        keys_digest: SHA-256 of the keys that used it, hex.
        serial: of the certificate that came of it.
    """

    token_hash: str
    device_id: str | None
    expires_at: datetime
    used_at: datetime | None = None
    used_by: str | None = None
    keys_digest: str | None = None
    serial: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolledDevice:
    """A device that was enrolled.

    Attributes:
        device_id: its name.
        sign_key: Ed25519, 32 raw bytes.
        seal_key: X25519, 32 raw bytes.
        supernode_key: for Flower, OpenSSH form, None where it has none.
        serial: of its newest certificate.
        enrolled_at: when it joined, or joined anew.
        revoked_at: since when it is shut out, None where it is not.
        revoked_because: what the operator said.
    """

    device_id: str
    sign_key: bytes
    seal_key: bytes
    supernode_key: str | None
    serial: str
    enrolled_at: datetime
    revoked_at: datetime | None = None
    revoked_because: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptCertificate:
    """A certificate that an authority of the fleet has signed.

    Attributes:
        serial: its number, 40 hex digits.
        authority: `device` or `server`.
        generation: of the authority.
        name: a device's id, or a service's name.
        key_digest: SHA-256 of its public key, hex.
        pem: itself.
        issued_at: when it was signed.
        not_after: until when it holds.
        replaces: serial of the one before.
        revoked_at: since when it is not to be trusted.
    """

    serial: str
    authority: str
    generation: int
    name: str
    key_digest: str
    pem: str
    issued_at: datetime
    not_after: datetime
    replaces: str | None = None
    revoked_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Enrolments:
    """What an enrolment service keeps."""

    connection: Connection

    # --- tokens -----------------------------------------------------------------------------------

    def add_token(self, token: KeptToken, *, now: datetime) -> None:
        """Keep a new token's hash."""
        self.connection.execute(
            insert(enrolment_tokens).values(
                token_hash=token.token_hash,
                device_id=token.device_id,
                made_at=now,
                expires_at=token.expires_at,
            )
        )

    def token(self, token_hash: str) -> KeptToken | None:
        """Return a token by its hash, None where there is none."""
        named = enrolment_tokens.c
        row = self.connection.execute(
            select(
                named.device_id,
                named.expires_at,
                named.used_at,
                named.used_by,
                named.keys_digest,
                named.serial,
            ).where(named.token_hash == token_hash)
        ).one_or_none()
        if row is None:
            return None
        return KeptToken(
            token_hash=token_hash,
            device_id=row[0],
            expires_at=row[1],
            used_at=row[2],
            used_by=row[3],
            keys_digest=row[4],
            serial=row[5],
        )

    def use_token(
        self, token_hash: str, *, by: str, keys_digest: str, serial: str, now: datetime
    ) -> bool:
        """Note that a token was used; False where another was faster."""
        used = self.connection.execute(
            update(enrolment_tokens)
            .where(
                enrolment_tokens.c.token_hash == token_hash,
                enrolment_tokens.c.used_at.is_(None),
            )
            .values(used_at=now, used_by=by, keys_digest=keys_digest, serial=serial)
        )
        return used.rowcount == 1

    def withdraw_tokens(self, device_id: str, *, now: datetime) -> int:
        """Have the unused tokens that were made for a device end now."""
        ended = self.connection.execute(
            update(enrolment_tokens)
            .where(
                enrolment_tokens.c.device_id == device_id,
                enrolment_tokens.c.used_at.is_(None),
                enrolment_tokens.c.expires_at > now,
            )
            .values(expires_at=now)
        )
        return ended.rowcount

    def open_tokens(self, *, now: datetime) -> int:
        """Return how many tokens could still be used."""
        named = enrolment_tokens.c
        counted = select(func.count()).where(named.used_at.is_(None), named.expires_at > now)
        return int(self.connection.scalar(counted) or 0)

    # --- devices ----------------------------------------------------------------------------------

    def device(self, device_id: str) -> EnrolledDevice | None:
        """Return a device that was enrolled, None where it never was."""
        row = self.connection.execute(
            select(*enrolled_devices.c).where(enrolled_devices.c.device_id == device_id)
        ).one_or_none()
        return None if row is None else _device_of(row)

    def devices(self) -> Iterator[EnrolledDevice]:
        """Return all, by name."""
        rows = self.connection.execute(
            select(*enrolled_devices.c).order_by(enrolled_devices.c.device_id)
        )
        return map(_device_of, rows)

    def has_supernode_of_another(self, device_id: str, supernode_key: str) -> bool:
        """Tell whether another device has this key for Flower, be it shut out or not."""
        named = enrolled_devices.c
        found = self.connection.execute(
            select(named.device_id)
            .where(named.supernode_key == supernode_key, named.device_id != device_id)
            .limit(1)
        )
        return found.first() is not None

    def keep_device(self, device: EnrolledDevice) -> None:
        """Keep a device, in place of what was known of it."""
        values = {name: getattr(device, name) for name in _DEVICE_COLUMNS}
        changed = self.connection.execute(
            update(enrolled_devices)
            .where(enrolled_devices.c.device_id == device.device_id)
            .values(**values)
        )
        if changed.rowcount == 0:
            self.connection.execute(insert(enrolled_devices).values(**values))

    def num_devices(self) -> tuple[int, int]:
        """Return how many devices are enrolled, and how many more were shut out."""
        revoked_at = enrolled_devices.c.revoked_at
        counted = select(func.count(), func.count(revoked_at)).select_from(enrolled_devices)
        total, revoked = self.connection.execute(counted).one()
        return total - revoked, revoked

    # --- certificates -----------------------------------------------------------------------------

    def add_certificate(self, certificate: KeptCertificate) -> None:
        """Keep a certificate that was signed."""
        values = {name: getattr(certificate, name) for name in _CERTIFICATE_COLUMNS}
        self.connection.execute(insert(certificates).values(**values))

    def certificate(self, serial: str) -> KeptCertificate | None:
        """Return a certificate by its serial number, None where there is none."""
        row = self.connection.execute(
            select(*certificates.c).where(certificates.c.serial == serial)
        ).one_or_none()
        return None if row is None else _certificate_of(row)

    def revoke_certificates(self, name: str, *, now: datetime) -> int:
        """Revoke all certificates of a name that still hold; returns how many there were."""
        revoked = self.connection.execute(
            update(certificates)
            .where(
                certificates.c.name == name,
                certificates.c.revoked_at.is_(None),
                certificates.c.not_after > now,
            )
            .values(revoked_at=now)
        )
        return revoked.rowcount

    def revoked(self, authority: str, generation: int) -> tuple[tuple[str, datetime], ...]:
        """Return serial numbers of an authority's revoked certificates, and since when."""
        rows = self.connection.execute(
            select(certificates.c.serial, certificates.c.revoked_at)
            .where(
                certificates.c.authority == authority,
                certificates.c.generation == generation,
                certificates.c.revoked_at.is_not(None),
            )
            .order_by(certificates.c.serial)
        )
        return tuple((row[0], row[1]) for row in rows)

    def current(self) -> Iterator[tuple[EnrolledDevice, KeptCertificate]]:
        """Return devices that are not shut out, each with its newest certificate."""
        rows = self.connection.execute(
            select(*enrolled_devices.c, *certificates.c)
            .join(certificates, certificates.c.serial == enrolled_devices.c.serial)
            .where(enrolled_devices.c.revoked_at.is_(None))
            .order_by(enrolled_devices.c.device_id)
        )
        end = len(_DEVICE_COLUMNS)
        for row in rows:
            yield _device_of(row[:end]), _certificate_of(row[end:])

    def behind(
        self, *, generation: int, issued_before: datetime | None, now: datetime
    ) -> tuple[str, ...]:
        """Return devices that are in the fleet, and have not renewed since a rotation began.

        Args:
            generation: of the device authority; a certificate of an earlier one is behind.
            issued_before: so is one that was issued before this time, None: that alone is fine.
            now: aware time; whose certificate is over has to come back by itself anyway.
        """
        newest = certificates.c
        is_behind = newest.generation < generation
        if issued_before is not None:
            is_behind = or_(is_behind, newest.issued_at < issued_before)
        rows = self.connection.execute(
            select(enrolled_devices.c.device_id)
            .join(certificates, newest.serial == enrolled_devices.c.serial)
            .where(enrolled_devices.c.revoked_at.is_(None), newest.not_after > now, is_behind)
            .order_by(enrolled_devices.c.device_id)
        )
        return tuple(row[0] for row in rows)


def _device_of(row: Sequence[Any]) -> EnrolledDevice:
    return EnrolledDevice(**dict(zip(_DEVICE_COLUMNS, row, strict=True)))


def _certificate_of(row: Sequence[Any]) -> KeptCertificate:
    return KeptCertificate(**dict(zip(_CERTIFICATE_COLUMNS, row, strict=True)))
