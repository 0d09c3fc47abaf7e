"""What becomes of a release: from its state and what devices report to its next state. No IO.

A ring advances once its devices acknowledged the model and had time with it. It stops by itself
where the model fails on more devices than is tolerated, or tells devices something else than
before. The release is then halted, which an operator can undo; it is withdrawn for good once that
shows on so many devices that a few which lie do not suffice. Both are judged by intervals whose
false alarms stay below `alpha` over a whole release, however often one looks: looks are made when
the number of devices has doubled, and each has its part of alpha, 6/(π k)² for the k-th (the parts
add up to 1).
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field, replace
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

from models.wire.announcements import FLEET_RING

from .distribution import Question, least_share, net_shift
from .silence import Presence, silenced

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from .distribution import Moves

FIRST_LOOK = 8
"""Devices from which on a model is judged."""
LEAST_WITHDRAWING = 8
"""Devices that must speak against a model before it is withdrawn; fewer of them halt it."""


class ReleaseState(StrEnum):
    """How far a release has come."""

    PROPOSED = "proposed"
    SIGNED = "signed"
    ROLLING = "rolling"
    HALTED = "halted"
    RELEASED = "released"
    WITHDRAWN = "withdrawn"


OPEN = frozenset({ReleaseState.ROLLING, ReleaseState.HALTED})
"""A release that is on its way: its devices are watched, and it may go on."""
_NEXT = {
    ReleaseState.PROPOSED: {ReleaseState.SIGNED, ReleaseState.WITHDRAWN},
    ReleaseState.SIGNED: {ReleaseState.ROLLING, ReleaseState.WITHDRAWN},
    ReleaseState.ROLLING: {
        ReleaseState.ROLLING,
        ReleaseState.HALTED,
        ReleaseState.RELEASED,
        ReleaseState.WITHDRAWN,
    },
    ReleaseState.HALTED: {ReleaseState.ROLLING, ReleaseState.WITHDRAWN},
    ReleaseState.RELEASED: {ReleaseState.WITHDRAWN},
    ReleaseState.WITHDRAWN: set[ReleaseState](),
}


@dataclass(frozen=True, slots=True)
class Ring:
    """A part of the fleet; who is in it is public.

    Attributes:
        name: of the ring.
        share: of all devices, by a stable hash of their ids; 0 for a ring by list alone.
        devices: that are in it by name.
    """

    name: str
    share: float = 0.0
    devices: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class RingPolicy:
    """When a ring advances or stops.

    Attributes:
        soak: least time in a ring.
        least_acknowledged: share of the ring's active devices that run the model, and of those
            heard shortly before the ring began that are heard since.
        least_summaries: devices that must have told bands before and after; fewer where the rings
            are smaller.
        least_devices: devices that must have spoken; fewer where the rings are smaller.
        tolerated_failures: share of devices on which a model may fail.
        tolerated_shift: net share of devices that may be told something else: the quality gate's
            own slack.
        alpha: probability of a false alarm, for failures and for each direction of all questions.
    """

    soak: timedelta = timedelta(days=1)
    least_acknowledged: float = 0.8
    least_summaries: int = FIRST_LOOK
    least_devices: int = FIRST_LOOK
    tolerated_failures: float = 0.01
    tolerated_shift: float = 0.01
    alpha: float = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """One release on its way.

    Attributes:
        number: of the release; the next one is that of its way back.
        state: how far it has come.
        ring: index of the ring that it has reached, None before the first.
        ring_began_at: when that ring began.
        looks: that were made at the ring's distribution of predictions.
        looked_at: number of devices at the last look.
        reason: why it is in its state, in words.
    """

    number: int
    state: ReleaseState
    ring: int | None = None
    ring_began_at: datetime | None = None
    looks: int = 0
    looked_at: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What the devices of the rings that a release has reached have reported.

    Attributes:
        known: devices that ever spoke.
        active: devices that spoke since the last of these rings began.
        running: of them, that run the model.
        failed: of them, on which it failed or was refused through no fault of theirs, by reason.
        unsuited: of them, whose client or features it does not fit.
        compared: devices that told bands before and after.
        shifts: how the ring and all others moved, by question.
        presence: who of the rings is heard, and who has gone silent since the last began.
        elsewhere: the same of devices outside.
        failed_on: names of the devices on which it failed.
    """

    known: int = 0
    active: int = 0
    running: int = 0
    failed: Mapping[str, int] = field(default_factory=dict)
    unsuited: int = 0
    compared: int = 0
    shifts: Mapping[Question, tuple[Moves, Moves]] = field(default_factory=dict)
    presence: Presence = field(default_factory=Presence)
    elsewhere: Presence = field(default_factory=Presence)
    failed_on: tuple[str, ...] = ()


