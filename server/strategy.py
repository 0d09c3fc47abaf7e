"""The strategy: cohort, tasks, replies, noise, ledger and checkpoint over Flower's grid.

Flower's own loop cannot resume, stop or wait until a deadline, one odd reply ends it, and its
wrappers for differential privacy divide by the number that answered. So this loop pushes and pulls
messages itself; every decision is in a module without Flower: `cohorts`, `aggregation`,
`server_optimizer`, `privacy.budget`.

The order of a round: invite, charge the history, collect until the deadline, add the sum up, make
the ledger entry durable, draw the noise, step, keep a checkpoint. Only then can the next task,
which carries the new weights, leave.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MessageType, RecordDict

from models.wire.rounds import (
    CONTRIBUTION_RECORD,
    DEVICES_RECORD,
    FLAT_ARRAY,
    SUM_RECORD,
    TASK_RECORD,
    WEIGHTS_RECORD,
    Contribution,
    NodeFailure,
    RoundTask,
)
from privacy import GaussianRelease, UpdateGrid
from privacy.budget import require_cohort

from .aggregation import CohortSum, ReplyRefusal, mean_update, reply_refusal
from .cohorts import CohortHistory, invitation_order, select_cohort
from .rounds import NoAnswerError, RoundRecord, RoundsError
from .server_optimizer import OptimizerState, optimizer_step

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from datetime import datetime

    from flwr.serverapp import Grid
    from numpy.typing import NDArray

    from privacy import PrivacyPolicy, ReleaseNoise

    from .cohorts import Schedule
    from .rounds import RoundsConfig, RunFolder

logger = logging.getLogger(__name__)

Metrics = dict[str, float | None]


@dataclass(frozen=True, slots=True)
class Roster:
    """Which devices are enrolled, and behind which node each of them is.

    Attributes:
        device_ids: stable identifiers, sorted.
        node_ids: Flower node of each device, in the same order.
    """

    device_ids: tuple[str, ...]
    node_ids: tuple[int, ...]

    @staticmethod
    def of(devices_of_node: Mapping[int, Sequence[str]]) -> Roster:
        """Make the roster from what the nodes answered; a device counts once.

        A device that two nodes claim belongs to the node with the smaller number, so that nobody
        takes part twice by a second way.
        """
        owner: dict[str, int] = {}
        for node_id in sorted(devices_of_node):
            for device_id in devices_of_node[node_id]:
                owner.setdefault(device_id, node_id)
        device_ids = tuple(sorted(owner))
        return Roster(device_ids, tuple(owner[device_id] for device_id in device_ids))

    def tasks(
        self, cohort: NDArray[np.intp], *, config: RoundsConfig, index: int
    ) -> dict[int, RoundTask]:
        """Split a cohort into one task a node."""
        behind: dict[int, list[str]] = defaultdict(list)
        for position in cohort:
            behind[self.node_ids[position]].append(self.device_ids[position])
        return {
            node_id: RoundTask(
                stream=config.stream,
                index=index,
                clipping_norm=config.clipping_norm,
                cohort_size=len(cohort),
                device_ids=tuple(device_ids),
                recipe=config.recipe,
            )
            for node_id, device_ids in behind.items()
        }


@dataclass(slots=True)
class FederatedRounds:
    """One run of rounds over a grid.

    Attributes:
        config: what decides the run.
        folder: where it is recorded.
        roster: who is enrolled.
        schedule: public.
        policy: of the stream; None for a comparison without noise.
        noise: of the released steps.
        state: weights and optimiser to start from.
        clock: gives now, aware UTC.
        stop: set from outside to end the run after the messages in hand.
        evaluate: looks at weights, float32, shape (n_weights,), on data that is not the devices'.
        on_round: told of each round.
        poll_s: pause between two looks for replies.
    """

    config: RoundsConfig
    folder: RunFolder
    roster: Roster
    schedule: Schedule
    policy: PrivacyPolicy | None
    noise: ReleaseNoise
    state: OptimizerState
    clock: Callable[[], datetime]
    stop: threading.Event
    evaluate: Callable[[NDArray[np.float32]], Metrics] | None = None
    on_round: Callable[[RoundRecord], None] | None = None
    poll_s: float = 0.02
    history: CohortHistory = field(init=False)
    grid_step: UpdateGrid = field(init=False)
    order: NDArray[np.intp] = field(init=False)

    def __post_init__(self) -> None:
        """Fix the order of invitations and the grid of the stream."""
        self.history = CohortHistory.empty(len(self.roster.device_ids))
        self.grid_step = UpdateGrid(clipping_norm=self.config.clipping_norm)
        self.order = invitation_order(self.roster.device_ids, stream=self.config.stream)

    def run(self, grid: Grid) -> bool:
        """Run all rounds.

        Args:
            grid: Flower's way to the nodes.

        Returns:
            True if every round ran, False if the run was stopped.

        Raises:
            NoAnswerError: not one good reply came to a whole round.
            BudgetExceededError: a cohort is smaller than the policy's least.
        """
        for index in range(self.config.num_rounds):
            started = time.perf_counter()
            collected = self._collect(grid, index)
            if collected is None:
                return False
            invited, cohort_sum = collected
            self._release(cohort_sum, num_invited=invited, index=index)
            record = RoundRecord(
                index=index,
                invited=invited,
                replied=cohort_sum.num_replied,
                refused={str(reason): count for reason, count in cohort_sum.refused.items()},
                most_participations=self.history.most_participations,
                epsilon_release=self._epsilon(),
                metrics=self._metrics(index),
                seconds=round(time.perf_counter() - started, 4),
            )
            if self.on_round is not None:
                self.on_round(record)
        return True

    def weights(self) -> NDArray[np.float32]:
        """The weights that leave, float32, shape (n_weights,)."""
        return self.state.weights.astype(np.float32)

    def _collect(self, grid: Grid, index: int) -> tuple[int, CohortSum] | None:
        """Invite a cohort and add its replies up; None if the run was stopped meanwhile."""
        cohort = select_cohort(
            self.order,
            schedule=self.schedule,
            history=self.history,
            index=index,
            max_participations=self.schedule.participations,
            min_separation=self.schedule.min_separation,
        )
        if self.policy is not None:
            require_cohort(self.policy, cohort_size=len(cohort))
        self.history = self.history.after(cohort, index=index)
        tasks = self.roster.tasks(cohort, config=self.config, index=index)
        cohort_sum = CohortSum.empty(len(self.state.weights))
        first_failure: NodeFailure | None = None
        answered: set[int] = set()
        for reply in exchange(
            grid,
            self._messages(tasks),
            deadline_s=self.config.deadline_s,
            stop=self.stop,
            poll_s=self.poll_s,
        ):
            first_failure = first_failure or failure_of(reply)
            self._judge(reply, tasks=tasks, answered=answered, cohort_sum=cohort_sum)
        if self.stop.is_set():
            return None
        if cohort_sum.num_replied == 0:
            refused = {str(reason): count for reason, count in cohort_sum.refused.items()}
            raise NoAnswerError(index=index, refused=refused, first_failure=first_failure)
        return len(cohort), cohort_sum

    def _messages(self, tasks: Mapping[int, RoundTask]) -> list[Message]:
        weights = ArrayRecord({FLAT_ARRAY: Array(self.weights())})
        return [
            Message(
                RecordDict(
                    {WEIGHTS_RECORD: weights, TASK_RECORD: ConfigRecord({**task.to_plain()})}
                ),
                dst_node_id=node_id,
                message_type=MessageType.TRAIN,
                group_id=str(task.index),
            )
            for node_id, task in tasks.items()
        ]

    def _judge(
        self,
        reply: Message,
        *,
        tasks: Mapping[int, RoundTask],
        answered: set[int],
        cohort_sum: CohortSum,
    ) -> None:
        """Add one reply to the sum, or count why it is a zero."""
        node_id = reply.metadata.src_node_id
        if node_id not in tasks:
            cohort_sum.refuse(ReplyRefusal.UNASKED)
        elif node_id in answered:
            cohort_sum.refuse(ReplyRefusal.DUPLICATE)
        elif reply.has_error():
            cohort_sum.refuse(ReplyRefusal.FAILED)
        else:
            answered.add(node_id)
            read = read_contribution(reply)
            if read is None:
                cohort_sum.refuse(ReplyRefusal.MALFORMED)
                return
            total, contribution = read
            refusal = reply_refusal(
                total,
                contribution,
                task=tasks[node_id],
                num_weights=len(self.state.weights),
                grid=self.grid_step,
            )
            if refusal is not None:
                cohort_sum.refuse(refusal)
                return
            cohort_sum.add(total.astype(np.int64), num_devices=contribution.num_devices)

    def _release(self, cohort_sum: CohortSum, *, num_invited: int, index: int) -> None:
        """Charge, noise, step and keep: after this the new weights may leave."""
        event = GaussianRelease(
            stream=self.config.stream,
            index=index,
            mechanism=self.noise.mechanism,
            noise_multiplier=self.noise.noise_multiplier,
            clipping_norm=self.config.clipping_norm,
            cohort_size=num_invited,
            most_participations=self.history.most_participations,
        )
        self.folder.charge(event, kind=self.noise.entry_kind, at=self.clock())
        update = mean_update(
            cohort_sum.total,
            noise=self.noise.noise(index, len(self.state.weights)),
            num_invited=num_invited,
            grid=self.grid_step,
        )
        self.state = optimizer_step(
            self.state,
            update,
            recipe=self.config.server,
            rate=self.config.server.rate_at(index, num_rounds=self.config.num_rounds),
        )
        self.folder.save_checkpoint(self.state, index=index)

    def _epsilon(self) -> float | None:
        if self.policy is None:
            return None
        return self.policy.epsilon_after(self.history.most_participations)

    def _metrics(self, index: int) -> Metrics | None:
        is_last = index == self.config.num_rounds - 1
        if self.evaluate is None or not (is_last or index % self.config.evaluate_every == 0):
            return None
        return self.evaluate(self.weights())


def exchange(
    grid: Grid,
    messages: Sequence[Message],
    *,
    deadline_s: float,
    stop: threading.Event,
    poll_s: float,
) -> Iterator[Message]:
    """Send messages and yield each reply as it comes, until all came, the deadline, or the stop."""
    waiting = set(grid.push_messages(messages))
    end = time.monotonic() + deadline_s
    while waiting and time.monotonic() < end and not stop.is_set():
        replies = list(grid.pull_messages(waiting))
        waiting -= {reply.metadata.reply_to_message_id for reply in replies}
        yield from replies
        if not replies:
            stop.wait(poll_s)


def failure_of(reply: Message) -> NodeFailure | None:
    """Return why a node failed, None for a reply that is no error.

    Whatever is not one of the codes is `OTHER`: it may be an exception's text from a device that
    runs something else, and nobody shall read on the server what it holds.
    """
    if not reply.has_error():
        return None
    try:
        return NodeFailure(reply.error.reason or "")
    except ValueError:
        return NodeFailure.OTHER


def read_contribution(reply: Message) -> tuple[NDArray[np.generic], Contribution] | None:
    """Read a reply's array and facts; None for whatever does not have their form."""
    try:
        values = reply.content.config_records[CONTRIBUTION_RECORD]
        total = reply.content.array_records[SUM_RECORD][FLAT_ARRAY].numpy()
        return total, Contribution.from_plain(values)
    except (KeyError, ValueError, TypeError, EOFError, OSError):
        return None


