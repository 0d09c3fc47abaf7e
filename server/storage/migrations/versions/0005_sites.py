"""Keep gateways, and which devices take part in rounds through which of them."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "gateways",
        sa.Column("gateway_id", sa.String(64), primary_key=True),
        sa.Column("most_devices", sa.Integer, nullable=False),
        sa.Column("issued_at", MOMENT, nullable=False),
        sa.Column("not_after", MOMENT, nullable=False),
        sa.Column("credential_digest", sa.String(64), nullable=False),
    )
    op.create_table(
        "site_devices",
        sa.Column("device_id", sa.String(64), primary_key=True),
        sa.Column(
            "gateway_id", sa.String(64), sa.ForeignKey("gateways.gateway_id"), nullable=False
        ),
    )
    op.create_index("ix_site_devices_gateway_id", "site_devices", ["gateway_id"])


def downgrade() -> None:
    """Drop them."""
    for name in ("site_devices", "gateways"):
        op.drop_table(name)
