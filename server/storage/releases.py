"""Releases, rings and what devices of a ring said, within one transaction."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Row, delete, func, insert, null, select, update

from models.wire.announcements import FLEET_RING

from ..releases.distribution import Bands
from ..releases.offers import Offerable
from ..releases.rings import ReleaseState, Ring, RingPolicy, Rollout
from .release_tables import (
    release_counters,
    release_devices,
    release_rings,
    release_trail,
    releases,
)
from .tables import devices

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

MAX_REASON = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptRelease:
    """One release as it is kept.

    Attributes:
        offer: what is offered of it, and how far it has come.
        rollout: the same for decisions.
        digest: of the proposed bundle, unsigned and unnumbered.
        policy: when its rings advance.
        proposed_at: when it was proposed.
        state_at: when it reached its state or its ring.
    """

    offer: Offerable
    rollout: Rollout
    digest: str
    policy: RingPolicy
    proposed_at: datetime
    state_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """A device of a ring, or one that is compared with it.

    Attributes:
        device_id: which.
        in_ring: whether it is in the ring.
        before: its bands before the ring began; None where it told none.
        failed_because: why the model failed on it, None where it did not.
        model_version: that it says it runs.
        summary: its latest, as JSON.
        refused_model: that it refused last.
        refused_because: why.
        last_seen_at: when it spoke last.
    """

    device_id: str
    in_ring: bool
    before: Bands | None
    failed_because: str | None
    model_version: str | None
    summary: Mapping[str, Any] | None
    refused_model: str | None
    refused_because: str | None
    last_seen_at: datetime


@dataclass(frozen=True, slots=True)
class Releases:
    """The releases, within one transaction."""

    connection: Connection

    def add(
        self, offer: Offerable, *, digest: str, policy: RingPolicy, now: datetime
    ) -> KeptRelease:
        """Add a release that is proposed."""
        values = asdict(offer)
        self.connection.execute(
            insert(releases).values(
                **values,
                digest=digest,
                policy=_policy_to_json(policy),
                looks=0,
                looked_at=0,
                reason="",
                proposed_at=now,
                state_at=now,
            )
        )
        self._note(Rollout(number=offer.number, state=offer.state), None, now=now)
        return self.get(offer.number)

    def get(self, number: int) -> KeptRelease:
        """Return a release.

        Raises:
            KeyError: there is none of this number.
        """
        row = self.connection.execute(
            select(releases).where(releases.c.number == number)
        ).one_or_none()
        if row is None:
            raise KeyError(number)
        return _kept(row)

    def all(self) -> tuple[KeptRelease, ...]:
        """Return every release, in order."""
        rows = self.connection.execute(select(releases).order_by(releases.c.number))
        return tuple(map(_kept, rows))

    def next_number(self) -> int:
        """Return the number of the next release; each takes two."""
        last = self.connection.scalar(select(func.max(releases.c.number)))
        return 1 if last is None else int(last) + 2

    def keep(self, rollout: Rollout, *, ring: str | None, now: datetime) -> None:
        """Keep what became of a release; a change of its state or ring goes into the trail."""
        before = self.get(rollout.number).rollout
        if before == rollout:
            return
        cut = replace(rollout, reason=rollout.reason[:MAX_REASON])
        has_moved = (before.state, before.ring) != (cut.state, cut.ring)
        self.connection.execute(
            update(releases)
            .where(releases.c.number == cut.number)
            .values(
                state=cut.state.value,
                ring=cut.ring,
                ring_began_at=cut.ring_began_at,
                looks=cut.looks,
                looked_at=cut.looked_at,
                reason=cut.reason,
                **({"state_at": now} if has_moved else {}),
            )
        )
        if has_moved:
            self._note(cut, ring, now=now)

    def _note(self, rollout: Rollout, ring: str | None, *, now: datetime) -> None:
        self.connection.execute(
            insert(release_trail).values(
                at=now,
                number=rollout.number,
                state=rollout.state.value,
                ring=ring,
                reason=rollout.reason,
            )
        )

    def trail(self, number: int) -> list[dict[str, Any]]:
        """Return how a release went, in order."""
        rows = self.connection.execute(
            select(release_trail)
            .where(release_trail.c.number == number)
            .order_by(release_trail.c.number_of_row)
        )
        return [
            {"at": row.at.isoformat(), "state": row.state, "ring": row.ring, "reason": row.reason}
            for row in rows
        ]

    # --- rings ------------------------------------------------------------------------------------

    def rings(self) -> tuple[Ring, ...]:
        """Return the rings in their order, the fleet last."""
        rows = self.connection.execute(select(release_rings).order_by(release_rings.c.position))
        found = [Ring(row.name, row.share, frozenset(row.devices)) for row in rows]
        return (*found, Ring(FLEET_RING, 1.0))

    def keep_rings(self, rings: Sequence[Ring]) -> None:
        """Keep rings in place of those before; the fleet goes without saying."""
        self.connection.execute(delete(release_rings))
        for position, ring in enumerate(ring for ring in rings if ring.name != FLEET_RING):
            self.connection.execute(
                insert(release_rings).values(
                    name=ring.name,
                    position=position,
                    share=ring.share,
                    devices=sorted(ring.devices),
                )
            )

    # --- devices of a ring ------------------------------------------------------------------------

    def watch(self, number: int, found: Iterable[tuple[str, bool, Bands | None]]) -> None:
        """Keep what devices say before they get a release; what is kept already stays.

        Args:
            number: of the release.
            found: devices, whether the release has reached their ring, and their bands.
        """
        kept = self.connection.execute(
            select(release_devices.c.device_id, release_devices.c.in_ring).where(
                release_devices.c.number == number
            )
        )
        known = {row.device_id: row.in_ring for row in kept}
        rows = []
        for device_id, in_ring, before in found:
            if device_id not in known:
                row = {"number": number, "device_id": device_id, "in_ring": in_ring}
                rows.append(row | {"before": None if before is None else before.to_json()})
            elif in_ring and not known[device_id]:
                self.connection.execute(
                    update(release_devices)
                    .where(
                        release_devices.c.number == number,
                        release_devices.c.device_id == device_id,
                    )
                    .values(in_ring=True)
                )
        if rows:
            self.connection.execute(insert(release_devices), rows)

    def watched(self, number: int) -> tuple[Watched, ...]:
        """Return what devices said before, beside what they say now."""
        rows = self.connection.execute(
            select(
                release_devices.c.device_id,
                release_devices.c.in_ring,
                release_devices.c.before,
                release_devices.c.failed_because,
                devices.c.model_version,
                devices.c.summary,
                devices.c.refused_model,
                devices.c.refused_because,
                devices.c.last_seen_at,
            )
            .join(devices, devices.c.device_id == release_devices.c.device_id)
            .where(release_devices.c.number == number)
            .order_by(release_devices.c.device_id)
        )
        return tuple(
            Watched(
                device_id=row.device_id,
                in_ring=row.in_ring,
                before=None if row.before is None else Bands.from_json(row.before),
                failed_because=row.failed_because,
                model_version=row.model_version,
                summary=row.summary,
                refused_model=row.refused_model,
                refused_because=row.refused_because,
                last_seen_at=row.last_seen_at,
            )
            for row in rows
        )

    def note_failures(self, number: int, failed: Mapping[str, str]) -> None:
        """Keep on which devices the model failed: what they refuse later does not undo it."""
        for device_id, reason in failed.items():
            self.connection.execute(
                update(release_devices)
                .where(
                    release_devices.c.number == number,
                    release_devices.c.device_id == device_id,
                )
                .values(failed_because=reason)
            )

    def replace_failures(self, number: int, *, reason: str) -> None:
        """Keep another reason for every device on which the model failed so far."""
        self.connection.execute(
            update(release_devices)
            .where(
                release_devices.c.number == number, release_devices.c.failed_because.is_not(None)
            )
            .values(failed_because=reason)
        )

    def forget_bands(self, number: int) -> None:
        """Forget what devices said before a release that is over; its failures stay."""
        self.connection.execute(
            update(release_devices).where(release_devices.c.number == number).values(before=null())
        )

    def spoken(self) -> tuple[tuple[str, Mapping[str, Any] | None], ...]:
        """Return every device that ever spoke, with its latest summary as JSON."""
        rows = self.connection.execute(
            select(devices.c.device_id, devices.c.summary).order_by(devices.c.device_id)
        )
        return tuple((row.device_id, row.summary) for row in rows)

    # --- numbers that only grow -------------------------------------------------------------------

    def count_up(self, name: str, *, at_least: int = 0) -> int:
        """Return the next number of a name, above all before and not below `at_least`."""
        last = self.counter(name)
        value = max(last + 1, at_least)
        if last < 0:
            self.connection.execute(insert(release_counters).values(name=name, value=value))
        else:
            self.connection.execute(
                update(release_counters).where(release_counters.c.name == name).values(value=value)
            )
        return value

    def counter(self, name: str) -> int:
        """Return the last number of a name, −1 before the first."""
        value = self.connection.scalar(
            select(release_counters.c.value).where(release_counters.c.name == name)
        )
        return -1 if value is None else int(value)


def _kept(row: Row[Any]) -> KeptRelease:
    state = ReleaseState(row.state)
    return KeptRelease(
        offer=Offerable(
            number=row.number,
            state=state,
            ring=row.ring,
            version=row.version,
            feature_spec_version=row.feature_spec_version,
            least_client_version=row.least_client_version,
            back_version=row.back_version,
            back_feature_spec_version=row.back_feature_spec_version,
            back_least_client_version=row.back_least_client_version,
        ),
        rollout=Rollout(
            number=row.number,
            state=state,
            ring=row.ring,
            ring_began_at=row.ring_began_at,
            looks=row.looks,
            looked_at=row.looked_at,
            reason=row.reason,
        ),
        digest=row.digest,
        policy=_policy_from_json(row.policy),
        proposed_at=row.proposed_at,
        state_at=row.state_at,
    )


def _policy_to_json(policy: RingPolicy) -> dict[str, Any]:
    return asdict(policy) | {"soak": policy.soak.total_seconds()}


def _policy_from_json(kept: Mapping[str, Any]) -> RingPolicy:
    return RingPolicy(**{**kept, "soak": timedelta(seconds=kept["soak"])})
