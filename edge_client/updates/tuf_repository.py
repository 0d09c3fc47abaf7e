"""The optional repository client: The Update Framework (TUF) against rollback and freeze.

Beside the bundle's own signature, TUF says which bundle is the current one: an old one cannot be
offered again, and a mirror that stops passing on news is found out when its metadata expires.
python-tuf holds every rule; here are the places, the limits and the words. What the device
trusts is never reset: a device that was offline for long sees expired metadata, keeps its model
and refuses only the update. Install with `pip install 'fedcell[tuf]'`.
"""

from __future__ import annotations

import urllib.error
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from tuf.api.exceptions import (
    DownloadError as TufDownloadError,
)
from tuf.api.exceptions import (
    DownloadHTTPError,
    DownloadLengthMismatchError,
    ExpiredMetadataError,
    RepositoryError,
)
from tuf.api.metadata import Metadata, Root, Targets
from tuf.ngclient.config import UpdaterConfig
from tuf.ngclient.fetcher import FetcherInterface
from tuf.ngclient.updater import Updater

from models.errors import BundleError
from models.wire.envelope import KEY_ID_CHARACTERS

from ..errors import DownloadError, InputMissingError
from .download import CHUNK_BYTES, DownloadLimits, opened

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tuf.api.metadata import TargetFile

METADATA, TARGETS = "metadata", "targets"
MAX_ROTATIONS = 32
MAX_DELEGATIONS = 8
ROOT = "root.json"
_KEEPS = "the device keeps its model; look after the repository and this device's clock"


T = TypeVar("T")
Lookup = Callable[[str], Mapping[str, Any] | None]


class OfferedBundle(NamedTuple):
    """A bundle as fresh metadata names it, not fetched yet.

    Attributes:
        target: its name in the repository.
        said: what stands beside its length and hash: `version`, `release` and so on.
        keys: Ed25519 public keys (32 raw bytes) by key id that the root lets sign bundles.
        fetch: fetches and returns the file.
    """

    target: str
    said: Mapping[str, Any]
    keys: Mapping[str, bytes]
    fetch: Callable[[], Path]


