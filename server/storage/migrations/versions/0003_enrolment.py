"""Keep tokens, enrolled devices with their public keys, and certificates."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "enrolment_tokens",
        sa.Column("token_hash", sa.String(64), primary_key=True),
        sa.Column("device_id", sa.String(64)),
        sa.Column("made_at", MOMENT, nullable=False),
        sa.Column("expires_at", MOMENT, nullable=False),
        sa.Column("used_at", MOMENT),
        sa.Column("used_by", sa.String(64)),
        sa.Column("keys_digest", sa.String(64)),
        sa.Column("serial", sa.String(40)),
    )
    op.create_table(
        "enrolled_devices",
        sa.Column("device_id", sa.String(64), primary_key=True),
        sa.Column("sign_key", sa.LargeBinary, nullable=False),
        sa.Column("seal_key", sa.LargeBinary, nullable=False),
        sa.Column("supernode_key", sa.String(512)),
        sa.Column("serial", sa.String(40), nullable=False),
        sa.Column("enrolled_at", MOMENT, nullable=False),
        sa.Column("revoked_at", MOMENT),
        sa.Column("revoked_because", sa.String(160)),
    )
    op.create_table(
        "certificates",
        sa.Column("serial", sa.String(40), primary_key=True),
        sa.Column("authority", sa.String(16), nullable=False),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("key_digest", sa.String(64), nullable=False),
        sa.Column("pem", sa.String(4096), nullable=False),
        sa.Column("issued_at", MOMENT, nullable=False),
        sa.Column("not_after", MOMENT, nullable=False),
        sa.Column("replaces", sa.String(40)),
        sa.Column("revoked_at", MOMENT),
    )
    op.create_index("ix_certificates_name", "certificates", ["name"])
    op.create_index("ix_certificates_revoked_at", "certificates", ["revoked_at"])


def downgrade() -> None:
    """Drop them."""
    for name in ("certificates", "enrolled_devices", "enrolment_tokens"):
        op.drop_table(name)
