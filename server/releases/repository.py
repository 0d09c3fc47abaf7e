"""The repository that devices fetch from: metadata of The Update Framework (TUF), and bundles.

Offline keys sign the root and, through it, the top-level targets, which delegate the role `rings`
to the server's own key. That key says which bundle is current for which ring, and that it still is
(snapshot and timestamp); it cannot make a bundle that a device would run, for devices check each
bundle against the offline keys of the root. Files are written in an order in which every moment is
whole: bundles, rings, snapshot, and the timestamp last.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from securesystemslib.signer import Key, Signature, Signer, SSlibKey
from tuf.api.exceptions import RepositoryError, UnsignedMetadataError
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)
from tuf.api.serialization import DeserializationError

from models.durable_file import write_durably
from models.wire.envelope import VerifyKey

from .release_errors import ReleaseError, ReleaseInputError, ReleaseMissingError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from models.wire.envelope import SigningKey

METADATA, TARGETS = "metadata", "targets"
RINGS: Final = "rings"
ROOT_DAYS, TARGETS_DAYS = 730, 730
RINGS_DAYS = 30
TIMESTAMP_DAYS = 7
"""A mirror that stops passing on news is found out after so many days."""
REFRESH_BEFORE: Final = timedelta(days=TIMESTAMP_DAYS / 2)
_PATHS: Final = ["*/*.zip"]


@dataclass(frozen=True, slots=True)
class TargetContent:
    """A bundle as a target.

    Attributes:
        content: of the file.
        custom: what is said of it beside length and hash.
    """

    content: bytes
    custom: Mapping[str, Any]


class _Ed25519Signer(Signer):
    """Signs metadata with a key of ours."""

    def __init__(self, key: SigningKey) -> None:
        self._key = key
        self._public = tuf_key(key.verify_key)

    @property
    def public_key(self) -> Key:
        return self._public

    @classmethod
    def from_priv_key_uri(
        cls,
        priv_key_uri: str,
        public_key: Key,  # noqa: ARG003 - the library's signature
        secrets_handler: Any = None,  # noqa: ARG003 - as above
    ) -> Signer:
        """Refuse: our keys come as files."""
        raise ValueError(f"no key is at {priv_key_uri}")

    def sign(self, payload: bytes) -> Signature:
        return Signature(self._public.keyid, self._key.sign(payload).hex())


def tuf_key(key: VerifyKey) -> SSlibKey:
    """Return a public key as metadata holds it; its id is the SHA-256 of its raw bytes."""
    raw = key.to_bytes()
    return SSlibKey(hashlib.sha256(raw).hexdigest(), "ed25519", "ed25519", {"public": raw.hex()})


def first_root(
    *,
    root_keys: Sequence[SigningKey],
    release_key: SigningKey,
    online_key: VerifyKey,
    now: datetime,
    also: Sequence[VerifyKey] = (),
) -> tuple[bytes, bytes]:
    """Make the first root and the top-level targets; offline.

    Args:
        root_keys: each of them may sign the next root.
        release_key: signs bundles and targets.
        online_key: of the server: rings, snapshot, timestamp.
        now: aware time.
        also: further keys whose bundles are believed.

    Returns:
        The root's bytes, and those of the targets.
    """
    root = Metadata(Root(version=1, expires=_later(now, ROOT_DAYS), consistent_snapshot=True))
    _name_keys(root.signed, root_keys, (release_key.verify_key, *also), online_key)
    for key in root_keys:
        root.sign(_Ed25519Signer(key), append=True)
    return root.to_bytes(), _top_targets(1, release_key, online_key, now)


def rotated_root(
    before: bytes,
    targets: bytes,
    *,
    old_root_keys: Sequence[SigningKey],
    root_keys: Sequence[SigningKey],
    release_key: SigningKey,
    online_key: VerifyKey,
    now: datetime,
    also: Sequence[VerifyKey] = (),
) -> tuple[bytes, bytes]:
    """Make the next root, signed by the old keys and the new ones, and the targets that follow.

    Args:
        before: the root in force.
        targets: the top-level targets in force.
        old_root_keys: of the root before, as many as it asks for.
        root_keys: of the new root.
        release_key: signs bundles and targets from now on.
        online_key: of the server.
        now: aware time.
        also: further keys whose bundles are believed, such as the one before.

    Raises:
        ReleaseError: the old keys are not those of the root before.
    """
    known = read_root(before, "root").signed
    version = known.version + 1
    root = Metadata(Root(version=version, expires=_later(now, ROOT_DAYS), consistent_snapshot=True))
    _name_keys(root.signed, root_keys, (release_key.verify_key, *also), online_key)
    for key in (*old_root_keys, *root_keys):
        root.sign(_Ed25519Signer(key), append=True)
    content = root.to_bytes()
    require_next_root(before, content)
    following = _targets_of(targets, "targets").signed.version + 1
    return content, _top_targets(following, release_key, online_key, now)


def require_next_root(before: bytes | None, after: bytes) -> int:
    """Check that a root follows another, as devices do, and return its version.

    Raises:
        ReleaseError: it is not signed by enough keys of both, or is not the next one.
    """
    found = read_root(after, "new root")
    try:
        found.signed.verify_delegate(Root.type, found.signed_bytes, found.signatures)
        if before is not None:
            known = read_root(before, "root")
            known.signed.verify_delegate(Root.type, found.signed_bytes, found.signatures)
            if found.signed.version != known.signed.version + 1:
                what = f"has version {found.signed.version}, not {known.signed.version + 1}"
                raise ReleaseError("new root", what, "make it from the root in force")
    except UnsignedMetadataError as error:
        what = f"is not signed by the keys in force ({error})"
        raise ReleaseError("new root", what, "sign it with the old root keys, too") from error
    return found.signed.version


def release_keys(root: bytes) -> dict[str, bytes]:
    """Return the keys that may sign bundles under a root: raw bytes by our key ids."""
    signed = read_root(root, "root").signed
    keys = (signed.keys[name] for name in signed.roles[Targets.type].keyids)
    raw = [bytes.fromhex(key.keyval["public"]) for key in keys]
    return {VerifyKey.from_bytes(one).key_id: one for one in raw}


def read_root(content: bytes, where: object) -> Metadata[Root]:
    """Read a root.

    Raises:
        ReleaseInputError: it is none.
    """
    try:
        return Metadata[Root].from_bytes(content)
    except (DeserializationError, RepositoryError, ValueError) as error:
        raise ReleaseInputError(where, f"is no root ({error})", "name root.json") from error


class Repository:
    """The folder that is served.

    Args:
        folder: of the repository.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._metadata = folder / METADATA

    def root(self) -> bytes:
        """Return the newest root.

        Raises:
            ReleaseMissingError: there is none yet.
        """
        found = sorted(
            self._metadata.glob("*.root.json"), key=lambda path: int(path.name.split(".")[0])
        )
        if not found:
            remedy = "make one offline, and take it in: fedcell release root, then accept"
            raise ReleaseMissingError(self.folder, "holds no root", remedy)
        return found[-1].read_bytes()

    def take_root(self, root: bytes, targets: bytes) -> int:
        """Take a root in that follows the one in force, and its targets.

        Taking in the same one again, after a crash in between, changes nothing else.

        Raises:
            ReleaseError: it does not follow, or the targets are not signed under it.
        """
        try:
            before: bytes | None = self.root()
        except ReleaseMissingError:
            before = None
        version = (
            read_root(root, "root").signed.version
            if root == before
            else require_next_root(before, root)
        )
        top = _targets_of(targets, "targets")
        try:
            read_root(root, "root").signed.verify_delegate(
                Targets.type, top.signed_bytes, top.signatures
            )
        except UnsignedMetadataError as error:
            what = f"are not signed under the root ({error})"
            raise ReleaseError("targets", what, "make both in one go") from error
        self._metadata.mkdir(parents=True, exist_ok=True)
        (self.folder / TARGETS).mkdir(exist_ok=True)
        write_durably(self._metadata / f"{top.signed.version}.targets.json", targets)
        write_durably(self._metadata / f"{version}.root.json", root)
        return version

    def version(self) -> int:
        """Return the version of rings, snapshot and timestamp; 0 before the first."""
        found = self._timestamp()
        return 0 if found is None else found.version

    def current(self) -> dict[str, tuple[str, dict[str, Any]]]:
        """Return what is current: SHA-256 and what is said beside it, by the target's name."""
        version = self.version()
        if version == 0:
            return {}
        content = (self._metadata / f"{version}.{RINGS}.json").read_bytes()
        signed = _targets_of(content, RINGS).signed
        return {
            name: (info.hashes["sha256"], dict(info.unrecognized_fields.get("custom", {})))
            for name, info in signed.targets.items()
        }

    def needs_refresh(self, now: datetime) -> bool:
        """Tell whether the timestamp is soon over, or other targets are in force."""
        found = self._timestamp()
        if found is None or found.expires - REFRESH_BEFORE < now:
            return True
        content = (self._metadata / f"{found.version}.snapshot.json").read_bytes()
        snapshot = Metadata[Snapshot].from_bytes(content).signed
        return snapshot.meta["targets.json"].version != self._top_version()

    def publish(
        self,
        targets: Mapping[str, TargetContent],
        *,
        version: int,
        key: SigningKey,
        now: datetime,
    ) -> Callable[[], None]:
        """Write what shall be current, all but the timestamp, which makes it so.

        Args:
            targets: by name.
            version: above every one before.
            key: the server's own.
            now: aware time.

        Returns:
            What writes the timestamp, where no later one stands there by then.

        Raises:
            ReleaseError: the root in force does not name the key.
            OSError: the disk refuses.
        """
        root = read_root(self.root(), "root").signed
        signer = _Ed25519Signer(key)
        if signer.public_key.keyid not in root.roles[Timestamp.type].keyids:
            remedy = "name it when the root is made: --online-key"
            raise ReleaseError("the server's key", "is not the root's", remedy)
        files = {}
        for name, target in targets.items():
            info = TargetFile.from_data(name, target.content, ["sha256"])
            info.unrecognized_fields["custom"] = dict(target.custom)
            files[name] = info
            ring, _, base = name.rpartition("/")
            place = self.folder / TARGETS / ring / f"{info.hashes['sha256']}.{base}"
            if not place.exists():
                place.parent.mkdir(parents=True, exist_ok=True)
                write_durably(place, target.content)
        rings = Targets(version=version, expires=_later(now, RINGS_DAYS), targets=files)
        snapshot = Snapshot(
            version=version,
            expires=_later(now, RINGS_DAYS),
            meta={
                "targets.json": MetaFile(version=self._top_version()),
                f"{RINGS}.json": MetaFile(version=version),
            },
        )
        timestamp = Timestamp(
            version=version,
            expires=_later(now, TIMESTAMP_DAYS),
            snapshot_meta=MetaFile(version=version),
        )
        signed: dict[str, Metadata[Any]] = {
            f"{version}.{RINGS}.json": Metadata(rings),
            f"{version}.snapshot.json": Metadata(snapshot),
        }
        for name, metadata in signed.items():
            metadata.sign(signer)
            write_durably(self._metadata / name, metadata.to_bytes())
        last = Metadata(timestamp)
        last.sign(signer)

        def make_current() -> None:
            if self.version() < version:
                write_durably(self._metadata / "timestamp.json", last.to_bytes())

        return make_current

    def _top_version(self) -> int:
        found = (path.name.split(".")[0] for path in self._metadata.glob("*.targets.json"))
        return max(map(int, found))

    def _timestamp(self) -> Timestamp | None:
        try:
            content = (self._metadata / "timestamp.json").read_bytes()
            return Metadata[Timestamp].from_bytes(content).signed
        except FileNotFoundError:
            return None
        except (DeserializationError, RepositoryError, ValueError) as error:
            what = f"the timestamp cannot be read ({error})"
            raise ReleaseError(self.folder, what, "restore the folder from a copy") from error


