"""What a privacy home holds, for a person: releases, who took part, what it cost, what is left."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from privacy import CorrelatedRelease, CountRelease, GaussianRelease
from privacy.accountant import gaussian_epsilon, mu_of_releases, mu_squared_of_release
from privacy.budget import MU_ROUNDING
from privacy.statement import (
    ADAPTIVE,
    CORRELATED,
    INDEPENDENT,
    OF_RELEASES,
    OWNERS_UNKNOWN,
    REACHED_AT_START,
    SAID_MORE,
)
from privacy.streams import MECHANISM

from ..runs.report_layout import accountable
from . import counts_file
from .home_files import COUNTS_FILE, WORST_CASE_FACT, is_behind
from .home_words import HomeWords, words_in
from .ledger_file import LEDGER_FILE
from .participation_counts import all_devices, life_counts
from .privacy_ledger import read_home
from .worst_case import worst_case

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from privacy import Event, LedgerEntry
    from privacy.statement import PrivacyStatement


@dataclass(frozen=True, slots=True)
class Participants:
    """Who has taken part, without a name.

    Attributes:
        devices: how many devices are counted.
        by_participations: number of devices by how often each was invited in its life.
        most_mu_squared: greatest Σ 1/σ² of one device's updates and answers to counts, with what
            everybody is charged for releases that nobody counted; None where it is unbounded.
        updates_mu_squared: of it, updates; None where it is unbounded.
        counts_mu_squared: of it, answers to counts.
        said_mu_squared: greatest Σ 1/σ² that any one device says it has debited.
        mu_squared_limit: least μ² that any device may spend on updates and counts together; None
            where no policy said it.
        mu_squared_left: least that any device has left of that; None where no policy said it.
    """

    devices: int
    by_participations: dict[int, int]
    most_mu_squared: float | None
    updates_mu_squared: float | None
    counts_mu_squared: float
    said_mu_squared: float
    mu_squared_limit: float | None
    mu_squared_left: float | None


def home_report(home: Path, *, delta: float) -> dict[str, Any]:
    """Verify a home's ledger and lay out what it says.

    Args:
        home: folder of a privacy home, or of a run that is one itself.
        delta: at which ε is told.

    Raises:
        HomeMissingError: there is no ledger.
        HomeBrokenError: the chain does not verify, or the counts do not agree with it.
    """
    entries = read_home(home)
    has_counts = (home / COUNTS_FILE).exists()
    events = accountable(entries)
    mu = mu_of_releases(events)
    words = read_words(home, entries)
    epsilon = words.epsilon(events, delta=delta)
    of_ledger = gaussian_epsilon(mu=mu, delta=delta)
    return {
        "schema_version": 1,
        "home": str(home),
        "verified": True,
        "entries": len(entries),
        "head": entries[-1].hash if entries else None,
        "epsilon_release": epsilon if math.isfinite(epsilon) else None,
        "epsilon_ledger": of_ledger if math.isfinite(of_ledger) else None,
        "epsilon_release_unbounded": not math.isfinite(epsilon),
        "never_released": sum(e.kind in {"comparison", "simulated"} for e in entries),
        "delta": delta,
        "mu_squared": mu**2 if math.isfinite(mu) else None,
        "epsilon_server": None,
        "epsilon_server_unbounded": True,
        **_statement(entries, words, is_said=epsilon > of_ledger).to_json(),
        "participants": _participants_json(home, entries, mu=mu, delta=delta)
        if has_counts
        else None,
        "streams": _streams(entries),
        "releases": [_release(entry) for entry in entries],
    }


def participants_of(home: Path, entries: Sequence[LedgerEntry]) -> Participants:
    """Count devices by how often they took part.

    Args:
        home: the folder.
        entries: of its ledger.

    Raises:
        HomeBrokenError: ledger and counts do not agree.
    """
    with counts_file.reading(home / COUNTS_FILE) as connection:
        is_behind(home / LEDGER_FILE, entries, connection)
        found = life_counts(connection, all_devices(connection))
        uncounted = worst_case(entries[: int(counts_file.fact(connection, WORST_CASE_FACT))])
    uncounted.charge(found)
    updates, counts = found.mu_squared, found.counts_mu_squared
    together = updates + counts
    spent = np.maximum(together, found.said_mu_squared)
    dearest = int(together.argmax()) if len(together) else None
    left = np.maximum(found.mu_squared_in_all - spent, 0.0)[np.isfinite(found.mu_squared_in_all)]
    times = Counter(found.participations.tolist())
    return Participants(
        devices=len(together),
        by_participations=dict(sorted(times.items())),
        most_mu_squared=_finite(
            uncounted.mu_squared_in_all if dearest is None else float(together[dearest])
        ),
        updates_mu_squared=_finite(
            uncounted.mu_squared if dearest is None else float(updates[dearest])
        ),
        counts_mu_squared=uncounted.counts_mu_squared
        if dearest is None
        else float(counts[dearest]),
        said_mu_squared=float(found.said_mu_squared.max(initial=0.0)),
        mu_squared_limit=_finite(
            float(found.mu_squared_in_all.min(initial=uncounted.mu_squared_limit_in_all))
        ),
        mu_squared_left=_finite(float(left.min(initial=math.inf))),
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _participants_json(
    home: Path, entries: Sequence[LedgerEntry], *, mu: float, delta: float
) -> dict[str, Any]:
    """Lay out who took part; what devices say has an ε of its own where it is more."""
    found = participants_of(home, entries)
    is_more = found.said_mu_squared > mu**2 * (1 + MU_ROUNDING)
    said = gaussian_epsilon(mu=math.sqrt(found.said_mu_squared), delta=delta) if is_more else None
    by_participations = {str(k): v for k, v in found.by_participations.items()}
    return asdict(found) | {"by_participations": by_participations, "epsilon_said": said}


def read_words(home: Path, entries: Sequence[LedgerEntry]) -> HomeWords:
    """Return what a home knows beside its ledger, without changing anything there.

    Args:
        home: folder of a privacy home, or of a run that is one itself.
        entries: of its ledger.

    Raises:
        HomeBrokenError: the counts cannot be read.
    """
    if not (home / COUNTS_FILE).exists():
        has_streams = any("stream" in entry.fields["event"] for entry in entries)
        return HomeWords(knows_owners=not has_streams, knows_enrolment=not has_streams)
    with counts_file.reading(home / COUNTS_FILE) as connection:
        uncounted = worst_case(entries[: int(counts_file.fact(connection, WORST_CASE_FACT))])
        return words_in(connection, uncounted=uncounted)


def _statement(
    entries: Sequence[LedgerEntry], words: HomeWords, *, is_said: bool
) -> PrivacyStatement:
    kinds = {str(entry.fields["event"].get("type")) for entry in entries}
    correlated = CORRELATED if "correlated_release" in kinds else ()
    independent = INDEPENDENT if "gaussian_release" in kinds else ()
    is_adaptive = any(entry.fields["event"].get("clip_noise_multiplier") for entry in entries)
    adaptive = (ADAPTIVE,) if is_adaptive else ()
    enrolled = () if words.knows_enrolment else (REACHED_AT_START,)
    owners = () if words.knows_owners else (OWNERS_UNKNOWN,)
    said = (SAID_MORE,) if is_said else ()
    return OF_RELEASES.and_assumes(*correlated, *independent, *adaptive, *enrolled, *owners, *said)


def _streams(entries: Sequence[LedgerEntry]) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for entry in entries:
        event = entry.fields["event"]
        if "stream" not in event:
            continue
        stream = found.setdefault(
            event["stream"],
            {
                "stream": event["stream"],
                "kind": entry.kind,
                "mechanism": event.get("mechanism", MECHANISM),
                "releases": 0,
                "noise_only": 0,
                "noise_multiplier": event["noise_multiplier"],
                "clip_noise_multiplier": event.get("clip_noise_multiplier"),
                "cohort_size": event["cohort_size"],
                "most_participations": 0,
                "policy_digest": event.get("policy_digest"),
            },
        )
        stream["releases"] += 1
        stream["noise_only"] += bool(event.get("noise_only"))
        stream["most_participations"] = max(
            stream["most_participations"], event["most_participations"]
        )
    return list(found.values())


def _release(entry: LedgerEntry) -> dict[str, Any]:
    return {
        "index": entry.index,
        "at": entry.at.isoformat(),
        "kind": entry.kind,
        "event": dict(entry.fields["event"]),
        "mu_squared": _finite(_cost_of(entry.event)),
        "hash": entry.hash,
    }


def _cost_of(event: Event) -> float:
    """What a release costs a device that was invited or asked; public data cost nobody anything."""
    is_charged = isinstance(event, CountRelease | CorrelatedRelease | GaussianRelease)
    return mu_squared_of_release(event) if is_charged else 0.0
