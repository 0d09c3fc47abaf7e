"""What stands in `run.json`: every ε beside its δ, unit, relation and assumptions."""

from __future__ import annotations

import math
from dataclasses import asdict
from datetime import UTC
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from privacy import RecordLevelSteps, release_epsilon
from privacy.accountant import part_of_ledger
from privacy.record_statement import RECORD_IS_NOT, RECORD_UNIT
from privacy.statement import (
    ADAPTIVE,
    CORRELATED,
    INDEPENDENT,
    OF_RELEASES,
    REACHABILITY,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from models.wire.rounds import LocalRecipe
    from privacy import Event, LedgerEntry, ReleaseNoise
    from privacy.statement import PrivacyStatement

    from .cohorts import Schedule
    from .rounds import RoundRecord, RoundsConfig
    from .streams.stream_terms import StreamTerms


def statement_of(terms: StreamTerms) -> PrivacyStatement:
    """Return what stands beside the figures of a stream."""
    adaptive = (ADAPTIVE,) if terms.has_norm_bit else ()
    noise = INDEPENDENT if terms.is_comparison else CORRELATED
    reachability = (REACHABILITY,) if terms.policy and terms.policy.min_replies > 1 else ()
    return OF_RELEASES.and_assumes(*noise, *adaptive, *reachability)


def accountable(entries: Sequence[LedgerEntry], *, stream: str = "") -> tuple[Event, ...]:
    """Return the events that ε_release is made of: real streams and counts, and one more stream.

    What is simulated or only compared is never released, so it adds nothing to another stream.

    Args:
        entries: of a ledger.
        stream: a stream that counts whatever its kind.
    """
    return tuple(
        entry.event
        for entry in entries
        if entry.kind == "stream" or entry.fields["event"].get("stream") == stream
    )


@lru_cache(maxsize=8)
def record_epsilon(
    recipe: LocalRecipe, *, participations: int, delta: float
) -> tuple[float | None, float | None]:
    """Return (ε_record, δ_record) of a device that trained so often; None where it is off."""
    if not recipe.is_record_private:
        return None, None
    from privacy.record_accountant import RecordAccountant

    if participations == 0:
        return 0.0, delta
    steps = RecordLevelSteps(
        noise_multiplier=recipe.record_noise_multiplier,
        max_grad_norm=recipe.record_max_grad_norm,
        sampling_rate=recipe.sampling_rate,
        steps=recipe.steps * participations,
    )
    return RecordAccountant([steps]).epsilon(delta=delta), delta


def report_of(
    config: RoundsConfig,
    *,
    status: str,
    schedule: Schedule,
    terms: StreamTerms,
    noise: ReleaseNoise,
    rounds: list[RoundRecord],
    start_metrics: dict[str, float | None] | None,
    record: tuple[float | None, float | None],
    entries: Sequence[LedgerEntry],
    versions: Mapping[str, str],
    started_at: datetime,
    seconds: float,
) -> dict[str, Any]:
    """Lay out `run.json`: every ε stands beside its δ, unit, relation and assumptions.

    Args:
        config: of the run.
        status: running, finished or interrupted.
        schedule: public.
        terms: constants of the stream.
        noise: what was added.
        rounds: so far.
        start_metrics: on the held-out part before the first round.
        record: (ε_record, δ_record) of the device invited most, so far.
        entries: of the privacy home's ledger.
        versions: of the libraries that ran.
        started_at: aware UTC.
        seconds: since then.
    """
    return {
        "schema_version": 1,
        "status": status,
        "started_at": started_at.astimezone(UTC).isoformat(),
        "seconds": round(seconds, 3),
        "config": asdict(config),
        "schedule": {
            **asdict(schedule),
            "participations": schedule.participations,
            "min_separation": schedule.min_separation,
        },
        "privacy": _privacy(
            config, schedule=schedule, terms=terms, noise=noise, record=record, entries=entries
        ),
        "start_metrics": start_metrics,
        "rounds": [asdict(record) for record in rounds],
        "versions": dict(versions),
    }


def _privacy(
    config: RoundsConfig,
    *,
    schedule: Schedule,
    terms: StreamTerms,
    noise: ReleaseNoise,
    record: tuple[float | None, float | None],
    entries: Sequence[LedgerEntry],
) -> dict[str, Any]:
    of_stream = [e for e in entries if e.fields["event"].get("stream") == config.stream]
    released = _epsilon(accountable(entries, stream=config.stream), delta=config.delta)
    return {
        "epsilon_release": None if terms.privacy is None else released,
        "epsilon_stream": _epsilon(part_of_ledger(e.event for e in of_stream), delta=config.delta),
        "delta": config.delta,
        "epsilon_release_unbounded": terms.privacy is None,
        "epsilon_server": None,
        "epsilon_server_unbounded": True,
        **statement_of(terms).to_json(),
        "noise_mechanism": noise.mechanism,
        "noise_multiplier": noise.noise_multiplier,
        "entry_kind": terms.entry_kind(noise),
        "policy": None if terms.policy is None else terms.policy.to_json(),
        "policy_digest": terms.policy_digest or None,
        "max_participations": terms.cost.max_participations
        if terms.privacy is not None
        else schedule.participations,
        "record_epsilon": record[0],
        "record_delta": record[1],
        "record_unit": RECORD_UNIT,
        "record_is_not": list(RECORD_IS_NOT),
        "ledger_head": of_stream[-1].reference() if of_stream else None,
        "releases_in_home": len(entries),
    }


def _epsilon(events: Sequence[Event], *, delta: float) -> float | None:
    """Return ε at δ, None where it is unbounded."""
    found = release_epsilon(events, delta=delta)
    return found if math.isfinite(found) else None