def ask_for_devices(
    grid: Grid,
    *,
    num_nodes: int,
    deadline_s: float,
    stop: threading.Event,
    poll_s: float = 0.05,
) -> Roster:
    """Wait for the nodes and ask each which devices are behind it.

    Args:
        grid: Flower's way to the nodes.
        num_nodes: how many nodes to wait for.
        deadline_s: how long to wait, first for nodes, then for their answers.
        stop: ends the wait.
        poll_s: pause between two looks.

    Returns:
        The roster of all devices named.

    Raises:
        RoundsError: too few nodes came, or none named a device.
    """
    end = time.monotonic() + deadline_s
    node_ids = list(grid.get_node_ids())
    while len(node_ids) < num_nodes and time.monotonic() < end and not stop.is_set():
        stop.wait(poll_s)
        node_ids = list(grid.get_node_ids())
    if len(node_ids) < num_nodes:
        raise RoundsError(f"{len(node_ids)} of {num_nodes} nodes came within {deadline_s:g} s")
    questions = [
        Message(RecordDict(), dst_node_id=node_id, message_type=MessageType.QUERY)
        for node_id in node_ids
    ]
    devices_of_node: dict[int, list[str]] = {}
    failure = ""
    for reply in exchange(grid, questions, deadline_s=deadline_s, stop=stop, poll_s=poll_s):
        if reply.has_error():
            failure = f": {failure_of(reply)}"
            continue
        named = reply.content.config_records.get(DEVICES_RECORD, ConfigRecord()).get("device_ids")
        if isinstance(named, list):
            devices_of_node[reply.metadata.src_node_id] = [str(device_id) for device_id in named]
    roster = Roster.of(devices_of_node)
    if not roster.device_ids and not stop.is_set():
        raise RoundsError(f"no node named a device that can train{failure}")
    return roster
