"""Which bundle a node may run: the one that the newest pin names, and no other.

Decisions alone; what is fetched and kept is in `pin_source`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from models.wire.app_pin import AppPin
from models.wire.errors import WireError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from models.wire.envelope import VerifyKey


class BundleRefusal(StrEnum):
    """Why a bundle is not run."""

    NO_PIN = "no_pin"
    ANOTHER_APP = "another_app"
    ANOTHER_BUNDLE = "another_bundle"
    CONTENT_DIFFERS = "content_differs"


WORDS = {
    BundleRefusal.NO_PIN: "no pin that the fleet's server signed is known here",
    BundleRefusal.ANOTHER_APP: "the pin names another app or version",
    BundleRefusal.ANOTHER_BUNDLE: "the pin names another bundle",
    BundleRefusal.CONTENT_DIFFERS: "its content is not what its run names",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class OfferedBundle:
    """A bundle as a SuperLink hands it to a node.

    Attributes:
        app: publisher and name, as the run says it.
        version: as the run says it.
        named_sha256: hash that the run names.
        sha256: hash of the bytes that came.
    """

    app: str
    version: str
    named_sha256: str
    sha256: str


def newest_pin(envelopes: Iterable[bytes], trusted: Mapping[str, VerifyKey]) -> AppPin | None:
    """Return the newest pin that a trusted key signed; what is none is passed over.

    Args:
        envelopes: as they were fetched and kept.
        trusted: the server's keys, by key id.
    """
    found = [pin for envelope in envelopes if (pin := _opened(envelope, trusted)) is not None]
    return max(found, key=lambda pin: pin.issued, default=None)


def refusal_of(offered: OfferedBundle, pin: AppPin | None) -> BundleRefusal | None:
    """Say why a bundle is not run, None where it is the one that is pinned."""
    if pin is None:
        return BundleRefusal.NO_PIN
    if offered.sha256 != offered.named_sha256:
        return BundleRefusal.CONTENT_DIFFERS
    if offered.sha256 != pin.fab_sha256:
        return BundleRefusal.ANOTHER_BUNDLE
    # App and version of a run become a folder's name in Flower; a bundle has one of each.
    if (offered.app, offered.version) != (pin.app, pin.version):
        return BundleRefusal.ANOTHER_APP
    return None


def _opened(envelope: bytes, trusted: Mapping[str, VerifyKey]) -> AppPin | None:
    try:
        return AppPin.from_envelope(envelope, trusted)
    except WireError:
        return None
