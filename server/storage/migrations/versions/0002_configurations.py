"""Keep configurations of devices, and what devices say of them and of refused models."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)
NEW_IN_DEVICES = (
    ("refused_model", sa.String(64)),
    ("refused_because", sa.String(32)),
    ("configuration_sequence", sa.BigInteger),
)


def upgrade() -> None:
    """Make the table, and the columns."""
    op.create_table(
        "configurations",
        sa.Column("message_id", sa.String(32), primary_key=True),
        sa.Column("device_id", sa.String(64), sa.ForeignKey("devices.device_id"), nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("settings", sa.JSON, nullable=False),
        sa.Column("issued_at", MOMENT, nullable=False),
        sa.Column("expires_at", MOMENT, nullable=False),
        sa.Column("applied_at", MOMENT),
    )
    op.create_index(
        "ix_configurations_device_id_sequence", "configurations", ["device_id", "sequence"]
    )
    for name, kind in NEW_IN_DEVICES:
        op.add_column("devices", sa.Column(name, kind))


def downgrade() -> None:
    """Drop them."""
    for name, _ in NEW_IN_DEVICES:
        op.drop_column("devices", name)
    op.drop_table("configurations")
