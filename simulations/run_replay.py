"""Replays a run from its record: a seeded one is run anew and compared round by round.

The first difference ends a replay: everything after it follows from it. A ledger entry bears the
time at which it was made, so the event that the replay charges is chained anew at the recorded time
and its hash compared.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from privacy import StreamPolicy, next_entry
from server.engine.quality_looks import looks_at
from server.engine.rounds import RoundsError
from server.flower_app import PlannedRun
from server.privacy_home.privacy_errors import HomeBrokenError, HomeMissingError
from server.runs.folder import RunFolder, config_of
from server.runs.run_files import START_FILE
from server.runs.verification import (
    Check,
    Verdict,
    compared,
    entries_of,
    first_difference,
)
from server.runs.weights_file import read_weights
from server.streams.release_witness import weights_digest

from .federation import run_planned
from .model_sources import REFERENCE_FLEET
from .model_sources import fleet_rows as source_rows
from .seeded_noise import SeededNoise
from .seeded_streams import SeededKeys

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from privacy import LedgerEntry
    from server.engine.rounds import RoundRecord

    from .fleet_rows import FleetRows

COMPARED = ("invited", "replied", "refused", "noise_only", "most_participations", "metrics")
"""Fields of a round's record that a replay must give again, beside weights and ledger entry."""


class ReplayEndedError(RoundsError):
    """A replay has seen what it was for: the last recorded round, or the first difference."""


@dataclass(slots=True, kw_only=True)
class Replay:
    """A replay at work: compares each round as it comes.

    Attributes:
        report: `run.json` of the run.
        entries: of its ledger; empty where it is not here.
        planned: the run anew.
        checks: so far.
        on_check: told of each.
    """

    report: Mapping[str, Any]
    entries: Sequence[LedgerEntry]
    planned: PlannedRun
    checks: list[Check] = field(default_factory=list)
    on_check: Callable[[Check], None] | None = None

    def compare(self, record: RoundRecord) -> None:
        """Compare one round.

        Raises:
            ReplayEndedError: it differs, or it is the last that was recorded.
        """
        said = self.report["rounds"][record.index]
        number = record.index + 1
        for name in COMPARED:
            found = getattr(record, name)
            if said.get(name) != found:
                self._note(
                    Check(
                        name=f"round {number}: {name}",
                        verdict=Verdict.DIFFERS,
                        said=str(said.get(name)),
                        found=str(found),
                    )
                )
        self._note(
            compared(f"round {number}: weights", said.get("weights_sha256"), record.weights_sha256)
        )
        if record.index < len(self.entries):
            self._note(
                compared(f"round {number}: ledger entry", self._said(record), self._found(record))
            )
        if first_difference(self.checks) or number == len(self.report["rounds"]):
            raise ReplayEndedError(f"round {number} was the last to compare")

    def _said(self, record: RoundRecord) -> str:
        return self.entries[record.index].hash

    def _found(self, record: RoundRecord) -> str:
        """Return the hash that the recorded entry would have over the event of the replay."""
        recorded = self.entries[record.index]
        before = self.entries[record.index - 1] if record.index else None
        event = self.planned.folder.home.entries[-1].event
        return next_entry(before, event, kind=recorded.kind, at=recorded.at).hash

    def _note(self, check: Check) -> None:
        self.checks.append(check)
        if self.on_check is not None:
            self.on_check(check)


def replay_seeded(
    run: Path,
    report: Mapping[str, Any],
    rows: FleetRows,
    *,
    scratch: Path,
    clock: Callable[[], datetime],
    owners: Mapping[str, str] | None = None,
    on_check: Callable[[Check], None] | None = None,
    carry: Callable[..., None] = run_planned,
    num_workers: int | None = None,
) -> list[Check]:
    """Run a seeded run anew, and compare it round by round up to the first difference.

    Args:
        run: its folder.
        report: its `run.json`.
        rows: of the fleet that it ran over.
        scratch: new folder for the run anew.
        clock: gives now, aware UTC.
        owners: of devices, where the run knew them.
        on_check: told of each comparison.
        carry: carries the run out; takes what `federation.run_planned` takes.
        num_workers: processes that train; None takes one a core.

    Returns:
        What was compared, in order; a difference is the last.

    Raises:
        ValueError: the run has no seed, or nobody kept what it started from.
        EngineError, RoundsError: the run anew could not go on.
    """
    planned = _planned_anew(run, report, rows, scratch=scratch, owners=owners or {})
    replay = Replay(
        report=report,
        entries=_entries(report, run),
        planned=planned,
        checks=[
            compared(
                "start weights", report["record"]["start_sha256"], weights_digest(planned.start)
            )
        ],
        on_check=on_check,
    )
    planned.on_round = replay.compare
    if first_difference(replay.checks) or not report["rounds"]:
        return replay.checks
    with contextlib.suppress(ReplayEndedError):
        carry(
            [planned],
            rows,
            seed=report["record"]["seed"],
            clock=clock,
            log_file=scratch / "flower.log",
            num_workers=num_workers,
        )
    return replay.checks


def _planned_anew(
    run: Path,
    report: Mapping[str, Any],
    rows: FleetRows,
    *,
    scratch: Path,
    owners: Mapping[str, str],
) -> PlannedRun:
    seed = report.get("record", {}).get("seed")
    if seed is None:
        raise ValueError("seed must stand in the run's record: a run with real noise has none")
    start = read_weights(run / START_FILE)
    config = config_of(report)
    policy = report["privacy"]["policy"]
    return PlannedRun(
        config=config,
        folder=RunFolder(scratch),
        start=start,
        source=SeededNoise(seed, "release", config.stream),
        keys=SeededKeys(seed),
        owners=owners,
        plan=None if policy is None else StreamPolicy.from_json(policy),
        evaluate=looks_at(
            rows.held_out, reference=source_rows(REFERENCE_FLEET) if config.patience else None
        ),
    )


def _entries(report: Mapping[str, Any], run: Path) -> tuple[LedgerEntry, ...]:
    try:
        return entries_of(report, run)
    except (HomeMissingError, HomeBrokenError):
        return ()
