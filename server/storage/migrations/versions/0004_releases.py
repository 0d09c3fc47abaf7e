"""Keep releases, rings, what devices of a ring said, and how releases went."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)
ROW_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "releases",
        sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("version", sa.String(64), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("feature_spec_version", sa.String(64), nullable=False),
        sa.Column("least_client_version", sa.String(64), nullable=False),
        sa.Column("back_version", sa.String(64), nullable=False),
        sa.Column("back_feature_spec_version", sa.String(64), nullable=False),
        sa.Column("back_least_client_version", sa.String(64), nullable=False),
        sa.Column("policy", sa.JSON, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("ring", sa.Integer),
        sa.Column("ring_began_at", MOMENT),
        sa.Column("looks", sa.Integer, nullable=False),
        sa.Column("looked_at", sa.Integer, nullable=False),
        sa.Column("reason", sa.String(256), nullable=False),
        sa.Column("proposed_at", MOMENT, nullable=False),
        sa.Column("state_at", MOMENT, nullable=False),
    )
    op.create_table(
        "release_rings",
        sa.Column("name", sa.String(32), primary_key=True),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("share", sa.Float, nullable=False),
        sa.Column("devices", sa.JSON, nullable=False),
    )
    op.create_table(
        "release_devices",
        sa.Column("number", sa.BigInteger, sa.ForeignKey("releases.number"), primary_key=True),
        sa.Column("device_id", sa.String(64), sa.ForeignKey("devices.device_id"), primary_key=True),
        sa.Column("in_ring", sa.Boolean, nullable=False),
        sa.Column("before", sa.JSON),
        sa.Column("failed_because", sa.String(32)),
    )
    op.create_index("ix_release_devices_number_in_ring", "release_devices", ["number", "in_ring"])
    op.create_table(
        "release_counters",
        sa.Column("name", sa.String(32), primary_key=True),
        sa.Column("value", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "release_trail",
        sa.Column("number_of_row", ROW_NUMBER, primary_key=True, autoincrement=True),
        sa.Column("at", MOMENT, nullable=False),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("ring", sa.String(32)),
        sa.Column("reason", sa.String(256), nullable=False),
    )


def downgrade() -> None:
    """Drop them."""
    for name in (
        "release_trail",
        "release_counters",
        "release_devices",
        "release_rings",
        "releases",
    ):
        op.drop_table(name)
