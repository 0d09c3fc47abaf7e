"""ServerApp only: finds the devices, runs the rounds, asks for counts, leaves the report."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from flwr.serverapp import ServerApp

from models.held_out_devices import held_out_devices
from privacy import OperatingSystemNoise

from .counts.count_queries import CountOffice
from .counts.run_counts import RunCounts
from .engine.cohorts import invitation_order, within_owner_cap
from .engine.enrolment import Enrolment
from .engine.flower_messages import Roster, ask_for_devices
from .engine.rounds import RoundRecord, RoundsError
from .engine.run_configuration import value_of
from .engine.server_optimizer import OptimizerState
from .engine.strategy import FederatedRounds
from .engine.way_on import require_way_on
from .plans.plan_file import terms_under
from .privacy_home.enrolment_record import EnrolmentSource
from .runs.control import RunCancelledError
from .runs.desk import Farewell, Watching, open_desk
from .runs.outcome import ending_words
from .runs.pace import Pace, last_release
from .runs.report_writer import begin_reports
from .runs.status import EndCause
from .streams.ended_stream import ended_stream, has_ended
from .streams.stream_state import begin_stream, resume_stream
from .streams.stream_terms import OperatingSystemKeys

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from flwr.app import Context
    from flwr.serverapp import Grid
    from numpy.typing import NDArray

    from models.wire.counts import CountQuestion
    from models.wire.envelope import SigningKey
    from privacy import NoiseSource, StreamPolicy

    from .counts.private_metrics import ReleasedCounts
    from .counts.run_counts import CountsPlan
    from .engine.cohorts import Schedule
    from .engine.device_claims import ClaimRule
    from .engine.optimizer_gain import OptimizerGain
    from .engine.round_keeper import Metrics
    from .engine.rounds import RoundsConfig
    from .runs.desk import RunDesk
    from .runs.folder import RunFolder
    from .streams.stream_key import OperatorKey
    from .streams.stream_state import StreamState
    from .streams.stream_terms import StreamKeys, StreamTerms

    Look = Callable[[NDArray[np.float32]], Metrics]


NODES_DEADLINE_S = 120.0
"""How long a run waits for its nodes, first for them, then for their answers."""


@dataclass(slots=True, kw_only=True)
class PlannedRun:
    """One run of rounds that a ServerApp is to carry out.

    Attributes:
        config: what decides it.
        folder: where it is recorded.
        start: weights to start from, float32, shape (n_weights,).
        source: of independent noise, where that is compared.
        keys: of the stream's correlated noise.
        operator: seals the stream's key and sums.
        signing_key: of policy and receipts; None for a simulated fleet.
        owners: of devices, as far as they are known; none at a resume takes those it began with.
        enrolment: who is enrolled as the stream begins; None takes whom the nodes name then.
        claims: what nodes outside may claim, asked anew before each round; None believes nodes of
            this process's own making, which are always there.
        plan: policy whose constants are the run's; None works them out from the configuration.
        counts: that are asked of devices; None asks none.
        is_resumed: whether the folder holds the run's first part.
        evaluate: looks at weights on data that is not the devices'.
        watching: how the run can be watched.
        facts: what a replay must know beside the configuration: `seed`, `fleet_sha256`,
            `started_from`.
        on_start: told the metrics of the starting weights and the planned σ (0 without noise).
        on_gain: told what correlated noise gains under the run's optimiser.
        on_round: told of each round.
        weights: the result, once the run has ended.
        report: what stands in `run.json`.
    """

    config: RoundsConfig
    folder: RunFolder
    start: NDArray[np.float32]
    source: NoiseSource = field(default_factory=OperatingSystemNoise)
    keys: StreamKeys = field(default_factory=OperatingSystemKeys)
    operator: OperatorKey | None = None
    signing_key: SigningKey | None = None
    owners: Mapping[str, str] = field(default_factory=dict)
    enrolment: Enrolment | None = None
    claims: ClaimRule | None = None
    plan: StreamPolicy | None = None
    counts: CountsPlan | None = None
    is_resumed: bool = False
    evaluate: Callable[[NDArray[np.float32]], Metrics] | None = None
    watching: Watching = field(default_factory=Watching)
    facts: Mapping[str, Any] = field(default_factory=dict)
    on_start: Callable[[Metrics | None, float], None] | None = None
    on_gain: Callable[[OptimizerGain], None] | None = None
    on_round: Callable[[RoundRecord], None] | None = None
    weights: NDArray[np.float32] | None = None
    report: dict[str, Any] = field(default_factory=dict)

    def result(self) -> NDArray[np.float32]:
        """Return the weights after the last round.

        Raises:
            RoundsError: the run was not carried out to its end.
        """
        if self.weights is None or self.report.get("status") != "finished":
            raise RoundsError(
                f"{self.folder.path}: the run did not reach its last round; see its log"
            )
        return self.weights


def server_app(
    runs: Sequence[PlannedRun],
    *,
    num_nodes: int,
    stop: threading.Event,
    done: threading.Event,
    clock: Callable[[], datetime],
    nodes_deadline_s: float = NODES_DEADLINE_S,
) -> ServerApp:
    """Make the ServerApp that carries out runs one after the other.

    Args:
        runs: each leaves its result in itself and in its folder.
        num_nodes: nodes to wait for.
        stop: set from outside to end after the messages in hand.
        done: set when nothing more is written.
        clock: gives now, aware UTC.
        nodes_deadline_s: how long to wait for the nodes.
    """
    app = ServerApp()

    @app.main()
    def main(grid: Grid, _context: Context) -> None:
        try:
            roster = ask_for_devices(
                grid, num_nodes=num_nodes, deadline_s=nodes_deadline_s, stop=stop
            )
            for run in runs:
                if stop.is_set():
                    return
                carry_out(run, grid, roster=roster, stop=stop, clock=clock)
        finally:
            done.set()

    return app


def carry_out(
    run: PlannedRun,
    grid: Grid,
    *,
    roster: Roster,
    stop: threading.Event,
    clock: Callable[[], datetime],
) -> None:
    """Carry out one run and keep its report after every round."""
    run.folder.require_facts(run.facts)
    enrolled = _enrolled(run, roster)
    roster = _in_training(enrolled) if run.config.holds_out else enrolled
    terms, schedule = _terms(run, num_devices=len(roster.device_ids))
    stream, state = _stream(run, terms)
    try:
        records, start_metrics = _looks_before(run, next_index=stream.next_index)
        rounds = FederatedRounds(
            config=run.config,
            roster=roster,
            schedule=schedule,
            stream=stream,
            state=state,
            clock=clock,
            stop=stop,
            signing_key=run.signing_key,
            evaluate=run.evaluate,
            start_metrics=start_metrics,
            records=records,
            claims=run.claims,
            ways=enrolled,
        )
        require_way_on(rounds)
        _carry_out_stream(run, grid, rounds=rounds)
    finally:
        stream.close()


def _carry_out_stream(run: PlannedRun, grid: Grid, *, rounds: FederatedRounds) -> None:
    reporter = begin_reports(run, rounds)
    desk = open_desk(
        run.folder.path,
        config=run.config,
        clock=rounds.clock,
        stop=rounds.stop,
        watching=run.watching,
        records=rounds.records,
        is_resumed=run.is_resumed,
        home="" if run.folder.has_own_home else str(run.folder.home.path.resolve()),
    )
    pace = Pace(
        desk=desk,
        every_s=run.watching.round_every_s,
        released_at=last_release(rounds.stream.home.entries, run.config.stream),
    )
    rounds.on_progress = pace.take
    rounds.keeper.evaluate = _attended(run.evaluate, desk)
    counts = _counts(run, grid, rounds=rounds)
    if run.on_start is not None:
        run.on_start(rounds.start_metrics, rounds.stream.noise.noise_multiplier)
    if run.on_gain is not None and reporter.gain is not None:
        run.on_gain(reporter.gain)

    def on_round(record: RoundRecord) -> None:
        is_last = record.index == run.config.num_rounds - 1
        if counts is not None and counts.plan.is_turn(record.index) and not is_last:
            with desk.at_work():
                counts.ask()
        reporter.save("running")
        pace.round_done(record)
        if run.on_round is not None:
            run.on_round(record)

    rounds.on_round = on_round
    with desk.attend():
        reporter.save("running")
        desk.begin(rounds.start_metrics, is_resumed=run.is_resumed)
        ended, because = "interrupted", EndCause.STOPPED
        try:
            desk.has_finished = rounds.run(grid)
            if desk.has_finished:
                ended, because = "finished", rounds.cause_of_end()
        except RunCancelledError:
            ended, because = "cancelled", EndCause.CANCELLED
            raise
        except Exception:
            because = EndCause.FAILED
            raise
        finally:
            reporter.end(ended, because)
            desk.farewell = Farewell(because, ending_words(run.report))
        if desk.has_finished and counts is not None:
            with desk.at_work():
                counts.ask()
            reporter.save("finished")


def _attended(look: Look | None, desk: RunDesk) -> Look | None:
    """Let a run give signs of life while somebody looks at its weights."""
    if look is None:
        return None

    def attended(weights: NDArray[np.float32]) -> Metrics:
        with desk.at_work():
            return look(weights)

    return attended


def _counts(run: PlannedRun, grid: Grid, *, rounds: FederatedRounds) -> RunCounts | None:
    """Return what asks the run's counts; None where there are none to ask."""
    policy = rounds.stream.terms.policy
    if run.counts is None or policy is None:
        return None
    office = CountOffice(
        home=rounds.stream.home,
        policy=policy,
        policy_text=rounds.policy_text,
        source=run.source,
        clock=rounds.clock,
        stop=rounds.stop,
        deadline_s=run.config.deadline_s,
    )

    def release(channel: str, question: CountQuestion) -> ReleasedCounts:
        return office.release(grid, rounds.all_ways, channel=channel, question=question)

    return RunCounts(
        plan=run.counts,
        folder=run.folder.path,
        policy=policy,
        release=release,
        clock=rounds.clock,
        stop=rounds.stop,
        find_ways=lambda: rounds.ask_for_ways(grid),
    )


