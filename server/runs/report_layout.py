"""What stands in `run.json`: every ε beside its δ, unit, relation and assumptions."""

from __future__ import annotations

import math
from dataclasses import asdict
from datetime import UTC
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from privacy import RecordLevelSteps, release_epsilon
from privacy.accountant import part_of_ledger
from privacy.ledger import entries_of_stream
from privacy.record_statement import RECORD_IS_NOT, RECORD_UNIT
from privacy.statement import (
    ADAPTIVE,
    CORRELATED,
    INDEPENDENT,
    OF_RELEASES,
    OWNERS_UNKNOWN,
    REACHABILITY,
    REACHED_AT_START,
    SAID_MORE,
)

from ..privacy_home.home_words import HomeWords

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from models.wire.rounds import LocalRecipe
    from privacy import Event, LedgerEntry, ReleaseNoise
    from privacy.statement import PrivacyStatement

    from ..engine.cohorts import Schedule
    from ..engine.rounds import RoundRecord, RoundsConfig
    from ..streams.stream_terms import StreamTerms


def statement_of(
    terms: StreamTerms, *, knows_owners: bool = True, knows_enrolment: bool = True
) -> PrivacyStatement:
    """Return what stands beside the figures of a stream.

    Args:
        terms: constants of the stream.
        knows_owners: whether the bound on an owner's devices could be kept.
        knows_enrolment: whether a record says who was enrolled.
    """
    enrolled = () if knows_enrolment else (REACHED_AT_START,)
    owners = () if knows_owners else (OWNERS_UNKNOWN,)
    adaptive = (ADAPTIVE,) if terms.has_norm_bit else ()
    noise = INDEPENDENT if terms.is_comparison else CORRELATED
    reachability = (REACHABILITY,) if terms.policy and terms.policy.min_replies > 1 else ()
    return OF_RELEASES.and_assumes(*noise, *adaptive, *reachability, *enrolled, *owners)


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


def ledger_epsilon(entries: Sequence[LedgerEntry], *, stream: str, delta: float) -> float | None:
    """Return ε_release of a ledger's entries at δ; None where it is unbounded.

    Args:
        entries: of a ledger, oldest first.
        stream: that counts whatever its kind.
        delta: δ.
    """
    return _finite(release_epsilon(accountable(entries, stream=stream), delta=delta))


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
    words: HomeWords | None = None,
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
        words: what the privacy home knows beside its ledger; None where nobody said anything.
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
            config,
            schedule=schedule,
            terms=terms,
            noise=noise,
            record=record,
            entries=entries,
            words=words or HomeWords(),
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
    words: HomeWords,
) -> dict[str, Any]:
    of_stream = entries_of_stream(entries, config.stream)
    released = accountable(entries, stream=config.stream)
    told = _finite(words.epsilon(released, delta=config.delta))
    of_ledger = _finite(release_epsilon(released, delta=config.delta))
    statement = statement_of(
        terms, knows_owners=words.knows_owners, knows_enrolment=words.knows_enrolment
    )
    if words.is_more_than(released, delta=config.delta):
        statement = statement.and_assumes(SAID_MORE)
    return {
        "epsilon_release": None if terms.privacy is None else told,
        "epsilon_ledger": None if terms.privacy is None else of_ledger,
        "epsilon_stream": _finite(
            release_epsilon(part_of_ledger(e.event for e in of_stream), delta=config.delta)
        ),
        "delta": config.delta,
        "epsilon_release_unbounded": terms.privacy is None,
        "epsilon_server": None,
        "epsilon_server_unbounded": True,
        **statement.to_json(),
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
        "home_head": entries[-1].reference() if entries else None,
    }


def _finite(epsilon: float) -> float | None:
    """Return an ε, None where it is unbounded."""
    return epsilon if math.isfinite(epsilon) else None