class TransitionError(ValueError):
    """A release cannot go from its state to the one asked for."""


def decide(
    rollout: Rollout, evidence: Evidence, policy: RingPolicy, *, rings: int, now: datetime
) -> Rollout:
    """Return what becomes of a release now: the same, the next ring, released, or stopped.

    A release that is rolling goes on or stops by itself. One that is halted never goes on by
    itself; it is withdrawn where it fails on enough devices.

    Args:
        rollout: as it is.
        evidence: of the ring that it has reached.
        policy: when rings advance.
        rings: how many there are.
        now: aware time.
    """
    if rollout.state not in OPEN or rollout.ring_began_at is None:
        return rollout
    failing = _failing(evidence, policy)
    if failing:
        return _stopped(rollout, reason=failing, against=sum(evidence.failed.values()))
    if rollout.state is not ReleaseState.ROLLING:
        return rollout
    has_soaked = now - rollout.ring_began_at >= policy.soak
    silence = silenced(evidence.presence, evidence.elsewhere, alpha=policy.alpha)
    if has_soaked and silence:
        return halted(rollout, reason=silence)
    eligible = evidence.active - evidence.unsuited
    suited = evidence.known - evidence.unsuited
    is_heard = (
        eligible >= max(1, min(policy.least_devices, suited))
        and evidence.running >= policy.least_acknowledged * eligible
        and evidence.compared >= min(policy.least_summaries, suited)
        and not evidence.presence.to_be_heard(policy.least_acknowledged)
    )
    is_look_due = evidence.compared >= max(FIRST_LOOK, 2 * rollout.looked_at) or (
        has_soaked and is_heard and evidence.compared > rollout.looked_at
    )
    if is_look_due:
        looks = rollout.looks + 1
        alpha = policy.alpha * 6 / (math.pi * looks) ** 2
        shifted, against = _shifted(evidence, policy, alpha=alpha)
        rollout = replace(rollout, looks=looks, looked_at=evidence.compared)
        if shifted:
            return _stopped(rollout, reason=shifted, against=against)
    return advanced(rollout, rings=rings, now=now) if has_soaked and is_heard else rollout


def why_waiting(
    rollout: Rollout, evidence: Evidence, policy: RingPolicy, *, now: datetime
) -> list[str]:
    """Say what a ring still waits for; nothing where it can advance."""
    if rollout.state is not ReleaseState.ROLLING or rollout.ring_began_at is None:
        return []
    eligible = evidence.active - evidence.unsuited
    wanted = math.ceil(policy.least_acknowledged * eligible)
    suited = evidence.known - evidence.unsuited
    least, compared = min(policy.least_devices, suited), min(policy.least_summaries, suited)
    left = policy.soak - (now - rollout.ring_began_at)
    found = []
    if left > timedelta(0):
        found.append(f"{left.total_seconds() / 3600:.1f} more hours")
    if eligible < 1:
        found.append("a first device of the ring")
    elif eligible < least:
        found.append(f"{least - eligible} more devices that speak")
    elif evidence.running < wanted:
        found.append(f"{wanted - evidence.running} more devices that run it")
    silent = evidence.presence.to_be_heard(policy.least_acknowledged)
    if silent:
        found.append(f"{silent} of {evidence.presence.missing} that spoke before, and not since")
    if evidence.compared < compared:
        found.append(f"{compared - evidence.compared} more summaries to compare")
    return found


def started(rollout: Rollout, *, now: datetime) -> Rollout:
    """Offer a signed release to the first ring."""
    _require(rollout, ReleaseState.ROLLING)
    if rollout.state is not ReleaseState.SIGNED:
        raise TransitionError(f"is {rollout.state} already")
    return replace(
        rollout, state=ReleaseState.ROLLING, ring=0, ring_began_at=now, looks=0, looked_at=0
    )