def _looks_before(run: PlannedRun, *, next_index: int) -> tuple[list[RoundRecord], Metrics | None]:
    """Return the records of rounds that a resumed run has behind it, and how it started."""
    if not run.is_resumed:
        return [], None if run.evaluate is None else run.evaluate(run.start)
    report = run.folder.report()
    records = [RoundRecord(**record) for record in report["rounds"]]
    return [r for r in records if r.index < next_index], report["start_metrics"]


def _terms(run: PlannedRun, *, num_devices: int) -> tuple[StreamTerms, Schedule]:
    """Return the constants of the run's stream, and its schedule over so many devices."""
    if run.is_resumed:
        return run.folder.terms(), run.config.schedule(num_devices)
    if run.plan is not None:
        terms = terms_under(run.plan, stream=run.config.stream, population_size=num_devices)
        return terms, run.config.schedule(num_devices)
    schedule = run.config.schedule(num_devices)
    return run.config.terms(schedule), schedule


def _in_training(enrolled: Roster) -> Roster:
    """Return the devices that rounds may invite: not those that never train."""
    return enrolled.only(np.flatnonzero(~held_out_devices(enrolled.device_ids)))


def _enrolled(run: PlannedRun, roster: Roster) -> Roster:
    """Return who may be asked for anything, whether a node names them now or not.

    That is whoever was enrolled when the stream began; of each owner no more than allowed, and of
    these those first whom the stream has invited.
    """
    stream, most_devices = run.config.stream, run.config.max_devices_per_owner
    found = run.enrolment or Enrolment(
        dict.fromkeys(roster.device_ids), EnrolmentSource.FIRST_ROSTER
    )
    home = run.folder.home
    device_ids = home.keep_enrolment(stream, found.nodes, found.source).device_ids
    home.keep_bindings(stream, {} if run.enrolment is None else run.enrolment.nodes)
    kept = home.keep_owners(stream, run.owners, most_devices=most_devices)
    invited = set(kept.invited)
    order = sorted(
        invitation_order(device_ids, stream=stream).tolist(),
        key=lambda position: device_ids[position] not in invited,
    )
    return roster.over(device_ids).only(
        within_owner_cap(
            device_ids,
            np.array(order, np.intp),
            owners=kept.owners,
            max_devices_per_owner=most_devices,
        )
    )


