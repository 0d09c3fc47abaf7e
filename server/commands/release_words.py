"""How releases are told: to a person in lines, to a machine in one object."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..releases.evidence import to_json
from ..releases.rings import ReleaseState, why_waiting

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from ..releases.rings import Evidence, Ring
    from ..storage.releases import KeptRelease

_MOST_NAMED = 10


def progress_json(
    kept: KeptRelease, evidence: Evidence | None, rings: Sequence[Ring]
) -> dict[str, Any]:
    """Return one release, with what devices report of it."""
    rollout = kept.rollout
    return {
        "release": rollout.number,
        "version": kept.offer.version,
        "state": rollout.state.value,
        "ring": None if rollout.ring is None else rings[rollout.ring].name,
        "reason": rollout.reason,
        "back": kept.offer.back_version,
        "feature_spec_version": kept.offer.feature_spec_version,
        "least_client_version": kept.offer.least_client_version,
        "state_at": kept.state_at.isoformat(),
        "devices": None if evidence is None else to_json(evidence),
    }


def progress_lines(
    kept: KeptRelease, evidence: Evidence | None, rings: Sequence[Ring], *, now: datetime
) -> list[str]:
    """Return the same for a person."""
    rollout = kept.rollout
    where = "" if rollout.ring is None else f", ring {rings[rollout.ring].name}"
    lines = [f"release {rollout.number}: {kept.offer.version}, {rollout.state.value}{where}"]
    if rollout.reason:
        lines.append(f"  because: {rollout.reason}")
    if rollout.state is ReleaseState.PROPOSED:
        lines.append("  waits for its signature: fedcell release sign, then accept")
    if rollout.state is ReleaseState.SIGNED:
        lines.append("  waits for: fedcell release ring start")
    if evidence is not None:
        failed = sum(evidence.failed.values())
        lines.append(
            f"  devices: {evidence.known} known, {evidence.active} active, "
            f"{evidence.running} run it, {failed} failed, "
            f"{evidence.unsuited} unsuited, {evidence.compared} compared"
        )
        if evidence.failed_on:
            more = ", …" if len(evidence.failed_on) > _MOST_NAMED else ""
            lines.append(f"  failed on: {', '.join(evidence.failed_on[:_MOST_NAMED])}{more}")
        waits = why_waiting(rollout, evidence, kept.policy, now=now)
        lines += [f"  waits for: {', '.join(waits)}"] if waits else []
    return lines
