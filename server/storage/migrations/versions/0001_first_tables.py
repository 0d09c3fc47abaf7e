"""Make the first tables: devices, notices, outbox, audit, models, dead letters."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)
ROW_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Make the tables."""
    _make_devices()
    _make_notices()
    _make_outbox()
    _make_audit()
    _make_models()
    _make_dead_letters()


def downgrade() -> None:
    """Drop them, the ones that refer to others first."""
    for table in ("outbox", "notices", "models", "devices", "dead_letters", "audit"):
        op.drop_table(table)


def _make_devices() -> None:
    op.create_table(
        "devices",
        sa.Column("device_id", sa.String(64), primary_key=True),
        sa.Column("first_seen_at", MOMENT, nullable=False),
        sa.Column("last_seen_at", MOMENT, nullable=False),
        sa.Column("presence", sa.String(16)),
        sa.Column("client_version", sa.String(64)),
        sa.Column("feature_spec_version", sa.String(64)),
        sa.Column("model_version", sa.String(64)),
        sa.Column("summary", sa.JSON),
        sa.Column("summary_received_at", MOMENT),
        sa.Column("last_sequence", sa.BigInteger, nullable=False),
        sa.Column("notice_sequence", sa.BigInteger, nullable=False),
        sa.Column("recheck_at", MOMENT),
    )
    op.create_index("ix_devices_recheck_at", "devices", ["recheck_at"])


def _make_notices() -> None:
    op.create_table(
        "notices",
        sa.Column("notice_id", sa.String(32), primary_key=True),
        sa.Column("device_id", sa.String(64), sa.ForeignKey("devices.device_id"), nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("summary_id", sa.String(32), nullable=False),
        sa.Column("template", sa.String(64), nullable=False),
        sa.Column("language", sa.String(6), nullable=False),
        sa.Column("urgency", sa.String(16), nullable=False),
        sa.Column("days_band", sa.String(16), nullable=False),
        sa.Column("probability_band", sa.String(16), nullable=False),
        sa.Column("health_band", sa.String(16), nullable=False),
        sa.Column("confidence", sa.String(16), nullable=False),
        sa.Column("model_version", sa.String(64), nullable=False),
        sa.Column("reason_codes", sa.JSON, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("issued_at", MOMENT, nullable=False),
        sa.Column("expires_at", MOMENT, nullable=False),
        sa.Column("state_at", MOMENT, nullable=False),
    )
    op.create_index("ix_notices_device_id_issued_at", "notices", ["device_id", "issued_at"])
    op.create_index("ix_notices_state", "notices", ["state"])


def _make_outbox() -> None:
    op.create_table(
        "outbox",
        sa.Column("message_id", sa.String(32), primary_key=True),
        sa.Column("device_id", sa.String(64), sa.ForeignKey("devices.device_id"), nullable=False),
        sa.Column("topic", sa.String(160), nullable=False),
        sa.Column("payload", sa.LargeBinary, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("next_attempt_at", MOMENT),
        sa.Column("expires_at", MOMENT, nullable=False),
        sa.Column("acked_at", MOMENT),
    )
    op.create_index("ix_outbox_next_attempt_at", "outbox", ["next_attempt_at"])
    op.create_index("ix_outbox_device_id", "outbox", ["device_id"])


def _make_audit() -> None:
    op.create_table(
        "audit",
        sa.Column("number", ROW_NUMBER, primary_key=True, autoincrement=True),
        sa.Column("at", MOMENT, nullable=False),
        sa.Column("device_id", sa.String(64), nullable=False),
        sa.Column("decision", sa.String(32), nullable=False),
        sa.Column("reason_code", sa.String(64), nullable=False),
        sa.Column("model_version", sa.String(64)),
        sa.Column("notice_id", sa.String(32)),
        sa.Column("recheck_at", MOMENT),
    )
    op.create_index("ix_audit_device_id_at", "audit", ["device_id", "at"])
    op.create_index("ix_audit_decision_reason_code", "audit", ["decision", "reason_code"])


def _make_models() -> None:
    op.create_table(
        "models",
        sa.Column("version", sa.String(64), primary_key=True),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("ledger_kind", sa.String(16), nullable=False),
        sa.Column("ledger_hash", sa.String(64)),
        sa.Column("added_at", MOMENT, nullable=False),
        sa.Column("state_at", MOMENT, nullable=False),
    )


def _make_dead_letters() -> None:
    op.create_table(
        "dead_letters",
        sa.Column("number", ROW_NUMBER, primary_key=True, autoincrement=True),
        sa.Column("at", MOMENT, nullable=False),
        sa.Column("reason", sa.String(64), nullable=False),
        sa.Column("detail", sa.String(256), nullable=False),
        sa.Column("topic", sa.String(256), nullable=False),
        sa.Column("payload_bytes", sa.Integer, nullable=False),
        sa.Column("payload_sha256", sa.String(64), nullable=False),
    )
    op.create_index("ix_dead_letters_reason", "dead_letters", ["reason"])
