"""The strategy: cohort, tasks, replies, noise, ledger and checkpoint over Flower's grid.

Flower's own loop cannot resume, stop or wait until a deadline, one odd reply ends it, and its
wrappers for differential privacy divide by the number that answered. So this loop pushes and pulls
messages itself; every decision is in a module without Flower: `cohorts`, `aggregation`,
`server_optimizer`, `stream_state`, `privacy.budget`.

The order of a round: choose and count the cohort, collect until the deadline, commit the sum, make
the ledger entry durable, add the noise, step, keep a checkpoint. Only then can the next task, which
carries the new weights, leave. Fewer answers in time than the least make it a step of noise alone.
A round that a killed process left is taken up where it was: a cohort that was invited is asked
again, with the same task, and a sum that was committed is released.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from privacy.adaptive_clipping import grid_of

from ..privacy_home.privacy_errors import StreamRefusedError
from ..runs.control import RunCancelledError
from ..runs.refusal_trail import NodeNames, RefusalTrail
from ..runs.status import EndCause, EnginePhase, StepProgress
from ..streams.policy_signing import signed_policy
from ..streams.receipts import release_receipt, shows_forgotten_releases
from ..streams.stream_state import StepPhase
from .aggregation import CohortSum
from .cohorts import CohortHistory, invitation_order, select_cohort
from .collection import Collected, Collector
from .early_stop import REFERENCE_QUALITY, is_over
from .flower_messages import Roster, asked_again, receipt_messages
from .group_rule import NodeGroups, robust_mean
from .receipt_delivery import ReceiptDelivery
from .round_keeper import RoundKeeper
from .rounds import SILENT_ROUNDS, FleetSpentError, NoAnswerError
from .server_optimizer import OptimizerState, optimizer_step
from .step_facts import StepFacts, read_facts, write_facts
from .way_on import groups_over

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Sequence
    from datetime import datetime

    import numpy as np
    from flwr.serverapp import Grid
    from numpy.typing import NDArray

    from models.wire.envelope import SigningKey
    from privacy.clipping import StepGrid

    from ..privacy_home.participation_counts import LifeCounts
    from ..streams.stream_state import StreamState
    from .cohorts import Schedule
    from .device_claims import ClaimRule
    from .round_keeper import Metrics
    from .rounds import RoundRecord, RoundsConfig

logger = logging.getLogger(__name__)

ROSTER_DEADLINE_S = 20.0
"""How long nodes are waited for that are asked, before a round, which devices they have."""


def nobody_looks(_progress: StepProgress) -> None:
    """Show nobody how far a step has come."""


@dataclass(slots=True)
class FederatedRounds:
    """One run of rounds over a grid.

    Attributes:
        config: what decides the run.
        roster: who is enrolled, and the way to them.
        claims: what nodes may claim that are asked before each round; None asks none.
        ways: the way to all who are enrolled, whoever never trains among them; None: to the roster.
        schedule: public.
        stream: its steps, durable.
        state: weights and optimiser to start from.
        clock: gives now, aware UTC.
        stop: set from outside to end the run after the messages in hand.
        signing_key: of policy and receipts; None for a simulated fleet.
        evaluate: looks at weights, float32, shape (n_weights,), on data that is not the devices'.
        on_round: told of each round.
        on_progress: told of each phase of a step; may hold the run, or end it by raising.
        poll_s: pause between two looks for replies.
    """

    config: RoundsConfig
    roster: Roster
    schedule: Schedule
    stream: StreamState
    state: OptimizerState
    clock: Callable[[], datetime]
    stop: threading.Event
    signing_key: SigningKey | None = None
    evaluate: Callable[[NDArray[np.float32]], Metrics] | None = None
    on_round: Callable[[RoundRecord], None] | None = None
    on_progress: Callable[[StepProgress], None] = nobody_looks
    poll_s: float = 0.02
    start_metrics: Metrics | None = None
    records: list[RoundRecord] = field(default_factory=list)
    claims: ClaimRule | None = None
    ways: Roster | None = None
    history: CohortHistory = field(init=False)
    grid_step: StepGrid = field(init=False)
    order: NDArray[np.intp] = field(init=False)
    policy_text: str = field(init=False, default="")
    collector: Collector = field(init=False)
    keeper: RoundKeeper = field(init=False)
    trail: RefusalTrail = field(init=False)
    receipts: ReceiptDelivery = field(init=False)
    groups: NodeGroups | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        """Fix the order of invitations and the grid of the stream."""
        name = self.config.stream
        counted, last = self.stream.home.stream_history(name, self.roster.device_ids)
        self.history = CohortHistory(participations=counted, last_index=last)
        terms = self.stream.terms
        self.grid_step = grid_of(terms.clipping_norm, has_norm_bit=terms.has_norm_bit)
        self.order = invitation_order(self.roster.device_ids, stream=name)
        if self.config.has_group_rule:
            self.groups = groups_over(self.roster, num_groups=self.config.num_groups)
        self.trail = RefusalTrail(
            self.stream.folder, NodeNames.of(name, self.stream.secrets), self.clock
        )
        self.collector = Collector(
            deadline_s=self.config.deadline_s,
            stop=self.stop,
            poll_s=self.poll_s,
            groups=self.groups,
            on_refusal=lambda node_id, reason: self.trail.note(
                self.stream.next_index, node_id, reason
            ),
        )
        self.receipts = ReceiptDelivery(stop=self.stop, poll_s=self.poll_s)
        policy = self.stream.terms.policy
        if policy is not None and self.signing_key is not None:
            self.policy_text = signed_policy(policy, self.signing_key)
        self.keeper = RoundKeeper(
            config=self.config, stream=self.stream, records=self.records, evaluate=self.evaluate
        )
        self.keeper.keep_last_anew(self.weights())

    def run(self, grid: Grid) -> bool:
        """Run all rounds that are left, beginning with one that a killed process left.

        Args:
            grid: Flower's way to the nodes.

        Returns:
            True if the run came to its end, False if it was stopped.

        Raises:
            NoAnswerError: not one good reply came to several rounds in a row, or to any.
            FleetSpentError: too few devices may still be invited; the key is left, for others may
                come, until somebody cancels the run.
            RunCancelledError: somebody asked that the run end; the stream is at its end.
            StreamRefusedError: devices' ledgers show steps that the home has forgotten.
        """
        while not self.is_over():
            index = self.stream.next_index
            try:
                self.on_progress(StepProgress(index=index, phase=EnginePhase.BETWEEN))
                started = time.perf_counter()
                collected = None if self.stop.is_set() else self._committed(grid, index)
            except RunCancelledError:
                self.stream.abandon()
                raise
            if collected is None:
                return False
            self._progress(collected, index, EnginePhase.COMMITTED)
            self._release()
            self._progress(collected, index, EnginePhase.KEPT)
            self._tell(collected, index=index, seconds=time.perf_counter() - started)
            self._hand_out_receipts(grid, collected.cohort, index=index)
            self._require_answers(collected, index=index)
        self.stream.abandon()
        return True

    def is_over(self) -> bool:
        """Whether no further round is to come: all ran, or public data shows no gain any more."""
        if self.stream.next_index >= self.config.num_rounds:
            return True
        looks = [self.start_metrics, *(record.metrics for record in self.records)]
        qualities = [None if look is None else look.get(REFERENCE_QUALITY) for look in looks]
        return is_over(qualities, patience=self.config.patience)

    def cause_of_end(self) -> EndCause:
        """Why a run that is over has ended."""
        is_whole = self.stream.next_index >= self.config.num_rounds
        return EndCause.ALL_ROUNDS if is_whole else EndCause.EARLY_STOP

    def weights(self) -> NDArray[np.float32]:
        """The weights that leave, float32, shape (n_weights,)."""
        return self.state.weights.astype("float32")

    def _progress(self, collected: Collected, index: int, phase: EnginePhase) -> None:
        self.on_progress(
            StepProgress(
                index=index,
                phase=phase,
                invited=len(collected.cohort),
                replied=collected.sum.num_replied,
                refused={str(reason): count for reason, count in collected.sum.refused.items()},
            )
        )

    def _committed(self, grid: Grid, index: int) -> Collected | None:
        """Bring the step at hand to its one sum; None if the run was stopped meanwhile."""
        stream = self.stream
        if stream.phase in {StepPhase.COMMITTED, StepPhase.CHARGED}:
            facts = read_facts(stream.folder, index=index) or StepFacts(index=index)
            return self._collected_before(facts)
        cohort = self._cohort(index)
        collected = self._ask(grid, cohort, index)
        if collected is None:
            return None
        self.trail.end_round(index)
        self._require_known(collected)
        facts = StepFacts(
            index=index,
            replied=collected.sum.num_replied,
            refused=collected.sum.refused,
            noise_only=collected.sum.num_replied < self.config.min_replies,
            clipping_norm=None if stream.norm.clipping is None else stream.norm.current,
        )
        write_facts(stream.folder, facts)
        stream.commit(collected.sum.total, noise_only=facts.noise_only)
        return collected

    def _collected_before(self, facts: StepFacts) -> Collected:
        """Return what an earlier process collected, without the sum itself."""
        total = CohortSum.empty(self.stream.size)
        total.num_replied, total.refused = facts.replied, facts.refused
        return Collected(self.stream.home.cohort(self.config.stream, facts.index), total)

    def _cohort(self, index: int) -> tuple[str, ...]:
        """Return the cohort that was invited already, or invite the next: never a second one."""
        if self.stream.phase is StepPhase.INVITED:
            return self.stream.home.cohort(self.config.stream, index)
        return self.stream.invite(
            device_ids=self.roster.device_ids, choose=lambda counts: self._choose(counts, index)
        )

    def _ask(self, grid: Grid, cohort: tuple[str, ...], index: int) -> Collected | None:
        """Ask a cohort, as far as it is here, and add its replies up; None if stopped meanwhile.

        Asked again after a crash, the task is the same bit for bit: weights and norm are those of
        the checkpoint, pseudonyms those of the stream's key.
        """
        self._find_ways(grid, Collected(cohort, CohortSum.empty(0)), index)
        own = self.stream.secrets
        with_receipts = own is not None and bool(self.policy_text)
        tasks = self.roster.tasks(
            cohort,
            config=self.config,
            index=index,
            clipping_norm=self.stream.norm.current,
            has_norm_bit=self.stream.terms.has_norm_bit,
            policy=self.policy_text,
            pseudonym=(lambda device_id: own.pseudonym(device_id, index=index))
            if own is not None and with_receipts
            else None,
        )
        return self.collector.collect(
            grid,
            cohort,
            tasks,
            weights=self.weights(),
            on_look=lambda so_far: self._progress(so_far, index, EnginePhase.COLLECTING),
            unit=self.grid_step,
        )

    @property
    def all_ways(self) -> Roster:
        """The way to all who are enrolled, as far as it is known."""
        return self.roster if self.ways is None else self.ways

    def ask_for_ways(self, grid: Grid, *, on_look: Callable[[], None] | None = None) -> None:
        """Ask the nodes anew which devices they have: all who are enrolled, trained or not."""
        if self.claims is None:
            return
        self.ways = asked_again(
            grid,
            self.all_ways,
            rule=self.claims,
            deadline_s=min(self.config.deadline_s, ROSTER_DEADLINE_S),
            stop=self.stop,
            poll_s=self.poll_s,
            on_look=on_look,
        )
        self.roster = self.ways.over(self.roster.device_ids)

    def _find_ways(self, grid: Grid, collected: Collected, index: int) -> None:
        """Ask for ways before a round, and note claims that do not count."""
        self.ask_for_ways(
            grid, on_look=lambda: self._progress(collected, index, EnginePhase.COLLECTING)
        )
        for node_id, reason in self.roster.refused:
            self.trail.note(index, node_id, reason)

    def _choose(self, counts: LifeCounts, index: int) -> NDArray[np.intp]:
        """Choose a cohort by schedule and history, and note it in the stream's history.

        Where fewer than n may be invited, places stay empty: one device that has spent its life, or
        says so, shall not end a run. The divisor stays n.
        """
        cost = self.stream.terms.cost
        is_bounded = self.stream.terms.privacy is not None
        cohort = select_cohort(
            self.order,
            schedule=self.schedule,
            history=self.history,
            index=index,
            max_participations=cost.max_participations
            if is_bounded
            else self.schedule.participations,
            min_separation=max(self.schedule.min_separation, cost.min_separation),
            may=counts.may_go_on(cost),
        )
        least = self.stream.terms.least_invited
        if len(cohort) < least:
            wanted = self.config.cohort_size
            raise FleetSpentError(index=index, found=len(cohort), wanted=wanted, least=least)
        self.history = self.history.after(cohort, index=index)
        return cohort

    def _require_known(self, collected: Collected) -> None:
        """Keep what devices say, and refuse to go on where the home knows less than they do.

        Nothing is destroyed for a vote, and the words are not kept: whoever put the home back may
        put its newest copy in place, and the run goes on.
        """
        home, said = self.stream.home, collected.said
        if not said:
            return
        if shows_forgotten_releases(said, home.standings([*said])):
            what = "most devices have taken part in more steps than this home knows of"
            remedy = (
                "it was put back from a backup, or they train for another home, too: put its "
                "newest copy back, and resume or open a new stream; where this is the newest, "
                "use it for all runs, after: fedcell privacy ledger --home DIR --accept-moved "
                "--head HASH"
            )
            raise StreamRefusedError(home.path, what, remedy)
        home.note_said(said)

    def _release(self) -> None:
        """Charge, noise, step and keep: after this the new weights may leave."""
        if self.stream.phase is StepPhase.COMMITTED:
            self.stream.charge(self.clock())
        index = self.stream.next_index
        released = self.stream.release()
        self.state = optimizer_step(
            self.state,
            self._of_groups(released, index),
            recipe=self.config.server,
            rate=self.config.server.rate_at(index, num_rounds=self.config.num_rounds),
        )
        self.stream.checkpoint(self.state, released=released)

    def _of_groups(self, released: NDArray[np.float64], index: int) -> NDArray[np.float64]:
        """Return what a group rule, if there is one, makes of what is released: post-processing."""
        if self.groups is None:
            return released
        cohort = self.stream.home.cohort(self.config.stream, index)
        invited = self.groups.invited(self.roster.behind(cohort))
        return robust_mean(
            released,
            invited=invited,
            num_invited=self.config.cohort_size,
            rule=self.config.group_rule,
        )

    def _tell(self, collected: Collected, *, index: int, seconds: float) -> None:
        """Keep the record of a round that is kept, and tell it."""
        stream = self.stream
        facts = StepFacts(
            index=index,
            replied=collected.sum.num_replied,
            refused=collected.sum.refused,
            noise_only=stream.was_noise_only,
            clipping_norm=stream.norm.before,
        )
        record = self.keeper.keep(
            facts, invited=len(collected.cohort), weights=self.weights(), seconds=seconds
        )
        if self.on_round is not None:
            self.on_round(record)

    def _hand_out_receipts(self, grid: Grid, cohort: Sequence[str], *, index: int) -> None:
        """Bring the invited nodes the signed ledger entry of what was released."""
        entry = self.stream.entry
        if self.signing_key is None or not self.policy_text or entry is None:
            return
        receipt = release_receipt(
            entry, stream=self.config.stream, index=index, key=self.signing_key
        )
        refused = self.receipts.hand_out(
            grid,
            receipt_messages(self.roster.behind(cohort), receipt),
            deadline_s=self.config.deadline_s,
        )
        if refused:
            logger.info("round %d: %d nodes took no receipt", index, refused)

    def _require_answers(self, collected: Collected, *, index: int) -> None:
        """End the run once nobody has answered for a while; what was released stays charged."""
        if collected.sum.num_replied:
            return
        answered = [record.replied > 0 for record in self.records]
        silent = next((n for n, heard in enumerate(reversed(answered)) if heard), len(answered))
        has_heard = any(answered) or len(answered) < self.stream.next_index
        is_last = self.stream.next_index >= self.config.num_rounds
        if silent >= SILENT_ROUNDS or (is_last and not has_heard):
            self.stream.end()
            refused = {str(reason): count for reason, count in collected.sum.refused.items()}
            raise NoAnswerError(
                index=index,
                silent=silent,
                refused=refused,
                first_failure=collected.first_failure,
            )
