"""From where a bundle is to what the device runs: fetch, gate, trial."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from models.errors import BundleError

from ..errors import InputMissingError
from ..model_store import ENDING
from .download import discard, download, is_address, local_bundle

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from ..model_store import ModelStore
    from .download import DownloadLimits, Progress
    from .slots import InstalledBundle

DOWNLOADS = "download"
TRUST_ENDING = ".repository"


@dataclass(frozen=True, slots=True, kw_only=True)
class Leave:
    """Rules that whoever asks for an update waives, each by name.

    Attributes:
        unsigned: a bundle without signature, for experiments of one's own.
        older: an older release than the one that was committed last.
        rolled_back: a version that failed its trial on this device.
    """

    unsigned: bool = False
    older: bool = False
    rolled_back: bool = False


def update_model(
    models: ModelStore,
    source: str,
    *,
    trusted_keys: Mapping[str, bytes],
    leave: Leave | None = None,
    repository: str | None = None,
    first_root: Path | None = None,
    now: datetime | None = None,
    limits: DownloadLimits | None = None,
    progress: Progress | None = None,
    backend: str | None = None,
) -> InstalledBundle:
    """Fetch a bundle, check it, try it out, and put it on trial; else nothing changes.

    Args:
        models: of the device.
        source: a zip, a folder, an HTTP address, or a bundle's name in the repository.
        trusted_keys: Ed25519 public keys (32 raw bytes) by key id.
        leave: rules that are waived.
        repository: address of a repository of The Update Framework.
        first_root: its first `root.json`, needed the first time.
        now: the moment that a refusal is recorded with; None takes the system's clock.
        limits: of the download.
        progress: called with bytes that are here and bytes in all, None where not known.
        backend: that the bundle is tried out on; None takes the best of this machine.

    Raises:
        models.errors.BundleError: refused, and recorded; the device runs what it ran.
        DownloadError: the server, the link or the disk failed.
        SlotError: the folder of bundles cannot be written, or no child process started.
        InputMissingError: a repository was given, and python-tuf is not installed.
    """
    waived = leave or Leave()

    def install(path: Path) -> InstalledBundle:
        return models.install(
            path,
            trusted_keys=trusted_keys,
            allow_unsigned=waived.unsigned,
            allow_older=waived.older,
            allow_rolled_back=waived.rolled_back,
            now=now,
            backend=backend,
        )

    if repository is not None:
        return install(_from_repository(models, source, repository, first_root, limits, now))
    if not is_address(source):
        return install(local_bundle(Path(source)))
    return _from_address(models, source, install, limits, progress, now)


def _from_address(
    models: ModelStore,
    url: str,
    install: Callable[[Path], InstalledBundle],
    limits: DownloadLimits | None,
    progress: Progress | None,
    now: datetime | None,
) -> InstalledBundle:
    folder = models.folder / DOWNLOADS

    def fetch_and_install() -> InstalledBundle:
        done = install(download(url, folder, limits=limits, progress=progress))
        discard(folder)
        return done

    was_begun = any(folder.glob("*.part"))
    try:
        try:
            return fetch_and_install()
        except BundleError as error:
            # A part of an earlier day may have lost its end with the power.
            if not was_begun or error.reason != "altered":
                raise
        discard(folder)
        return fetch_and_install()
    except BundleError as error:
        if error.reason == "too_large":
            models.record_refusal(error, now=now)
        discard(folder)
        raise


def _from_repository(
    models: ModelStore,
    target: str,
    url: str,
    first_root: Path | None,
    limits: DownloadLimits | None,
    now: datetime | None,
) -> Path:
    try:
        from .tuf_repository import TufRepository
    except ModuleNotFoundError as error:
        remedy = "pip install 'fedcell[tuf]'"
        raise InputMissingError("--repository", f"needs {error.name}", remedy) from error
    trusted = TufRepository(
        url, trust_folder(models), limits=limits, authorities=fleet_authorities(models)
    )
    try:
        return trusted.fetch(target, first_root=first_root)
    except BundleError as error:
        models.record_refusal(error, now=now)
        raise


def fleet_authorities(models: ModelStore) -> Path | None:
    """Return the file of those who speak for services of the device's fleet, None without one.

    Read anew each time: it changes as the device renews its certificate.

    Raises:
        JoinError: the membership is damaged.
    """
    from ..provisioning.membership import read_membership

    folder = models.folder
    store = folder.with_name(folder.name.removesuffix(ENDING))
    membership = read_membership(store)
    return None if membership is None else membership.authorities


def trust_folder(models: ModelStore) -> Path:
    """Return where trusted metadata is kept: beside the models, so that erasing them keeps it."""
    folder = models.folder
    return folder.with_name(folder.name.removesuffix(ENDING) + TRUST_ENDING)
