"""Writes `run.json` while a run goes on: report, record for a replay, and the optimiser's gain."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..engine.optimizer_gain import measure_gain
from .best_weights import best_weights, keep_if_best
from .outcome import outcome_of
from .replay_record import facts_of, platform_here, record_of, versions_here
from .report_layout import record_epsilon, report_of
from .run_parts import RunPart, parts_of, with_part
from .status import EndCause

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..engine.optimizer_gain import OptimizerGain
    from ..engine.strategy import FederatedRounds
    from ..flower_app import PlannedRun


@dataclass(slots=True, kw_only=True)
class RunReporter:
    """Writes the report of one run; `begin_reports` makes it.

    Attributes:
        run: whose report it is.
        rounds: at work.
        parts: of the run, this process's last.
        started: when that began, by the clock that only counts.
        facts: what whoever planned the run knows of it.
        start_sha256: of the weights that the run started from; None where nobody kept them.
        gain: of correlated noise under the run's optimiser; None for a comparison.
        ended_because: why the run ended; None while it goes on.
        leaves_round: number of the round whose weights leave, 0 for the start.
    """

    run: PlannedRun
    rounds: FederatedRounds
    parts: tuple[RunPart, ...]
    started: float
    facts: Mapping[str, Any]
    start_sha256: str | None
    gain: OptimizerGain | None
    ended_because: EndCause | None = None
    leaves_round: int | None = None

    def end(self, status: str, because: EndCause) -> None:
        """Write the weights that leave, and the report of a run that has ended.

        Args:
            status: finished, interrupted or cancelled.
            because: why it ended.
        """
        run, rounds = self.run, self.rounds
        self.ended_because = because
        self.leaves_round, run.weights = rounds.stream.next_index, rounds.weights()
        if because is EndCause.EARLY_STOP:
            self.leaves_round, run.weights = best_weights(run.folder.path, rounds)
        run.folder.save_weights(run.weights)
        self.save(status)

    def save(self, status: str) -> None:
        """Write the report as it stands.

        Args:
            status: running, finished, interrupted or cancelled.
        """
        run, rounds = self.run, self.rounds
        is_running = status == "running"
        parts = self._parts_so_far()
        if is_running:
            keep_if_best(run.folder.path, rounds)
        run.report = report_of(
            run.config,
            status=status,
            schedule=rounds.schedule,
            terms=rounds.stream.terms,
            noise=rounds.stream.noise,
            rounds=rounds.records,
            start_metrics=rounds.start_metrics,
            # The record-level figure takes a second to compute: it waits for the end.
            record=(None, None) if is_running else self._record(),
            entries=rounds.stream.home.entries,
            versions=parts[-1].versions,
            started_at=parts[0].started_at,
            seconds=sum(part.seconds for part in parts),
            words=rounds.stream.home.words_on(run.config.stream),
        )
        run.report["round_every_s"] = run.watching.round_every_s
        run.report["parts"] = [part.to_json() for part in parts]
        run.report["optimizer_gain"] = None if self.gain is None else self.gain.to_json()
        run.report["ended_because"] = self.ended_because
        run.report["leaves_round"] = self.leaves_round
        run.report["leaves_entry"] = self._entry_that_pays()
        run.report["outcome"] = None if is_running else outcome_of(run.report)
        run.report["record"] = record_of(
            run.report,
            start_sha256=self.start_sha256,
            end=None if is_running else run.weights,
            facts=self.facts,
        )
        run.folder.save_report(run.report)

    def _entry_that_pays(self) -> dict[str, Any] | None:
        """Return the ledger entry of the round whose weights leave; None where none does yet."""
        paid = {
            record.ledger_hash
            for record in self.rounds.records
            if record.index + 1 == self.leaves_round
        }
        entries = self.rounds.stream.home.entries
        return next((entry.reference() for entry in entries if entry.hash in paid), None)

    def _parts_so_far(self) -> tuple[RunPart, ...]:
        *before, mine = self.parts
        lasted = time.perf_counter() - self.started
        return (*before, replace(mine, seconds=mine.seconds + lasted))

    def _record(self) -> tuple[float | None, float | None]:
        config = self.rounds.config
        return record_epsilon(
            config.recipe,
            participations=self.rounds.stream.most_participations,
            delta=config.record_delta,
        )


def begin_reports(run: PlannedRun, rounds: FederatedRounds) -> RunReporter:
    """Keep what a replay needs of a run that begins or goes on, and measure its gain.

    Args:
        run: that begins or goes on.
        rounds: at work.
    """
    if not run.is_resumed:
        run.folder.keep_start(run.start)
    policy = rounds.stream.terms.policy
    found = run.folder.report() if run.is_resumed else None
    mine = RunPart(
        from_round=rounds.stream.next_index + 1,
        started_at=rounds.clock(),
        seconds=0.0,
        versions=versions_here(),
        platform=platform_here(),
    )
    return RunReporter(
        run=run,
        rounds=rounds,
        parts=with_part(() if found is None else parts_of(found), mine),
        started=time.perf_counter(),
        facts=facts_of(found, run.facts),
        start_sha256=run.folder.start_digest(),
        gain=None
        if policy is None
        else measure_gain(policy, run.config.server, num_weights=len(run.start)),
    )
