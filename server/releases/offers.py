"""Which bundle is offered to which ring, for which features and clients. No IO.

For each feature specification the newest bundle that fits is kept and offered for ever, and below
it, for older clients, the newest that they can run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .rings import ReleaseState

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class Offerable:
    """A signed release, as far as offers go by it.

    Attributes:
        number: of the release; `number + 1` is that of the way back.
        state: how far it has come.
        ring: index of the ring that it has reached, None before the first.
        version: of its model.
        feature_spec_version: that it needs.
        least_client_version: that it needs.
        back_version: of the model before it.
        back_feature_spec_version: that this one needs.
        back_least_client_version: that this one needs.
    """

    number: int
    state: ReleaseState
    ring: int | None
    version: str
    feature_spec_version: str
    least_client_version: str
    back_version: str
    back_feature_spec_version: str
    back_least_client_version: str


@dataclass(frozen=True, slots=True)
class Offer:
    """One bundle as it is offered.

    Attributes:
        number: release number within the bundle.
        version: of the model.
        feature_spec_version: that it needs.
        least_client_version: that it needs.
    """

    number: int
    version: str
    feature_spec_version: str
    least_client_version: str


def offers_of(ring: int, releases: Iterable[Offerable]) -> tuple[Offer, ...]:
    """Return what a ring is offered: for each specification the newest, then for older clients.

    Args:
        ring: index of the ring.
        releases: all that were ever signed.
    """
    kept: list[Offer] = []
    blocked: set[str] = set()
    for release in sorted(releases, key=lambda one: one.number, reverse=True):
        has_reached = release.ring is not None and ring <= release.ring
        if release.state is ReleaseState.HALTED and has_reached:
            # Who has it shall keep it, and nobody can be offered an older one.
            blocked.add(release.feature_spec_version)
            continue
        offer = _offer(release, has_reached=has_reached)
        if offer is None or offer.feature_spec_version in blocked:
            continue
        if not any(_serves(other, offer) for other in kept):
            kept.append(offer)
    return tuple(kept)


def _offer(release: Offerable, *, has_reached: bool) -> Offer | None:
    if release.state is ReleaseState.RELEASED or (
        release.state is ReleaseState.ROLLING and has_reached
    ):
        return Offer(
            release.number,
            release.version,
            release.feature_spec_version,
            release.least_client_version,
        )
    if release.state is ReleaseState.WITHDRAWN and release.ring is not None:
        # To every ring: a device that had it may have changed its ring since.
        return Offer(
            release.number + 1,
            release.back_version,
            release.back_feature_spec_version,
            release.back_least_client_version,
        )
    return None


def _serves(newer: Offer, older: Offer) -> bool:
    """Whether whoever can run the older one can run the newer one."""
    is_same = newer.feature_spec_version == older.feature_spec_version
    return is_same and _parts(newer.least_client_version) <= _parts(older.least_client_version)


def target_names(ring: str, offers: Sequence[Offer]) -> dict[str, tuple[Offer, tuple[str, ...]]]:
    """Return the offers of a ring by the names of their targets.

    The newest of a specification is `<ring>/<specification>.zip` and says which older clients are
    served beside it, under `<ring>/<specification>+<least client>.zip`.
    """
    found: dict[str, tuple[Offer, tuple[str, ...]]] = {}
    for spec in dict.fromkeys(offer.feature_spec_version for offer in offers):
        newest, *older = [offer for offer in offers if offer.feature_spec_version == spec]
        earlier = tuple(offer.least_client_version for offer in older)
        found[f"{ring}/{spec}.zip"] = (newest, earlier)
        for offer in older:
            found[f"{ring}/{spec}+{offer.least_client_version}.zip"] = (offer, ())
    return found


def _parts(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))