def _stream(run: PlannedRun, terms: StreamTerms) -> tuple[StreamState, OptimizerState]:
    folder = run.folder
    if run.is_resumed and has_ended(folder.path):
        return ended_stream(folder.path, folder.home, terms, lock=folder.hand_over_lock())
    if run.is_resumed:
        return resume_stream(
            folder.path,
            folder.home,
            terms,
            keys=run.keys,
            operator=run.operator,
            lock=folder.hand_over_lock(),
        )
    if terms.is_comparison and not folder.has_own_home:
        raise RoundsError("a comparison is kept in its own folder; leave the privacy home out")
    start = OptimizerState.start(run.start)
    stream = begin_stream(
        folder.path,
        folder.home,
        terms,
        start=start,
        keys=run.keys,
        source=run.source,
        operator=run.operator,
        lock=folder.hand_over_lock(),
    )
    return stream, start


app = ServerApp()
"""The ServerApp of a deployment: one run, from the run's configuration, over all nodes here."""


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Carry out the run that the Flower run's configuration describes."""
    from .deployed_run import deployed_run, knows_who_is_enrolled

    stop = threading.Event()
    num_nodes = int(value_of(context.run_config, "least-nodes"))
    run = deployed_run(context.run_config)
    goes_on_alone = knows_who_is_enrolled(run)
    try:
        roster = ask_for_devices(
            grid,
            num_nodes=num_nodes,
            deadline_s=min(NODES_DEADLINE_S, run.config.deadline_s)
            if goes_on_alone
            else NODES_DEADLINE_S,
            stop=stop,
            rule=run.claims,
            may_be_empty=goes_on_alone,
        )
    except RoundsError:
        run.folder.close()
        raise
    carry_out(run, grid, roster=roster, stop=stop, clock=lambda: datetime.now(UTC))
