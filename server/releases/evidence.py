"""What devices report of a release, put together from what the hub keeps of them."""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import TYPE_CHECKING, Any

from models.wire.bands import DaysBand
from models.wire.messages import ModelRefusal

from .distribution import Bands, Question, moves
from .rings import Evidence, ring_of
from .silence import presence_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime, timedelta

    from ..storage.releases import Watched
    from .rings import Ring

MOST_COMPARED = 2_000
"""Devices outside the rings that are compared with those within, chosen by a hash of their ids."""
NOT_ITS_FAULT = frozenset(
    {
        ModelRefusal.OLDER_RELEASE,
        ModelRefusal.SLOT_DAMAGED,
        ModelRefusal.CLIENT_TOO_OLD,
        ModelRefusal.UNSUPPORTED_SPEC,
    }
)
UNSUITED = frozenset({ModelRefusal.CLIENT_TOO_OLD, ModelRefusal.UNSUPPORTED_SPEC})


SET_ASIDE = "set_aside"
"""In place of why a model failed on a device: an operator resumed the release in spite of it."""


def bands_of(summary: Mapping[str, Any] | None) -> Bands | None:
    """Return what a kept summary says, None without one."""
    if summary is None:
        return None
    return Bands(bool(summary["flagged"]), DaysBand(summary["days_band"]))


def watch_list(
    spoken: Iterable[tuple[str, Mapping[str, Any] | None]],
    rings: Sequence[Ring],
    *,
    reached: int,
    most_compared: int = MOST_COMPARED,
) -> list[tuple[str, bool, Bands | None]]:
    """Return whom to watch: every device of the rings that are reached, and some others.

    Args:
        spoken: every device that ever spoke, with its latest summary as JSON.
        rings: in their order, the fleet last.
        reached: index of the ring that the release has reached.
        most_compared: devices of other rings at most.
    """
    names = [ring.name for ring in rings]
    inside, outside = [], []
    for device_id, summary in spoken:
        before = bands_of(summary)
        if names.index(ring_of(device_id, rings)) <= reached:
            inside.append((device_id, True, before))
        elif before is not None:
            outside.append((device_id, False, before))
    outside.sort(key=lambda found: hashlib.sha256(found[0].encode()).digest())
    return [*inside, *outside[:most_compared]]


def new_failures(watched: Iterable[Watched], *, version: str) -> dict[str, str]:
    """Return on which devices a model failed that was not known to fail there, with the reason."""
    return {
        one.device_id: one.refused_because
        for one in watched
        if one.in_ring
        and one.failed_because is None
        and one.refused_model == version
        and one.refused_because is not None
        and one.refused_because not in NOT_ITS_FAULT
    }


def evidence_of(
    watched: Sequence[Watched], *, version: str, since: datetime, before: timedelta
) -> Evidence:
    """Put together what is known of a release, but for devices whose failures were set aside.

    Args:
        watched: devices, their failures noted.
        version: of its model.
        since: when its last ring began.
        before: for how long before that a device counts as one that should be heard since.
    """
    inside = [one for one in watched if one.in_ring and one.failed_because != SET_ASIDE]
    failed = Counter(one.failed_because for one in inside if one.failed_because is not None)
    heard = [one for one in inside if one.last_seen_at >= since or one.model_version == version]
    unsuited = [
        one for one in heard if one.refused_model == version and one.refused_because in UNSUITED
    ]
    ours = _pairs(one for one in inside if _says_by(one, version))
    others = _pairs(one for one in watched if not one.in_ring and not _says_by(one, version))
    return Evidence(
        known=len(inside),
        active=len(heard),
        running=sum(one.model_version == version and not one.failed_because for one in heard),
        failed=dict(failed),
        unsuited=len(unsuited),
        compared=len(ours),
        shifts={
            question: (moves(ours, question), moves(others, question)) for question in Question
        },
        presence=presence_of((one.last_seen_at for one in inside), since=since, before=before),
        elsewhere=presence_of(
            (one.last_seen_at for one in watched if not one.in_ring), since=since, before=before
        ),
        failed_on=tuple(one.device_id for one in inside if one.failed_because is not None),
    )


def _says_by(one: Watched, version: str) -> bool:
    return one.summary is not None and one.summary.get("model_version") == version


def _pairs(found: Iterable[Watched]) -> list[tuple[Bands, Bands]]:
    pairs = []
    for one in found:
        after = bands_of(one.summary)
        if one.before is not None and after is not None:
            pairs.append((one.before, after))
    return pairs


def to_json(evidence: Evidence) -> dict[str, Any]:
    """Return evidence as machines read it."""
    return {
        "known": evidence.known,
        "active": evidence.active,
        "running": evidence.running,
        "failed": dict(evidence.failed),
        "failed_on": list(evidence.failed_on),
        "unsuited": evidence.unsuited,
        "compared": evidence.compared,
        "silent": evidence.presence.missing,
    }