def _name_keys(
    root: Root,
    root_keys: Sequence[SigningKey],
    release_keys: Sequence[VerifyKey],
    online_key: VerifyKey,
) -> None:
    for key in root_keys:
        root.add_key(tuf_key(key.verify_key), Root.type)
    for public in release_keys:
        root.add_key(tuf_key(public), Targets.type)
    for role in (Snapshot.type, Timestamp.type):
        root.add_key(tuf_key(online_key), role)


def _top_targets(
    version: int, release_key: SigningKey, online_key: VerifyKey, now: datetime
) -> bytes:
    online = tuf_key(online_key)
    role = DelegatedRole(RINGS, [online.keyid], 1, terminating=True, paths=_PATHS)
    targets = Targets(
        version=version,
        expires=_later(now, TARGETS_DAYS),
        delegations=Delegations({online.keyid: online}, {RINGS: role}),
    )
    metadata = Metadata(targets)
    metadata.sign(_Ed25519Signer(release_key))
    return metadata.to_bytes()


def _targets_of(content: bytes, where: object) -> Metadata[Targets]:
    try:
        return Metadata[Targets].from_bytes(content)
    except (DeserializationError, RepositoryError, ValueError) as error:
        raise ReleaseInputError(where, f"are no targets ({error})", "name targets.json") from error


def _later(now: datetime, days: float) -> datetime:
    return now.astimezone(UTC).replace(microsecond=0) + timedelta(days=days)
