"""Which bundle a device runs: the one that ships with the package, or one that was installed.

A signature is verified when a bundle is installed. The slot then records the digest, which covers
every byte of the bundle, and at each start the slot is checked against that: no key is needed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from models.durable_file import write_durably

from .errors import SlotError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from models.bundle import Bundle

INSTALLED = "installed"
_CURRENT = "current.json"


@dataclass(frozen=True, slots=True)
class InstalledBundle:
    """The bundle that the device switched to.

    Attributes:
        version: the model's version.
        digest: hex SHA-256 of the bundle.
        signed_by: id of the key that signed it, None where unsigned bundles were allowed.
    """

    version: str
    digest: str
    signed_by: str | None


class ModelStore:
    """The folder of installed bundles, beside a device's store.

    Args:
        folder: made at the first installation, for the user who installs alone.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @staticmethod
    def beside(store: Path) -> ModelStore:
        """Return the folder of bundles that belongs to a device's store."""
        return ModelStore(store.with_name(store.name + ".models"))

    def install(
        self,
        source: Path,
        *,
        trusted_keys: Mapping[str, bytes],
        allow_unsigned: bool = False,
    ) -> InstalledBundle:
        """Verify a bundle, run its golden inputs, and switch to it; else nothing changes.

        Args:
            source: zip or folder.
            trusted_keys: Ed25519 public keys (32 raw bytes) by key id.
            allow_unsigned: accept a bundle without signature, for experiments of one's own.

        Raises:
            models.errors.BundleError: the bundle is refused; the device runs what it ran before.
            SlotError: the folder cannot be written.
        """
        from models.bundle import load_bundle, write_bundle
        from models.inference import Predictor

        bundle = load_bundle(source, trusted_keys=trusted_keys, allow_unsigned=allow_unsigned)
        Predictor(bundle).check_golden()
        signature = bundle.manifest.get("signature") or {}
        installed = InstalledBundle(
            version=str(bundle.version), digest=bundle.digest, signed_by=signature.get("key_id")
        )
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_bundle(_unsigned(bundle), self._slot(bundle.digest))
            self._switch(installed)
        except OSError as error:
            what = f"cannot be written: {error.strerror}"
            raise SlotError(self.folder, what, "check the folder and the disk") from error
        for slot in self.folder.glob("*.zip"):
            if slot != self._slot(bundle.digest):
                slot.unlink(missing_ok=True)
        return installed

    def installed(self) -> InstalledBundle | None:
        """Return what was installed last, None where nothing was.

        Raises:
            SlotError: the record of it cannot be read.
        """
        path = self.folder / _CURRENT
        try:
            return InstalledBundle(**json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            what = f"cannot be read ({error})"
            raise SlotError(path, what, "remove the folder to run the default bundle") from error

    def open(
        self, choice: str = INSTALLED, *, trusted_keys: Mapping[str, bytes] | None = None
    ) -> Bundle:
        """Load the bundle that the device shall run.

        Args:
            choice: `installed` (the default bundle where nothing was installed), `default`, or the
                path of a bundle.
            trusted_keys: for a path: Ed25519 public keys (32 raw bytes) by key id.

        Raises:
            models.errors.BundleError: the bundle is refused.
            SlotError: the installed bundle is not the one that was installed.
        """
        from models.bundle import DEFAULT, load_bundle

        if choice == DEFAULT:
            return load_bundle(DEFAULT)
        if choice != INSTALLED:
            return load_bundle(Path(choice), trusted_keys=trusted_keys)
        installed = self.installed()
        if installed is None:
            return load_bundle(DEFAULT)
        slot = self._slot(installed.digest)
        bundle = load_bundle(slot, allow_unsigned=True)
        if bundle.digest != installed.digest:
            raise SlotError(slot, "is not the bundle that was installed", "install it again")
        return bundle

    def _slot(self, digest: str) -> Path:
        return self.folder / f"{digest[:16]}.zip"

    def _switch(self, installed: InstalledBundle) -> None:
        content = {
            "version": installed.version,
            "digest": installed.digest,
            "signed_by": installed.signed_by,
        }
        write_durably(self.folder / _CURRENT, json.dumps(content).encode())


def _unsigned(bundle: Bundle) -> Bundle:
    from models.bundle import MANIFEST, canonical_json

    manifest = {name: value for name, value in bundle.manifest.items() if name != "signature"}
    return replace(
        bundle, manifest=manifest, files={**bundle.files, MANIFEST: canonical_json(manifest)}
    )
