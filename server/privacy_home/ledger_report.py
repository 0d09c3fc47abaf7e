"""What a privacy home holds, for a person: releases, who took part, what it cost, what is left."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from privacy import release_epsilon
from privacy.accountant import mu_of_releases
from privacy.statement import CORRELATED, INDEPENDENT, OF_RELEASES

from ..rounds_report import accountable
from . import counts_file
from .ledger_file import LEDGER_FILE
from .privacy_ledger import COUNTS_FILE, is_behind, read_home

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from privacy import LedgerEntry
    from privacy.statement import PrivacyStatement


@dataclass(frozen=True, slots=True)
class Participants:
    """Who has taken part, without a name.

    Attributes:
        devices: how many devices are counted.
        by_participations: number of devices by how often each was invited in its life.
        most_mu_squared: greatest Σ 1/σ² of one device's invitations; None where it is unbounded.
        mu_squared_limit: least part of μ² that any device may spend; None where there is none.
    """

    devices: int
    by_participations: dict[int, int]
    most_mu_squared: float | None
    mu_squared_limit: float | None


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
    epsilon = release_epsilon(events, delta=delta)
    return {
        "schema_version": 1,
        "home": str(home),
        "verified": True,
        "entries": len(entries),
        "head": entries[-1].hash if entries else None,
        "epsilon_release": epsilon if math.isfinite(epsilon) else None,
        "epsilon_release_unbounded": not math.isfinite(epsilon),
        "never_released": sum(e.kind in {"comparison", "simulated"} for e in entries),
        "delta": delta,
        "mu_squared": mu**2 if math.isfinite(mu) else None,
        "epsilon_server": None,
        "epsilon_server_unbounded": True,
        **_statement(entries).to_json(),
        "participants": _participants_json(home, entries) if has_counts else None,
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
        rows = connection.execute(
            "SELECT MAX(participations, said_participations), mu_squared, mu_squared_limit "
            "FROM devices"
        ).fetchall()
    most = max((row[1] for row in rows), default=0.0)
    limit = min((row[2] for row in rows), default=math.inf)
    return Participants(
        devices=len(rows),
        by_participations=dict(sorted(Counter(int(row[0]) for row in rows).items())),
        most_mu_squared=most if math.isfinite(most) else None,
        mu_squared_limit=limit if math.isfinite(limit) else None,
    )


def _participants_json(home: Path, entries: Sequence[LedgerEntry]) -> dict[str, Any]:
    found = participants_of(home, entries)
    left = None
    if found.mu_squared_limit is not None and found.most_mu_squared is not None:
        left = max(0.0, found.mu_squared_limit - found.most_mu_squared)
    return {
        "devices": found.devices,
        "by_participations": {str(k): v for k, v in found.by_participations.items()},
        "most_mu_squared": found.most_mu_squared,
        "mu_squared_limit": found.mu_squared_limit,
        "mu_squared_left": left,
    }


def _statement(entries: Sequence[LedgerEntry]) -> PrivacyStatement:
    kinds = {str(entry.fields["event"].get("type")) for entry in entries}
    correlated = CORRELATED if "correlated_release" in kinds else ()
    independent = INDEPENDENT if "gaussian_release" in kinds else ()
    return OF_RELEASES.and_assumes(*correlated, *independent)


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
                "mechanism": event.get("mechanism", "banded_matrix_factorisation"),
                "releases": 0,
                "noise_only": 0,
                "noise_multiplier": event["noise_multiplier"],
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
        "hash": entry.hash,
    }
