"""A real TUF repository in memory, built and signed by python-tuf, release by release."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import (
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

ROLES = ("root", "timestamp", "snapshot", "targets")


@dataclass
class BundleRepository:
    """What a server of a repository holds.

    Attributes:
        version: of timestamp, snapshot and targets, which grow together.
        files: what is served, by path.
    """

    version: int = 0
    files: dict[str, bytes] = field(default_factory=dict)
    signers: dict[str, CryptoSigner] = field(
        default_factory=lambda: {role: CryptoSigner.generate_ed25519() for role in ROLES}
    )

    def __post_init__(self) -> None:
        root = Root(consistent_snapshot=True, expires=_later(365))
        for role, signer in self.signers.items():
            root.add_key(signer.public_key, role)
        self._sign("root", root, "1.root.json")

    @property
    def root(self) -> bytes:
        """The first root, as it is built into a device."""
        return self.files["/metadata/1.root.json"]

    def release(self, name: str, content: bytes, *, days: float = 7.0) -> None:
        """Publish a bundle as the current one of its name, fresh for so many days."""
        self.version += 1
        target = TargetFile.from_data(name, content, ["sha256"])
        targets = Targets(version=self.version, expires=_later(365), targets={name: target})
        self._sign("targets", targets, f"{self.version}.targets.json")
        snapshot = Snapshot(
            version=self.version,
            expires=_later(365),
            meta={"targets.json": MetaFile(version=self.version)},
        )
        self._sign("snapshot", snapshot, f"{self.version}.snapshot.json")
        timestamp = Timestamp(
            version=self.version,
            expires=_later(days),
            snapshot_meta=MetaFile(version=self.version),
        )
        self._sign("timestamp", timestamp, "timestamp.json")
        self.files[f"/targets/{target.hashes['sha256']}.{name}"] = content

    def _sign(self, role: str, signed: Root | Targets | Snapshot | Timestamp, name: str) -> None:
        metadata = Metadata(signed)
        metadata.sign(self.signers[role])
        self.files[f"/metadata/{name}"] = metadata.to_bytes()


def _later(days: float) -> datetime:
    return datetime.now(UTC).replace(microsecond=0) + timedelta(days=days)
