"""Following releases: what a device is offered, taken up at a check-in, not by an announcement.

A check-in asks the repository, whose metadata say what is current and until when they may be
believed; an announcement only has it happen sooner. What is asked for is the bundle of this
device's ring and features, or where it needs a newer client, the last one for this client. Keys
are those of the repository's root, so that they change with it. Going back is a release with a
higher number, too: nothing here gives leave to take an older one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from models.bundle import CLIENT_VERSION, DEFAULT, load_bundle
from models.errors import BundleError
from models.feature_spec import FEATURE_SPEC_VERSION
from models.wire.announcements import FLEET_RING

from ..errors import InputMissingError
from .update import fleet_authorities, trust_folder

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from ..model_store import ModelStore
    from .download import DownloadLimits
    from .slots import InstalledBundle
    from .tuf_repository import Lookup


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseSource:
    """Where releases come from.

    Attributes:
        url: of the repository.
        first_root: `root.json` that came with the device; needed the first time.
        limits: of each download; None: the usual ones.
    """

    url: str
    first_root: Path | None = None
    limits: DownloadLimits | None = None


def check_in(
    models: ModelStore,
    source: ReleaseSource,
    *,
    ring: str = FLEET_RING,
    now: datetime | None = None,
    backend: str | None = None,
    client: tuple[int, ...] = CLIENT_VERSION,
) -> InstalledBundle | None:
    """Ask what this device shall run, and put it on trial where it is not that.

    Args:
        models: of the device.
        source: where releases come from.
        ring: of the device.
        now: the moment that a refusal is recorded with; None takes the system's clock.
        backend: that a bundle is tried out on; None takes the best of this machine.
        client: version of this client.

    Returns:
        The bundle that was put on trial; None where the device runs what it shall, or nothing is
        offered to it.

    Raises:
        models.errors.BundleError: metadata or bundle are refused, and the refusal is recorded; the
            device runs what it ran.
        DownloadError: the repository cannot be reached.
        SlotError: the folder of bundles cannot be written, or no child process started.
        InputMissingError: python-tuf is not installed, or nothing is trusted yet.
    """
    try:
        from .tuf_repository import METADATA, ROOT, TufRepository
    except ModuleNotFoundError as error:
        remedy = "pip install 'fedcell[tuf]'"
        raise InputMissingError("releases", f"needs {error.name}", remedy) from error
    trusted = trust_folder(models)
    repository = TufRepository(
        source.url, trusted, limits=source.limits, authorities=fleet_authorities(models)
    )
    # The root that came with the device is for the first time: what was learnt since stays.
    first_root = None if (trusted / METADATA / ROOT).exists() else source.first_root
    try:
        offered = repository.offered(
            lambda look_up: wanted_target(look_up, ring=ring, client=client), first_root=first_root
        )
        if offered is None or offered.said.get("version") == running_version(models):
            return None
        file = offered.fetch()
    except BundleError as error:
        models.record_refusal(error, now=now)
        raise
    return models.install(file, trusted_keys=offered.keys, now=now, backend=backend)


def wanted_target(
    look_up: Lookup,
    *,
    ring: str,
    client: tuple[int, ...],
    spec: str = FEATURE_SPEC_VERSION,
) -> str | None:
    """Return the target of a ring that this client can run, None where there is none.

    Args:
        look_up: returns what stands beside a name, None where it is not there.
        ring: of the device.
        client: version of this client.
        spec: of its features.
    """
    name = f"{ring}/{spec}.zip"
    said = look_up(name)
    if said is None:
        return None
    if _parts(said.get("least_client_version")) <= client:
        return name
    earlier = said.get("earlier")
    for least in earlier if isinstance(earlier, list) else ():
        if _parts(least) <= client:
            return f"{ring}/{spec}+{least}.zip"
    return None


def running_version(models: ModelStore) -> str:
    """Return the version of the model that the device runs."""
    running = models.installed()
    return _default_version() if running is None else running.version


@cache
def _default_version() -> str:
    return str(load_bundle(DEFAULT).version)


def _parts(version: Any) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in str(version).split("."))
    except ValueError:
        # Of a format that is not known: for a newer client than this one.
        return (2**31,)
