"""A simulated fleet behind Flower's messages whose devices vanish and lie.

Every node answers by a ClientApp; what leaves a device is clipped and put on the grid by the code
that real devices run. Invited devices train side by side, which gives each the bits that it would
have alone. A node may stand for one device or for a block; the line between server and nodes loses,
delays, doubles and forges replies. Simulation only.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MessageType, RecordDict
from flwr.clientapp import ClientApp

from edge_client.closed_form_training import ClosedFormTraining
from edge_client.local_training import DEVICES_AT_ONCE
from models.closed_form_batches import ScaledRows
from models.wire.rounds import (
    CONTRIBUTION_RECORD,
    DEVICES_RECORD,
    FLAT_ARRAY,
    SUM_RECORD,
    TASK_RECORD,
    WEIGHTS_RECORD,
    Contribution,
    RoundTask,
)
from privacy import UpdateGrid

from .fleet_faults import Fault, Lies, longest_allowed, poisoned_change, poisoned_rows
from .in_process_grid import Delivery, InProcessGrid
from .seeded_noise import SeededNoise

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from flwr.app import Context
    from numpy.typing import NDArray

    from models.wire.rounds import LocalRecipe

    from .fleet_faults import FaultPlan

BLOCK_KEY = "partition-id"
_NODE_GONE = 5
"""Flower's code of the error with which it answers for a node that is gone."""


class RowsOfFleet(Protocol):
    """Scaled rows of a fleet, as `quality_fleet.StudyFleet` holds them."""

    @property
    def device_ids(self) -> tuple[str, ...]:
        """Stable identifiers of the devices."""

    @property
    def rows(self) -> ScaledRows:
        """Rows of all devices, one device after the other."""

    @property
    def spans(self) -> list[tuple[int, int]]:
        """Where the rows of each device begin and end."""


