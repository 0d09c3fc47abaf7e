"""The tables of releases: what was proposed, which rings there are, what devices of a ring said."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
)

from .tables import UtcTime, metadata

__all__ = [
    "metadata",
    "release_counters",
    "release_devices",
    "release_rings",
    "release_trail",
    "releases",
]

releases = Table(
    "releases",
    metadata,
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("version", String(64), nullable=False),
    Column("digest", String(64), nullable=False),
    Column("feature_spec_version", String(64), nullable=False),
    Column("least_client_version", String(64), nullable=False),
    Column("back_version", String(64), nullable=False),
    Column("back_feature_spec_version", String(64), nullable=False),
    Column("back_least_client_version", String(64), nullable=False),
    Column("policy", JSON, nullable=False),
    Column("state", String(16), nullable=False),
    Column("ring", Integer),
    Column("ring_began_at", UtcTime),
    Column("looks", Integer, nullable=False),
    Column("looked_at", Integer, nullable=False),
    Column("reason", String(256), nullable=False),
    Column("proposed_at", UtcTime, nullable=False),
    Column("state_at", UtcTime, nullable=False),
)
"""One row a release; its way back has the next number."""

release_rings = Table(
    "release_rings",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("position", Integer, nullable=False),
    Column("share", Float, nullable=False),
    Column("devices", JSON, nullable=False),
)
"""One row a ring before the fleet."""

release_devices = Table(
    "release_devices",
    metadata,
    Column("number", BigInteger, ForeignKey("releases.number"), primary_key=True),
    Column("device_id", String(64), ForeignKey("devices.device_id"), primary_key=True),
    Column("in_ring", Boolean, nullable=False),
    Column("before", JSON(none_as_null=True)),
    Column("failed_because", String(32)),
    Index("ix_release_devices_number_in_ring", "number", "in_ring"),
)
"""One row a device of the rings, or one to compare with: its bands before, and a failure."""

release_counters = Table(
    "release_counters",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("value", BigInteger, nullable=False),
)
"""Numbers that only grow: of metadata and of announcements."""

release_trail = Table(
    "release_trail",
    metadata,
    Column(
        "number_of_row",
        BigInteger().with_variant(Integer, "sqlite"),
        primary_key=True,
        autoincrement=True,
    ),
    Column("at", UtcTime, nullable=False),
    Column("number", BigInteger, nullable=False),
    Column("state", String(16), nullable=False),
    Column("ring", String(32)),
    Column("reason", String(256), nullable=False),
)
"""One row a change of a release's state or ring; rows are added and read, never changed."""
