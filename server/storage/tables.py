"""The tables, in SQL that SQLite and PostgreSQL both speak."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    TypeDecorator,
)

if TYPE_CHECKING:
    from sqlalchemy.engine import Dialect

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    }
)


class UtcTime(TypeDecorator[datetime]):
    """An aware time, kept in UTC; a naive one is refused."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Turn an aware time into what the database keeps."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"times in the database must be aware, got {value!r}")
        in_utc = value.astimezone(UTC)
        return in_utc.replace(tzinfo=None) if dialect.name == "sqlite" else in_utc

    def process_result_value(
        self,
        value: datetime | None,
        dialect: Dialect,  # noqa: ARG002 - SQLAlchemy's signature
    ) -> datetime | None:
        """Return an aware time in UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def _row_number() -> Column[Any]:
    # SQLite counts up by itself only for a column of exactly this type.
    return Column(
        "number",
        BigInteger().with_variant(Integer, "sqlite"),
        primary_key=True,
        autoincrement=True,
    )


def _device_reference() -> Column[Any]:
    return Column("device_id", String(64), ForeignKey("devices.device_id"), nullable=False)


devices = Table(
    "devices",
    metadata,
    Column("device_id", String(64), primary_key=True),
    Column("first_seen_at", UtcTime, nullable=False),
    Column("last_seen_at", UtcTime, nullable=False),
    Column("presence", String(16)),
    Column("client_version", String(64)),
    Column("feature_spec_version", String(64)),
    Column("model_version", String(64)),
    Column("summary", JSON(none_as_null=True)),
    Column("summary_received_at", UtcTime),
    Column("last_sequence", BigInteger, nullable=False),
    Column("notice_sequence", BigInteger, nullable=False),
    Column("recheck_at", UtcTime),
    Column("refused_model", String(64)),
    Column("refused_because", String(32)),
    Column("configuration_sequence", BigInteger),
    Index("ix_devices_recheck_at", "recheck_at"),
)
"""One row a device that spoke: its latest summary in bands, and the counters against replay."""

notices = Table(
    "notices",
    metadata,
    Column("notice_id", String(32), primary_key=True),
    _device_reference(),
    Column("sequence", BigInteger, nullable=False),
    Column("summary_id", String(32), nullable=False),
    Column("template", String(64), nullable=False),
    Column("language", String(6), nullable=False),
    Column("urgency", String(16), nullable=False),
    Column("days_band", String(16), nullable=False),
    Column("probability_band", String(16), nullable=False),
    Column("health_band", String(16), nullable=False),
    Column("confidence", String(16), nullable=False),
    Column("model_version", String(64), nullable=False),
    Column("reason_codes", JSON, nullable=False),
    Column("state", String(16), nullable=False),
    Column("version", Integer, nullable=False),
    Column("issued_at", UtcTime, nullable=False),
    Column("expires_at", UtcTime, nullable=False),
    Column("state_at", UtcTime, nullable=False),
    Index("ix_notices_device_id_issued_at", "device_id", "issued_at"),
    Index("ix_notices_state", "state"),
)
"""One row a notice: what it says in bands, and how far it has come."""

outbox = Table(
    "outbox",
    metadata,
    Column("message_id", String(32), primary_key=True),
    _device_reference(),
    Column("topic", String(160), nullable=False),
    Column("payload", LargeBinary, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("next_attempt_at", UtcTime),
    Column("expires_at", UtcTime, nullable=False),
    Column("acked_at", UtcTime),
    Index("ix_outbox_next_attempt_at", "next_attempt_at"),
    Index("ix_outbox_device_id", "device_id"),
)
"""One row a message, signed; without `next_attempt_at` it is acknowledged or expired."""

configurations = Table(
    "configurations",
    metadata,
    Column("message_id", String(32), primary_key=True),
    _device_reference(),
    Column("sequence", BigInteger, nullable=False),
    Column("settings", JSON, nullable=False),
    Column("issued_at", UtcTime, nullable=False),
    Column("expires_at", UtcTime, nullable=False),
    Column("applied_at", UtcTime),
    Index("ix_configurations_device_id_sequence", "device_id", "sequence"),
)
"""One row a configuration that a device was sent; the one with the highest sequence counts."""

audit = Table(
    "audit",
    metadata,
    _row_number(),
    Column("at", UtcTime, nullable=False),
    Column("device_id", String(64), nullable=False),
    Column("decision", String(32), nullable=False),
    Column("reason_code", String(64), nullable=False),
    Column("model_version", String(64)),
    Column("notice_id", String(32)),
    Column("recheck_at", UtcTime),
    Index("ix_audit_device_id_at", "device_id", "at"),
    Index("ix_audit_decision_reason_code", "decision", "reason_code"),
)
"""One row a decision or change of state; rows are added and read, never changed."""

models = Table(
    "models",
    metadata,
    Column("version", String(64), primary_key=True),
    Column("digest", String(64), nullable=False),
    Column("state", String(16), nullable=False),
    Column("ledger_kind", String(16), nullable=False),
    Column("ledger_hash", String(64)),
    Column("added_at", UtcTime, nullable=False),
    Column("state_at", UtcTime, nullable=False),
)
"""One row a model version; the rules are in `server.registry`."""

dead_letters = Table(
    "dead_letters",
    metadata,
    _row_number(),
    Column("at", UtcTime, nullable=False),
    Column("reason", String(64), nullable=False),
    Column("detail", String(256), nullable=False),
    Column("topic", String(256), nullable=False),
    Column("payload_bytes", Integer, nullable=False),
    Column("payload_sha256", String(64), nullable=False),
    Index("ix_dead_letters_reason", "reason"),
)
"""One row a message that could not be used; never its content."""

enrolment_tokens = Table(
    "enrolment_tokens",
    metadata,
    Column("token_hash", String(64), primary_key=True),
    Column("device_id", String(64)),
    Column("made_at", UtcTime, nullable=False),
    Column("expires_at", UtcTime, nullable=False),
    Column("used_at", UtcTime),
    Column("used_by", String(64)),
    Column("keys_digest", String(64)),
    Column("serial", String(40)),
)
"""One row a one-time token, never the token itself; `keys_digest` is of the keys that used it."""

enrolled_devices = Table(
    "enrolled_devices",
    metadata,
    Column("device_id", String(64), primary_key=True),
    Column("sign_key", LargeBinary, nullable=False),
    Column("seal_key", LargeBinary, nullable=False),
    Column("supernode_key", String(512)),
    Column("serial", String(40), nullable=False),
    Column("enrolled_at", UtcTime, nullable=False),
    Column("revoked_at", UtcTime),
    Column("revoked_because", String(160)),
)
"""One row a device that was enrolled: its public keys, and its newest certificate."""

certificates = Table(
    "certificates",
    metadata,
    Column("serial", String(40), primary_key=True),
    Column("authority", String(16), nullable=False),
    Column("generation", Integer, nullable=False),
    Column("name", String(64), nullable=False),
    Column("key_digest", String(64), nullable=False),
    Column("pem", String(4096), nullable=False),
    Column("issued_at", UtcTime, nullable=False),
    Column("not_after", UtcTime, nullable=False),
    Column("replaces", String(40)),
    Column("revoked_at", UtcTime),
    Index("ix_certificates_name", "name"),
    Index("ix_certificates_revoked_at", "revoked_at"),
)
"""One row a certificate that an authority of the fleet has signed."""

gateways = Table(
    "gateways",
    metadata,
    Column("gateway_id", String(64), primary_key=True),
    Column("most_devices", Integer, nullable=False),
    Column("issued_at", UtcTime, nullable=False),
    Column("not_after", UtcTime, nullable=False),
    Column("credential_digest", String(64), nullable=False),
)
"""One row a gateway whose site was written; the digest is of the credential that was signed."""

site_devices = Table(
    "site_devices",
    metadata,
    Column("device_id", String(64), primary_key=True),
    Column("gateway_id", String(64), ForeignKey("gateways.gateway_id"), nullable=False),
    Index("ix_site_devices_gateway_id", "gateway_id"),
)
"""One row a device behind a gateway: it is behind one alone."""