@dataclass(slots=True)
class FleetAtWork:
    """Trains devices of a fleet, poisoned ones as they are poisoned, and clips what they send.

    Attributes:
        fleet: whose devices they are.
        faults: of the fleet.
        seed: of the devices' coins and noise.
    """

    fleet: RowsOfFleet
    faults: FaultPlan
    seed: int
    _position: dict[str, int] = field(init=False)
    _ready: dict[tuple[int, str], NDArray[np.int64]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        """Number the devices."""
        self._position = {name: place for place, name in enumerate(self.fleet.device_ids)}

    def train_ahead(self, tasks: Sequence[RoundTask], weights: NDArray[np.float32]) -> None:
        """Train all invited devices of a round side by side; each answers for itself afterwards."""
        self._ready.clear()
        present = [device_id for task in tasks for device_id in self._present(task)]
        if tasks:
            updates = self._trained(present, tasks[0], weights)
            self._ready = {(tasks[0].index, name): update for name, update in updates.items()}

    def answer(
        self, task: RoundTask, weights: NDArray[np.float32]
    ) -> tuple[NDArray[np.int64], int]:
        """Return the sum of a block's devices that answer in time, and their number."""
        present = self._present(task)
        missing = [name for name in present if (task.index, name) not in self._ready]
        trained = self._trained(missing, task, weights)
        total = np.zeros(weights.shape, np.int64)
        for name in present:
            ready = self._ready.get((task.index, name))
            total += trained[name] if ready is None else ready
        return total, len(present)

    def _present(self, task: RoundTask) -> list[str]:
        """Return the invited devices that answer in time."""
        return [
            device_id
            for device_id in task.device_ids
            if self.faults.absence(device_id, index=task.index) is None
        ]

    def _trained(
        self, device_ids: Sequence[str], task: RoundTask, weights: NDArray[np.float32]
    ) -> dict[str, NDArray[np.int64]]:
        """Return what each device sends: int64, shape (n_weights,), on the grid."""
        grid = UpdateGrid(clipping_norm=task.clipping_norm)
        silent = replace(task.recipe, record_noise_multiplier=0.0)
        updates = {name: np.zeros(weights.shape, np.int64) for name in device_ids}
        honest, liars = self._by_recipe(device_ids, least_rows=task.recipe.least_rows)
        for recipe, names in ((task.recipe, honest), (silent, liars)):
            for first in range(0, len(names), DEVICES_AT_ONCE):
                some = names[first : first + DEVICES_AT_ONCE]
                changes = self._changes(some, recipe, weights=weights, index=task.index)
                for name, change in zip(some, changes, strict=True):
                    said = self._said(name, change, clipping_norm=task.clipping_norm)
                    updates[name] = grid.contribution(said)
        return updates

    def _by_recipe(
        self, device_ids: Sequence[str], *, least_rows: int
    ) -> tuple[list[str], list[str]]:
        """Split devices with enough rows into those that add noise to row gradients and liars."""
        enough = [name for name in device_ids if self._num_rows(name) >= least_rows]
        is_liar = self.faults.lies is Lies.PAST_CLIPPING
        liars = [name for name in enough if is_liar and self.faults.poison(name) is not None]
        return [name for name in enough if name not in set(liars)], liars

    def _changes(
        self,
        device_ids: Sequence[str],
        recipe: LocalRecipe,
        *,
        weights: NDArray[np.float32],
        index: int,
    ) -> NDArray[np.float64]:
        """Train devices side by side; where data is poisoned, on that."""
        poisons = [self.faults.poison(name) for name in device_ids]
        spans = [self.fleet.spans[self._position[name]] for name in device_ids]
        rows = self.fleet.rows
        if {Fault.LABEL_FLIPPED, Fault.BACKDOORED} & {*poisons}:
            rows, spans = self._poisoned(rows, spans, poisons)
        return ClosedFormTraining(recipe).changes_of_scaled(
            rows,
            spans,
            [SeededNoise(self.seed, "device", name, index) for name in device_ids],
            weights=weights,
        )

    def _poisoned(
        self,
        rows: ScaledRows,
        spans: Sequence[tuple[int, int]],
        poisons: Sequence[Fault | None],
    ) -> tuple[ScaledRows, list[tuple[int, int]]]:
        tables = []
        for (start, stop), poison in zip(spans, poisons, strict=True):
            own = ScaledRows(
                rows.inputs[start:stop],
                rows.exposure[start:stop],
                rows.event_bin[start:stop],
                rows.cause[start:stop],
            )
            tables.append(
                own if poison is None else poisoned_rows(own, poison, trigger=self.faults.trigger)
            )
        ends = np.cumsum([len(table) for table in tables]).tolist()
        return ScaledRows.stacked(tables), list(zip([0, *ends[:-1]], ends, strict=True))

    def _said(
        self, device_id: str, change: NDArray[np.float64], *, clipping_norm: float
    ) -> NDArray[np.float64]:
        poison = self.faults.poison(device_id)
        if poison is None:
            return change
        said = poisoned_change(change, poison, scale=self.faults.scale)
        if self.faults.lies is Lies.PAST_CLIPPING:
            return longest_allowed(said, clipping_norm=clipping_norm)
        return said

    def _num_rows(self, device_id: str) -> int:
        start, stop = self.fleet.spans[self._position[device_id]]
        return stop - start


def fleet_app(work: FleetAtWork, blocks: Sequence[tuple[str, ...]]) -> ClientApp:
    """Make the ClientApp of nodes that stand for blocks of devices.

    Args:
        work: trains them.
        blocks: devices behind the nodes, by the number that a node's configuration holds.
    """
    app = ClientApp()

    def query(message: Message, context: Context) -> Message:
        device_ids = list(blocks[int(context.node_config[BLOCK_KEY])])
        record = ConfigRecord({"device_ids": device_ids})
        return Message(RecordDict({DEVICES_RECORD: record}), reply_to=message)

    def train(message: Message, _context: Context) -> Message:
        task, weights = task_of(message)
        total, num_devices = work.answer(task, weights)
        facts = Contribution(stream=task.stream, index=task.index, num_devices=num_devices)
        return Message(_content(total, facts), reply_to=message)

    app.query()(query)
    app.train()(train)
    return app


def task_of(message: Message) -> tuple[RoundTask, NDArray[np.float32]]:
    """Return the task and the weights that a message brings."""
    task = RoundTask.from_plain(message.content.config_records[TASK_RECORD])
    weights = message.content.array_records[WEIGHTS_RECORD][FLAT_ARRAY].numpy()
    return task, weights.astype(np.float32)


@dataclass(slots=True)
class FaultyLine:
    """Loses, delays, doubles and forges the replies of nodes to tasks; other messages pass.

    A node all of whose invited devices are absent says nothing, or answers late where one of them
    only is late; or Flower answers for it that it is gone. A replay is the first good reply that
    came over the line, again.

    Attributes:
        faults: of the fleet; a node that stands for one device lies as that device does.
    """

    faults: FaultPlan
    _former: tuple[int, RecordDict] | None = field(init=False, default=None)

    def carry(self, message: Message, answer: Callable[[Message], Message]) -> Sequence[Delivery]:
        """Return what comes of a message."""
        if message.metadata.message_type != MessageType.TRAIN:
            return [Delivery(answer(message))]
        task = RoundTask.from_plain(message.content.config_records[TASK_RECORD])
        absences = {self.faults.absence(name, index=task.index) for name in task.device_ids}
        if absences and None not in absences and self.faults.is_noticed(index=task.index):
            return [Delivery(Message(Error(_NODE_GONE), reply_to=message))]
        if absences == {Fault.DROPOUT}:
            return []
        reply = answer(message)
        if absences and None not in absences:
            return [Delivery(reply, is_late=True)]
        return self._forged(reply, task, node_id=message.metadata.dst_node_id)

    def _forged(self, reply: Message, task: RoundTask, *, node_id: int) -> Sequence[Delivery]:
        if reply.has_error():
            return [Delivery(reply)]
        name = task.device_ids[0] if len(task.device_ids) == 1 else f"node-{node_id}"
        fault = self.faults.reply_fault(name, index=task.index)
        if self._former is None:
            self._former = task.index, reply.content
        heard_at, heard = self._former
        if fault is Fault.DUPLICATE:
            return [Delivery(reply), Delivery(reply)]
        if fault is Fault.REPLAY and heard_at != task.index:
            reply.content = heard
        elif fault is not None:
            reply.content = forged(reply.content, fault, scale=self.faults.scale)
        return [Delivery(reply)]


def forged(content: RecordDict, fault: Fault, *, scale: float) -> RecordDict:
    """Return a reply's content with a fault in it, as a node can send that runs other code.

    Args:
        content: as honest code made it.
        fault: one of `fleet_faults.REPLY_FAULTS`; a replay without an earlier reply repeats the
            step before.
        scale: factor of a scaled sum.
    """
    total = content.array_records[SUM_RECORD][FLAT_ARRAY].numpy()
    facts = Contribution.from_plain(content.config_records[CONTRIBUTION_RECORD])
    if fault in (Fault.NAN, Fault.INFINITE):
        odd = total.astype(np.float64)
        odd[::7] = np.nan if fault is Fault.NAN else np.inf
        return _content(odd, facts)
    if fault in (Fault.WRONG_STEP, Fault.REPLAY):
        return _content(total, replace(facts, index=facts.index - 1))
    sums: Mapping[Fault, NDArray[np.generic]] = {
        Fault.WRONG_SHAPE: total[:-1],
        Fault.WRONG_TYPE: total.astype(np.float32),
        Fault.SCALED: (total * int(scale)),
        Fault.SIGN_FLIPPED: -total,
        Fault.ZEROS: np.zeros_like(total),
    }
    return _content(sums.get(fault, total), facts)


def _content(total: NDArray[np.generic], facts: Contribution) -> RecordDict:
    content = RecordDict({SUM_RECORD: ArrayRecord({FLAT_ARRAY: Array(total)})})
    content[CONTRIBUTION_RECORD] = ConfigRecord({**facts.to_plain()})
    return content


class FleetGrid(InProcessGrid):
    """A grid whose nodes are a fleet's devices, one each or in blocks, and that trains ahead.

    Args:
        work: trains the devices.
        devices_a_node: how many stand behind one node.
    """

    def __init__(self, work: FleetAtWork, *, devices_a_node: int = 1) -> None:
        names = work.fleet.device_ids
        blocks = [
            names[first : first + devices_a_node] for first in range(0, len(names), devices_a_node)
        ]
        super().__init__(
            fleet_app(work, blocks),
            {number + 1: {BLOCK_KEY: number} for number in range(len(blocks))},
            line=FaultyLine(work.faults),
            is_ahead=True,
        )
        self._work = work

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Send messages; devices that tasks among them invite train side by side first."""
        sent = list(messages)
        tasks = [task_of(m) for m in sent if m.metadata.message_type == MessageType.TRAIN]
        if tasks:
            self._work.train_ahead([task for task, _ in tasks], tasks[0][1])
        return super().push_messages(sent)