class TufRepository:
    """A repository of bundles at `<url>/metadata` and `<url>/targets`.

    Args:
        url: of the repository.
        folder: where trusted metadata is kept for ever; made at the first use.
        limits: of size and time of each file.
        authorities: PEM file of authorities that are believed beside this machine's own.
    """

    def __init__(
        self,
        url: str,
        folder: Path,
        *,
        limits: DownloadLimits | None = None,
        authorities: Path | None = None,
    ) -> None:
        self._url = url.rstrip("/")
        self._folder = folder
        self._limits = limits or DownloadLimits()
        self._authorities = authorities

    def fetch(self, target: str, *, first_root: Path | None = None) -> Path:
        """Fetch the current bundle of a name, verified against fresh metadata.

        Args:
            target: its name in the repository.
            first_root: the `root.json` that came with the device; needed the first time. What was
                learnt since is kept, and not undone by it.

        Returns:
            The bundle's file.

        Raises:
            BundleError: metadata or bundle are expired, rolled back, altered or endless.
            DownloadError: the repository cannot be reached.
            InputMissingError: nothing is trusted yet and no first root was given.
        """

        def current(updater: Updater) -> Path:
            updater.refresh()
            return self._current(updater, target)

        return self._with_updater(first_root, current)

    def offered(
        self, targets: Callable[[Lookup], str | None], *, first_root: Path | None = None
    ) -> OfferedBundle | None:
        """Look up what is current, and fetch nothing but metadata.

        Args:
            targets: given what looks a name up (what stands beside it, None where it is not
                there), returns the name that is wanted; None: none.
            first_root: as for `fetch`.

        Returns:
            The bundle, None where nothing is offered.

        Raises:
            BundleError: metadata are expired, rolled back, altered or endless.
            DownloadError: the repository cannot be reached.
            InputMissingError: nothing is trusted yet and no first root was given.
        """

        def look(updater: Updater) -> OfferedBundle | None:
            updater.refresh()

            def look_up(name: str) -> Mapping[str, Any] | None:
                info = updater.get_targetinfo(name)
                return None if info is None else _said(info)

            name = targets(look_up)
            info = None if name is None else updater.get_targetinfo(name)
            if name is None or info is None:
                return None
            return OfferedBundle(
                name,
                _said(info),
                self._release_keys(),
                lambda: self._in_our_words(lambda: self._current(updater, name)),
            )

        return self._with_updater(first_root, look)

    def _release_keys(self) -> dict[str, bytes]:
        """Return the keys of the trusted root's targets: they sign bundles, too."""
        import hashlib

        root = Metadata[Root].from_bytes((self._folder / METADATA / ROOT).read_bytes()).signed
        found = (root.keys[name] for name in root.roles[Targets.type].keyids)
        raw = [bytes.fromhex(key.keyval["public"]) for key in found if key.scheme == "ed25519"]
        return {hashlib.sha256(one).hexdigest()[:KEY_ID_CHARACTERS]: one for one in raw}

    def _with_updater(self, first_root: Path | None, act: Callable[[Updater], T]) -> T:
        places = {name: self._folder / name for name in (METADATA, TARGETS)}
        for place in places.values():
            place.mkdir(mode=0o700, parents=True, exist_ok=True)

        def begin() -> T:
            updater = Updater(
                metadata_dir=str(places[METADATA]),
                metadata_base_url=f"{self._url}/{METADATA}/",
                target_dir=str(places[TARGETS]),
                target_base_url=f"{self._url}/{TARGETS}/",
                fetcher=_BoundedFetcher(self._limits, self._authorities),
                config=UpdaterConfig(
                    max_root_rotations=MAX_ROTATIONS, max_delegations=MAX_DELEGATIONS
                ),
                bootstrap=self._trust(first_root),
            )
            return act(updater)

        return self._in_our_words(begin)

    def _in_our_words(self, act: Callable[[], T]) -> T:
        try:
            return act()
        except ExpiredMetadataError as error:
            raise self._refused(f"its metadata has expired ({error})") from error
        except (DownloadLengthMismatchError, RepositoryError) as error:
            raise self._refused(f"is refused ({error})") from error
        except TufDownloadError as error:
            what = f"cannot be reached ({error})"
            raise DownloadError(self._url, what, "try again later") from error
        except OSError as error:
            what = f"cannot be written: {error.strerror}"
            raise DownloadError(self._folder, what, "check the folder and the disk") from error

    def _current(self, updater: Updater, target: str) -> Path:
        info = updater.get_targetinfo(target)
        if info is None:
            raise self._refused(f"holds no {target!r}")
        if info.length > self._limits.max_bytes:
            raise self._refused(f"says that {target!r} has {info.length} bytes")
        file = self._folder / TARGETS / "download.zip"
        if updater.find_cached_target(info, str(file)) is None:
            updater.download_target(info, str(file))
        return file

    def _trust(self, first_root: Path | None) -> bytes | None:
        """Return the root to begin with, None for the one that is trusted already."""
        if first_root is None and (self._folder / METADATA / ROOT).exists():
            return None
        if first_root is None:
            what = "nothing of this repository is trusted yet"
            raise InputMissingError(self._url, what, "give its first root with --tuf-root FILE")
        try:
            return first_root.read_bytes()
        except FileNotFoundError:
            raise InputMissingError(first_root, "no such file", "check --tuf-root") from None

    def _refused(self, what: str) -> BundleError:
        return BundleError(self._url, what, _KEEPS, reason="repository")


def _said(info: TargetFile) -> Mapping[str, Any]:
    said = info.unrecognized_fields.get("custom")
    return said if isinstance(said, dict) else {}


class _BoundedFetcher(FetcherInterface):
    """Fetches as `download` does: bounded in time, careful with redirects."""

    def __init__(self, limits: DownloadLimits, authorities: Path | None) -> None:
        self._limits = limits
        self._authorities = authorities

    def _fetch(self, url: str) -> Iterator[bytes]:
        headers = {"Accept-Encoding": "identity"}
        try:
            with opened(
                url, headers=headers, limits=self._limits, authorities=self._authorities
            ) as file:
                while chunk := file.read1(CHUNK_BYTES):
                    yield chunk
        except urllib.error.HTTPError as error:
            error.close()
            raise DownloadHTTPError(f"{url}: {error.reason}", error.code) from error
        except OSError as error:
            raise TufDownloadError(f"{url}: {error}") from error