def advanced(rollout: Rollout, *, rings: int, now: datetime) -> Rollout:
    """Offer it to the next ring, or take it for released after the last."""
    following = (rollout.ring or 0) + 1
    if following >= rings:
        return replace(rollout, state=ReleaseState.RELEASED, reason="every ring has it")
    return replace(rollout, ring=following, ring_began_at=now, reason="")


def halted(rollout: Rollout, *, reason: str) -> Rollout:
    """Offer it to nobody more; who has it keeps it."""
    _require(rollout, ReleaseState.HALTED)
    return replace(rollout, state=ReleaseState.HALTED, reason=reason)


def resumed(rollout: Rollout, *, now: datetime) -> Rollout:
    """Offer a halted release to its ring again, whose time begins anew."""
    if rollout.state is not ReleaseState.HALTED:
        raise TransitionError(f"is {rollout.state}, not halted")
    return replace(rollout, state=ReleaseState.ROLLING, ring_began_at=now, reason="")


def withdrawn(rollout: Rollout, *, reason: str) -> Rollout:
    """Offer the model before it to every device."""
    _require(rollout, ReleaseState.WITHDRAWN)
    return replace(rollout, state=ReleaseState.WITHDRAWN, reason=reason)


def ring_of(device_id: str, rings: Sequence[Ring]) -> str:
    """Return the ring of a device: the one that names it, else by hash, else the fleet.

    The hash is the first 8 bytes of SHA-256 of `fedcell/ring:` and the id, over 2^64; rings take
    their shares of it in their order. Anybody can compute it, so whoever enrols with a token for
    any name can choose one that lands in a ring by share; a list names whom the operator knows.
    """
    for ring in rings:
        if device_id in ring.devices:
            return ring.name
    digest = hashlib.sha256(f"fedcell/ring:{device_id}".encode()).digest()
    place, taken = int.from_bytes(digest[:8]) / 2**64, 0.0
    for ring in rings:
        taken += ring.share
        if place < taken:
            return ring.name
    return FLEET_RING


def _stopped(rollout: Rollout, *, reason: str, against: int) -> Rollout:
    """Halt a release, or withdraw it where enough devices speak against it."""
    if against >= LEAST_WITHDRAWING:
        return withdrawn(rollout, reason=reason)
    return rollout if rollout.state is ReleaseState.HALTED else halted(rollout, reason=reason)


def _require(rollout: Rollout, state: ReleaseState) -> None:
    if state not in _NEXT[rollout.state]:
        what = f"is {rollout.state} and cannot become {state}"
        raise TransitionError(what)


def _failing(evidence: Evidence, policy: RingPolicy) -> str:
    """Say that a model fails on too many devices, "" where it does not.

    Between two looks the attempts are taken for as many as there will be at the next one, so that
    a failure that comes early is not judged by a smaller number again and again.
    """
    failed = sum(evidence.failed.values())
    attempts = failed + evidence.running
    if not failed:
        return ""
    look = 1 + max(0, math.ceil(math.log2(attempts / FIRST_LOOK)))
    bracket = max(failed, min(FIRST_LOOK * 2 ** (look - 1), max(attempts, evidence.active)))
    alpha = policy.alpha * 6 / (math.pi * look) ** 2
    bound = least_share(failed, bracket, alpha=alpha)
    if bound <= policy.tolerated_failures:
        return ""
    why = ", ".join(f"{reason} {count}" for reason, count in sorted(evidence.failed.items()))
    return (
        f"failed on {failed} of {attempts} devices ({why}): at least {bound:.1%}, "
        f"tolerated are {policy.tolerated_failures:.1%}"
    )


def _shifted(evidence: Evidence, policy: RingPolicy, *, alpha: float) -> tuple[str, int]:
    """Say which distribution moved beyond doubt, "" where none did, and how many devices moved."""
    each = alpha / max(1, len(evidence.shifts))
    for question, (ring, elsewhere) in evidence.shifts.items():
        if ring.num_devices < 1:
            continue
        found = net_shift(ring, elsewhere, alpha=each)
        if found.low > policy.tolerated_shift or found.high < -policy.tolerated_shift:
            why = (
                f"{question.value} moved by {found.value:+.1%} of {ring.num_devices} devices "
                f"({found.low:+.1%} to {found.high:+.1%}), "
                f"tolerated are {policy.tolerated_shift:.1%} either way"
            )
            return why, ring.more if found.value > 0 else ring.fewer
    return "", 0
